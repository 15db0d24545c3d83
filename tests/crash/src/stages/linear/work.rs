//! What one worker does: calls of every kind on few keys, so that all meet all the time.

use crate::Failure;
use crate::check::clock::Span;
use crate::check::crew::Worker;
use crate::check::journal::Record;
use crate::check::log::BULK;
use crate::check::single::{Found, Op, What};
use llmspell_state_persistence::{Document, Entry, Error, ErrorKind, Number, State};
use serde_json::{Value, json};
use std::sync::Arc;

/// The keys: four that hold what was written last, and two that are counted up.
pub(super) const NAMES: &[&str] = &["r0", "r1", "r2", "r3", "c0", "c1"];
/// The keys from which on they are counters.
const COUNTERS: usize = 4;
/// Keys that only take up room, so that a small cache has to let go of others.
const BULKY: usize = 12;

/// Makes the keys that take up room.
pub(super) fn prepare(state: &State) -> Result<(), Failure> {
    for bulky in 0..BULKY {
        state.set(&format!("{BULK}{bulky}"), "x".repeat(150_000))?;
    }
    Ok(())
}

fn number(value: &Value) -> i64 {
    value.get(0).unwrap_or(value).as_i64().unwrap_or(-1)
}

fn found(entry: Option<&Arc<Entry>>) -> Option<Found> {
    entry.map(|entry| (number(&entry.value()), Some(entry.version())))
}

/// Makes the worker's calls.
pub fn work(state: &State, worker: &mut Worker, record: &mut dyn Record<Op>) -> Result<(), Failure> {
    // The newest version of each key that this worker knows of.
    let mut known = [0; NAMES.len()];
    for _ in 0..worker.calls {
        let key = worker.random.usize(0..NAMES.len());
        let mut calls = Calls { state, worker, record, key };
        match calls.worker.random.u8(0..100) {
            0..60 => calls.read(&mut known)?,
            60..63 => drop(state.get(&format!("{BULK}{}", calls.worker.random.usize(0..BULKY)))?),
            _ if key >= COUNTERS => calls.count()?,
            63..90 => calls.write(&mut known)?,
            _ => calls.delete(&known)?,
        }
    }
    Ok(())
}

struct Calls<'w> {
    state: &'w State,
    worker: &'w mut Worker,
    record: &'w mut dyn Record<Op>,
    key: usize,
}

impl Calls<'_> {
    fn name(&self) -> &'static str {
        NAMES[self.key]
    }

    fn op(&self, span: Span, what: What) -> Op {
        Op { worker: self.worker.id, span, what }
    }

    /// Notes what is about to be done.
    fn trying(&mut self, what: What) -> Result<Span, Failure> {
        let span = Span::open();
        let op = self.op(span, what);
        self.record.trying(&op)?;
        Ok(span)
    }

    /// Notes what was answered just now.
    fn done(&mut self, span: Span, what: What) -> Result<(), Failure> {
        let op = self.op(span.closed(), what);
        self.record.done(op)
    }

    fn read(&mut self, known: &mut [u64]) -> Result<(), Failure> {
        let (state, key, name) = (self.state, self.key, self.name());
        let span = Span::open();
        match self.worker.random.u8(0..10) {
            0..3 => {
                let value = state.get(name)?;
                self.done(span, What::Read(key, value.map(|value| (number(&value), None))))
            }
            3..5 => {
                let entry = self.worker.make(state.calls().entry(name)?)?;
                known[key] = entry.as_ref().map_or(0, |entry| entry.version());
                self.done(span, What::Read(key, found(entry.as_ref())))
            }
            5 => match state.peek(name)? {
                Some(entry) => self.done(span, What::Read(key, found(entry.as_ref()))),
                None => Ok(()),
            },
            6 => {
                let there = state.exists(name)?;
                self.done(span, What::Exists(key, there))
            }
            _ => {
                let entries = state.get_many(NAMES)?;
                let all = entries.iter().map(|entry| found(entry.as_ref())).enumerate().collect();
                self.done(span, What::Many(all))
            }
        }
    }

    fn count(&mut self) -> Result<(), Failure> {
        let span = self.trying(What::Add(self.key, None))?;
        let Number::Int(sum) = self.worker.make(self.state.calls().increment(self.name(), 1)?)? else {
            return Err(Failure::new("a sum is no integer"));
        };
        self.done(span, What::Add(self.key, Some(sum)))
    }

    fn delete(&mut self, known: &[u64]) -> Result<(), Failure> {
        let (state, key, name, expected) = (self.state, self.key, self.name(), known[self.key]);
        // The checker can tell plain deletions of one key apart.
        if key == 0 {
            let span = self.trying(What::Delete(key, None))?;
            let there = self.worker.make(state.calls().delete(name)?)?;
            return self.done(span, What::Delete(key, Some(there)));
        }
        let span = self.trying(What::DeleteIf(key, expected, None))?;
        let what = match self.worker.make(state.calls().delete_if(name, expected)?) {
            Ok(false) => What::Exists(key, false),
            Ok(true) => What::DeleteIf(key, expected, Some(true)),
            Err(error) if error.kind() == ErrorKind::Conflict => What::Refused(key, expected),
            Err(error) => return Err(error.into()),
        };
        self.done(span, what)
    }

    fn write(&mut self, known: &mut [u64]) -> Result<(), Failure> {
        let (state, key, name, value) = (self.state, self.key, self.name(), self.worker.value());
        let padded = match self.worker.padding {
            0 => json!(value),
            padding => json!([value, "x".repeat(padding)]),
        };
        let wrote = |version, expected| What::Write { key, value, version, expected };
        let span = self.trying(wrote(None, None))?;
        let done = match self.worker.random.u8(0..7) {
            0..2 => wrote(Some(self.worker.make(state.calls().set(name, &padded)?)?), None),
            2..4 => match self.worker.make(state.calls().set_if(name, &padded, known[key])?) {
                Ok(version) => wrote(Some(version), Some(known[key])),
                Err(error) if error.kind() == ErrorKind::Conflict => What::Refused(key, known[key]),
                Err(error) => return Err(error.into()),
            },
            4 => {
                self.worker.make(state.calls().merge(name, &padded)?)?;
                wrote(None, None)
            }
            5 => {
                let mut seen = 0;
                let entry = state.modify::<Error>(name, |entry| {
                    seen = entry.map_or(0, |entry| entry.version());
                    Document::from_value(&padded, state.max_value_bytes())
                })?;
                wrote(Some(entry.version()), Some(seen))
            }
            _ => {
                let transaction = state.transaction()?;
                let seen = transaction.entry(name)?.map_or(0, |entry| entry.version());
                transaction.set(name, &padded)?;
                match self.worker.make(transaction.commit_call()?) {
                    Ok(version) => wrote(Some(version), Some(seen)),
                    // Not a refusal of the moment: the key was another between the beginning and the commit.
                    Err(error) if error.kind() == ErrorKind::Conflict => What::Refused(key, seen),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        if let What::Write { version: Some(version), .. } = done {
            known[key] = version;
        }
        self.done(span, done)
    }
}

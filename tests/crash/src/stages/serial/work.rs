//! What one worker does: transactions of a few acts each on few keys in two scopes, and calls outside of transactions.

use crate::Failure;
use crate::check::clock::Span;
use crate::check::crew::Worker;
use crate::check::journal::Record;
use crate::check::serial::{Act, Listing, Outcome, Run};
use llmspell_state_persistence::{Entry, ErrorKind, Items, Keys, Number, Result as Answer, Scope, Select, State};
use std::sync::Arc;

/// Keys of each scope that are set, and some that are counted up.
const KEYS: &[&str] = &["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"];
const COUNTERS: &[&str] = &["n0", "n1"];
const PATTERNS: &[&str] = &["*", "a*", "b*", "?1", "a1", "n*"];
/// The root and a scope below it, as they stand in front of a key.
const SCOPES: &[&str] = &["", "in/"];

fn value(entry: Option<&Arc<Entry>>) -> Option<i64> {
    entry.map(|entry| entry.value().as_i64().unwrap_or(-1))
}

fn select(listing: &Listing) -> Select {
    let Listing { pattern, after, limit, reverse, .. } = listing.clone();
    Select { pattern: Some(pattern), after, limit, reverse }
}

fn names(keys: Keys) -> Answer<Vec<String>> {
    keys.collect()
}

fn pairs(items: Items) -> Answer<Vec<(String, i64)>> {
    items.map(|item| item.map(|(key, entry)| (key, value(Some(&entry)).unwrap_or(-1)))).collect()
}

fn whole(number: Number) -> i64 {
    match number {
        Number::Int(sum) => sum,
        Number::Float(_) => -1,
    }
}

impl Worker {
    fn key(&mut self) -> &'static str {
        let counter = self.random.u8(0..5) == 0;
        let keys: &[&'static str] = if counter { COUNTERS } else { KEYS };
        let key: &&str = self.pick(keys);
        key
    }

    fn listing(&mut self, scope: &str) -> Listing {
        let listing = Listing { scope: scope.into(), pattern: (*self.pick(PATTERNS)).into(), ..Listing::default() };
        match self.random.u8(0..4) {
            0 => Listing { limit: Some(self.random.u64(0..4)), reverse: self.random.bool(), ..listing },
            1 => Listing { after: Some(self.key().into()), reverse: self.random.bool(), ..listing },
            _ => listing,
        }
    }

    /// A listing without bounds, as `count` and `clear` take it.
    fn matching(&mut self, scope: &str) -> Listing {
        Listing { scope: scope.into(), pattern: (*self.pick(PATTERNS)).into(), ..Listing::default() }
    }
}

/// A reading verb of a scope or of a transaction, and what it answers.
macro_rules! read {
    ($handle:expr, $worker:expr, $scope:expr) => {{
        let (handle, worker, scope) = ($handle, $worker, $scope);
        let key = worker.key();
        let full = format!("{scope}{key}");
        match worker.random.u8(0..8) {
            0 | 1 => Act::Get(full, value(handle.entry(key)?.as_ref())),
            2 => Act::Exists(full, handle.exists(key)?),
            3 => {
                let entries = handle.get_many(KEYS)?;
                let there = |(key, entry): (&&str, &Option<Arc<Entry>>)| {
                    Some((format!("{scope}{key}"), value(entry.as_ref())?))
                };
                let found = KEYS.iter().zip(&entries).filter_map(there).collect();
                Act::GetMany(KEYS.iter().map(|key| format!("{scope}{key}")).collect(), found)
            }
            4 => {
                let listing = worker.listing(scope);
                let found = names(handle.keys(select(&listing))?)?;
                Act::Keys(listing, found)
            }
            5 | 6 => {
                let listing = worker.listing(scope);
                let found = pairs(handle.items(select(&listing))?)?;
                Act::Items(listing, found)
            }
            _ => {
                let listing = worker.matching(scope);
                let count = handle.count(&listing.pattern)?;
                Act::Count(listing, count)
            }
        }
    }};
}

/// Runs the worker's transactions.
pub fn work(state: &State, worker: &mut Worker, record: &mut dyn Record<Run>) -> Result<(), Failure> {
    let inner = state.scope("in")?;
    for _ in 0..worker.calls {
        match worker.random.u8(0..10) {
            0 => look(state, &inner, worker, record)?,
            1 => change(state, &inner, worker, record)?,
            _ => transaction(state, worker, record)?,
        }
    }
    Ok(())
}

fn transaction(state: &State, worker: &mut Worker, record: &mut dyn Record<Run>) -> Result<(), Failure> {
    let begin = Span::open();
    let root = state.transaction()?;
    let begin = begin.closed();
    let inner = root.scope("in")?;
    let reads_only = worker.random.u8(0..5) == 0;
    let mut acts = Vec::new();
    for _ in 0..worker.random.usize(1..6) {
        let scope = *worker.pick(SCOPES);
        let handle = if scope.is_empty() { &root } else { &inner };
        if reads_only || worker.random.u8(0..5) < 3 {
            acts.push(read!(handle, &mut *worker, scope));
            continue;
        }
        let key = *worker.pick(KEYS);
        let full = format!("{scope}{key}");
        acts.push(match worker.random.u8(0..12) {
            0..6 => {
                let value = worker.value();
                handle.set(key, value)?;
                Act::Set(full, value)
            }
            6..8 => Act::Delete(full, handle.delete(key)?),
            8..11 => {
                let (key, by) = (*worker.pick(COUNTERS), worker.random.i64(1..3));
                Act::Increment(format!("{scope}{key}"), by, whole(handle.increment(key, by)?))
            }
            _ => {
                let listing = worker.matching(scope);
                let count = handle.clear(&listing.pattern)?;
                Act::Clear(listing, count)
            }
        });
        // Others come in between, also where processors are few.
        std::thread::yield_now();
    }
    let mut run = Run { worker: worker.id, begin, acts, end: Span::open(), outcome: Outcome::Unknown };
    if worker.random.u8(0..12) == 0 {
        root.rollback()?;
        run.outcome = Outcome::Failed;
    } else {
        record.trying(&run)?;
        run.outcome = match root.commit_call().and_then(|commit| worker.make(commit)) {
            Ok(version) => Outcome::Committed(Some(version)),
            Err(error) if error.kind() == ErrorKind::Conflict => Outcome::Failed,
            Err(error) => return Err(error.into()),
        };
    }
    run.end = run.end.closed();
    record.done(run)
}

/// A call of its own that only reads.
fn look(state: &State, inner: &Scope, worker: &mut Worker, record: &mut dyn Record<Run>) -> Result<(), Failure> {
    let scope = *worker.pick(SCOPES);
    let handle: &Scope = if scope.is_empty() { state } else { inner };
    let span = Span::open();
    let acts = vec![read!(handle, &mut *worker, scope)];
    let span = span.closed();
    record.done(Run { worker: worker.id, begin: span, acts, end: span, outcome: Outcome::Committed(None) })
}

/// A call of its own that changes something.
fn change(state: &State, inner: &Scope, worker: &mut Worker, record: &mut dyn Record<Run>) -> Result<(), Failure> {
    let scope = *worker.pick(SCOPES);
    let handle: &Scope = if scope.is_empty() { state } else { inner };
    let span = Span::open();
    let mut run = Run { worker: worker.id, begin: span, acts: Vec::new(), end: span, outcome: Outcome::Unknown };
    let kind = if worker.mortal { 0 } else { worker.random.u8(0..6) };
    let key = *worker.pick(KEYS);
    let mut version = None;
    let act = match kind {
        0..3 => {
            let pairs: Vec<(&str, i64)> =
                (0..worker.random.usize(2..5)).map(|_| (*worker.pick(KEYS), worker.value())).collect();
            run.acts.extend(pairs.iter().map(|(key, value)| Act::Set(format!("{scope}{key}"), *value)));
            record.trying(&run)?;
            version = Some(worker.make(handle.calls().set_many(pairs)?)?);
            None
        }
        3 => Some(Act::Delete(format!("{scope}{key}"), worker.make(handle.calls().delete(key)?)?)),
        4 => {
            let key = *worker.pick(COUNTERS);
            let sum = worker.make(handle.calls().increment(key, 1)?)?;
            Some(Act::Increment(format!("{scope}{key}"), 1, whole(sum)))
        }
        _ => {
            let listing = worker.matching(scope);
            let count = worker.make(handle.calls().clear(&listing.pattern)?)?;
            Some(Act::Clear(listing, count))
        }
    };
    run.end = run.end.closed();
    run.begin = run.end;
    run.acts.extend(act);
    run.outcome = Outcome::Committed(version);
    record.done(run)
}

//! What a process of the stage does: `STORE JOURNAL SETTINGS SEED RUN SLOTS DIE`, with slots between commas, each a thread.
//!
//! It goes on until it is killed, or for some hundred operations. `DIE` is `POINT:N`, where it kills itself, or `-`.

use super::story::{Answer, LONG, Life, Line, Operation, Spec, Told, WATCH, now_ms, trunk, watched};
use crate::Failure;
use llmspell_state_persistence::harness::{self, Event};
use llmspell_state_persistence::{Change, Document, Error, ErrorKind, Scope, State, StateConfig, Ttl, WatchOptions};
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Operations of one thread, unless it is killed before.
const MOST: u32 = 400;
/// Forks of one slot: none of them is ever removed.
const FORKS: usize = 5;
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A worker process.
pub fn process(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [store, journal, settings, seed, run, slots, die] = words[..] else {
        return Err(Failure::new("arguments: STORE JOURNAL SETTINGS SEED RUN SLOTS DIE"));
    };
    if let Some((point, times)) = die.split_once(':') {
        die_at(point, times.parse()?);
    }
    let journal = File::options().append(true).create(true).open(journal)?;
    let told = work(&journal, store, settings, (seed.parse()?, run.parse()?), slots);
    let last = told.as_ref().map_or_else(|failure| Line::Failed(failure.to_string()), |()| Line::End);
    tell(&journal, &last)?;
    told
}

fn die_at(point: &str, times: u64) {
    let (point, passed) = (point.to_owned(), AtomicU64::new(0));
    harness::watch(move |event| {
        let name = match event {
            Event::Point(name) => name,
            Event::Write { .. } => "file.write",
            _ => "file.change",
        };
        if name == point && passed.fetch_add(1, Ordering::Relaxed) + 1 == times {
            die();
        }
        Ok(())
    });
}

#[allow(unsafe_code)]
fn die() {
    // SAFETY: plain system calls.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// One write a line: what was told before the process dies is told whole.
fn tell(mut journal: &File, line: &Line) -> Result<(), Failure> {
    Ok(journal.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())?)
}

fn work(journal: &File, store: &str, settings: &str, (seed, run): (u64, u64), slots: &str) -> Result<(), Failure> {
    let mut settings: serde_json::Map<String, serde_json::Value> = serde_json::from_str(settings)?;
    settings.insert("persistence_path".into(), store.into());
    let state = State::with_config(StateConfig::from_options(settings)?)?;
    tell(journal, &Line::Open)?;
    let slots = slots.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    std::thread::scope(|threads| {
        let each = |slot: usize| {
            let random = fastrand::Rng::with_seed(seed ^ (slot as u64) << 32);
            let tag = run << 24 | (slot as u64) << 20;
            let mut worker = Worker { state: &state, journal, slot, random, tag };
            threads.spawn(move || worker.work())
        };
        let running: Vec<_> = slots.into_iter().map(each).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked"))))
    })?;
    Ok(state.close()?)
}

/// One thread.
struct Worker<'s> {
    state: &'s State,
    journal: &'s File,
    slot: usize,
    random: fastrand::Rng,
    /// The next conversation's.
    tag: u64,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<(), Failure> {
        for number in 0..MOST {
            // The watch is there before what it is to tell.
            let operation =
                if number == 0 { Operation::Follow { scope: watched(self.slot), most: 20 } } else { self.next()? };
            tell(self.journal, &Line::Begun { slot: self.slot, at_ms: now_ms(), operation: operation.clone() })?;
            let answer = self
                .run(&operation)
                .map_err(|error| Failure::new(format!("{operation:?}: {}: {error}", error.kind())))?;
            tell(self.journal, &Line::Done { slot: self.slot, at_ms: now_ms(), answer })?;
        }
        Ok(())
    }

    fn key(&mut self) -> String {
        self.random.choice(KEYS).unwrap_or("a").to_owned()
    }

    /// The slot's trunk and its forks.
    fn family(&self) -> Result<Vec<String>, Failure> {
        let trunk = trunk(self.slot);
        Ok(self.state.scopes()?.into_iter().filter(|name| name.starts_with(&trunk)).collect())
    }

    /// A value that goes on from the present one of a key, mostly: large ones that grow are stored as differences.
    fn spec(&mut self, scope: &str, key: &str) -> Result<Spec, Failure> {
        let large = matches!(key, "a" | "b");
        let before = self.state.scope(scope)?.get(key)?.as_ref().and_then(Spec::of);
        if let Some(before) = before.filter(|before| large && before.turns < 60 && self.random.u8(..12) > 0) {
            return Ok(Spec { turns: before.turns + self.random.u32(1..3), ..before });
        }
        self.tag += 1;
        let turns = if large { self.random.u32(10..30) } else { self.random.u32(0..2) };
        Ok(Spec { tag: self.tag, turns })
    }

    /// How long a key lives. Only watched scopes have keys that expire while the test lasts.
    fn life(&mut self, scope: &str) -> Life {
        match self.random.u8(..6) {
            0 => LONG + self.random.u64(..LONG),
            1 | 2 if scope.starts_with('s') => self.random.u64(5..250),
            _ => 0,
        }
    }

    fn next(&mut self) -> Result<Operation, Failure> {
        let family = self.family()?;
        let kin = self.random.choice(&family).cloned();
        let scope = if self.random.bool() { watched(self.slot) } else { kin.unwrap_or_else(|| trunk(self.slot)) };
        let key = self.key();
        let inside = scope.starts_with('s');
        Ok(match self.random.u8(..100) {
            0..55 => {
                let spec = self.spec(&scope, &key)?;
                Operation::Set { life: self.life(&scope), scope, key, spec }
            }
            55..65 => Operation::Touch { life: self.life(&scope), scope, key },
            65..75 => Operation::Delete { scope, key },
            75..80 if inside => {
                let read = self.key();
                let spec = self.spec(&scope, &key)?;
                Operation::Within { scope, read, key, spec }
            }
            75..83 if !inside && family.len() <= FORKS && family.contains(&scope) => {
                let name = format!("{}f{}", trunk(self.slot), family.len());
                Operation::Fork { scope, name }
            }
            83..91 if !inside && family.len() > 1 => {
                // Every fork is one of those before it; which one, it knows itself.
                let fork = self.random.choice(&family[1..]).cloned().unwrap_or_default();
                Operation::Merge { scope, fork }
            }
            91..97 => Operation::Follow { scope: watched(self.slot), most: self.random.usize(1..60) },
            97.. => Operation::Cleanup,
            _ => {
                let spec = self.spec(&scope, &key)?;
                Operation::Set { scope, key, spec, life: 0 }
            }
        })
    }

    fn run(&mut self, operation: &Operation) -> Result<Answer, Error> {
        let scope = |name: &str| self.state.scope(name);
        Ok(match operation {
            Operation::Set { scope: name, key, spec, life: 0 } => Answer::Version(scope(name)?.set(key, spec.value())?),
            Operation::Set { scope: name, key, spec, life } => {
                Answer::Version(scope(name)?.set_with(key, spec.value(), ttl(*life))?)
            }
            Operation::Touch { scope: name, key, life } => Answer::There(scope(name)?.touch(key, ttl(*life))?),
            Operation::Delete { scope: name, key } => Answer::There(scope(name)?.delete(key)?),
            Operation::Within { scope: name, read, key, spec } => {
                let transaction = scope(name)?.transaction()?;
                let there = transaction.exists(read)?;
                transaction.set(key, spec.value())?;
                std::thread::sleep(Duration::from_millis(self.random.u64(..40)));
                let asked_ms = now_ms();
                let version = match transaction.commit() {
                    Err(error) if error.kind() == ErrorKind::Conflict => None,
                    told => Some(told?),
                };
                Answer::Within { there, asked_ms, version }
            }
            Operation::Fork { scope: name, name: fork } => {
                self.state.fork(name, fork)?;
                Answer::Done
            }
            Operation::Merge { scope: name, fork } => match scope(name)?.merge_from(&scope(fork)?) {
                // It was made from another one.
                Err(error) if error.kind() == ErrorKind::Invalid => Answer::Done,
                merged => {
                    let merged = merged?;
                    let conflicts = merged.conflicts.into_iter().map(|(_, key)| key).collect();
                    Answer::Merged { version: merged.version, keys: merged.keys, conflicts }
                }
            },
            Operation::Follow { scope: name, most } => follow(&scope(name)?, *most)?,
            Operation::Cleanup => {
                self.state.cleanup()?;
                Answer::Done
            }
        })
    }
}

fn ttl(life: Life) -> Ttl {
    if life == 0 { Ttl::Never } else { Ttl::After(Duration::from_millis(life)) }
}

/// A change as it is written down.
pub(super) fn told(change: &Change) -> Result<Told, Error> {
    let spec = |document: &Option<Document>| {
        let spec = document.as_ref().map(Spec::read).transpose();
        spec.map_err(|why| Error::invalid(format!("a watch told of {}: {why}", change.key)))
    };
    Ok(Told {
        version: change.version,
        key: change.key.clone(),
        operation: change.operation.name().into(),
        spec: spec(&change.value)?,
        old: spec(&change.old)?,
    })
}

/// How far the watch of a scope is kept.
fn kept(scope: &Scope) -> Result<Option<u64>, Error> {
    Ok(scope.named_watches()?.first().map(|watch| watch.version))
}

/// Takes what the named watch tells, and keeps that.
pub(super) fn follow(scope: &Scope, most: usize) -> Result<Answer, Error> {
    let from = kept(scope)?;
    let watch = scope.watch(WatchOptions { name: Some(WATCH.into()), ..WatchOptions::default() })?;
    let mut all = Vec::new();
    // Commits are kept whole.
    while let Some(change) = watch.next_timeout(Duration::ZERO)? {
        all.push(told(&change)?);
        if all.len() >= most && change.ends_commit {
            break;
        }
    }
    watch.save()?;
    watch.close()?;
    Ok(Answer::Followed { from, told: all, to: kept(scope)?.unwrap_or(0) })
}

//! What the writer does.

use super::model::{WATCH, named, scope};
use llmspell_state_persistence::{Error, ErrorKind, Origin, RetentionPolicy, Scope, State, Ttl, Undo, harness};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// One step of the writer.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Open,
    Close,
    /// Moves the log into the database; the number is SQLite's mode.
    Checkpoint(i32),
    /// Time goes by, in milliseconds.
    Wait(i64),
    Scope(String),
    /// Sets keys of one scope in one commit.
    Set(String, Vec<(String, Arc<str>)>),
    /// Sets a key that lives for so many milliseconds.
    SetFor(String, String, Arc<str>, u32),
    /// Sets a key to what it is and a little more: long values are stored as differences.
    Grow(String, String, Arc<str>),
    /// Gives a key so many milliseconds to live; 0 is for ever.
    Touch(String, String, u32),
    /// Sets one key in each of several scopes in one commit.
    Transact(Vec<(String, String, Arc<str>)>),
    /// A transaction reads the first key, so many milliseconds go by, and it sets the second.
    Within(String, String, String, Arc<str>, u32),
    Increment(String, String),
    Append(String, String),
    Delete(String, String),
    Clear(String, String),
    /// Sets a key by a call that is not waited for.
    Post(String, String, Arc<str>),
    /// Makes a named watch from now on, unless there is one.
    Watch(String, &'static str),
    /// Has a named watch give so many changes, and keeps that.
    Follow(String, &'static str, usize),
    Forget(String, &'static str),
    /// Keeps so many versions of a scope, for so many milliseconds.
    Retain(String, usize, Option<u32>),
    Cleanup,
    /// Makes a copy of a scope under another name beside it.
    Fork(String, String),
    /// Merges into a scope what was forked from it.
    Merge(String, String),
    /// Makes a key as it was so many operations ago.
    Revert(String, String, usize),
    /// Makes the keys that match as they were so many operations ago.
    RevertTo(String, String, usize),
    /// Sets keys in the course of a run.
    Run(String, String, Vec<(String, Arc<str>)>),
    /// Takes back what a run has done.
    Undo(String, String),
    /// The process is killed after so many operations on files, at the latest when it has done this.
    Killed(Box<Operation>, u32),
}

/// What an operation has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// So many keys are others.
    Keys(u64),
    /// It relies on something of the past that is not kept any more.
    Trimmed,
}

/// A growing value starts again from here, in bytes.
const LONGEST: usize = 60_000;

/// The text that a growing value gets.
pub(super) fn grown(before: Option<&str>, more: &str) -> String {
    match before.and_then(|text| text.strip_suffix('"')).filter(|text| text.len() < LONGEST) {
        Some(text) if text.len() >= 4_096 => format!("{text}{more}\""),
        _ => format!("\"{}\"", more.repeat(6_000 / more.len().max(1))),
    }
}

/// The path of the scope around one, and its name there.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// How far a named watch is kept.
fn kept(scope: &Scope, name: &str) -> Result<Option<u64>, Error> {
    Ok(scope.named_watches()?.into_iter().find(|watch| watch.name == name).map(|watch| watch.version))
}

/// Takes changes, of one page at most, and keeps how far that was.
fn follow(scope: &Scope, name: &str, most: usize) -> Result<(), Error> {
    let Some(before) = kept(scope, name)? else { return Ok(()) };
    let watch = scope.watch(named(name))?;
    let (mut last, mut whole) = (before, before);
    let mut change = watch.next_timeout(Duration::ZERO)?;
    let mut taken = 0;
    while let Some(told) = change {
        let follows = told.version > whole && told.version >= last;
        if !follows {
            return Err(Error::invalid(format!(
                "after version {last} a watch that is kept at {before} told {}",
                told.version
            )));
        }
        last = told.version;
        whole = if told.ends_commit { last } else { whole };
        taken += 1;
        change = if taken < most { watch.pop() } else { None };
    }
    watch.save()?;
    match kept(scope, name)? {
        Some(after) if after == whole => Ok(()),
        after => Err(Error::invalid(format!("all up to version {whole} was taken and saved, but kept is {after:?}"))),
    }
}

fn document(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn documents(pairs: &[(String, Arc<str>)]) -> impl Iterator<Item = (&String, serde_json::Value)> {
    pairs.iter().map(|(key, text)| (key, document(text)))
}

fn ttl(millis: u32) -> Ttl {
    if millis == 0 { Ttl::Never } else { Ttl::After(Duration::from_millis(millis.into())) }
}

/// Tells a past that is not kept any more from damage.
fn unless_trimmed<T>(told: Result<T, Error>, done: impl FnOnce(T) -> Told) -> Result<Told, Error> {
    match told {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Told::Trimmed),
        told => Ok(done(told?)),
    }
}

impl Operation {
    /// Does it; opening, closing, moving the log and dying are the caller's. The clock stands at `clock_ms`; `then` is the version
    /// to which it goes back.
    pub(super) fn run(&self, state: &State, clock_ms: i64, then: u64) -> Result<Told, Error> {
        match self {
            Self::Open | Self::Close | Self::Checkpoint(_) | Self::Killed(..) => {}
            Self::Wait(millis) => harness::set_own_clock(clock_ms + millis),
            Self::Scope(path) => drop(scope(state, path)?),
            Self::Set(path, pairs) => drop(scope(state, path)?.set_many(documents(pairs))?),
            Self::SetFor(path, key, text, millis) => {
                scope(state, path)?.set_with(key, document(text), ttl(*millis))?;
            }
            Self::Grow(path, key, more) => {
                let scope = scope(state, path)?;
                let text = grown(scope.entry(key)?.as_ref().map(|entry| entry.document().text()), more);
                scope.set(key, document(&text))?;
            }
            Self::Touch(path, key, millis) => drop(scope(state, path)?.touch(key, ttl(*millis))?),
            Self::Transact(each) => state.transact(|tx| {
                for (path, key, text) in each {
                    let mut names = path.split('/').filter(|name| !name.is_empty());
                    let inner = names.try_fold(tx.clone(), |tx, name| tx.scope(name))?;
                    inner.set(key, document(text))?;
                }
                Ok(())
            })?,
            Self::Within(path, read, key, text, millis) => {
                let transaction = scope(state, path)?.transaction()?;
                transaction.exists(read)?;
                transaction.set(key, document(text))?;
                harness::set_own_clock(clock_ms + i64::from(*millis));
                match transaction.commit() {
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    told => drop(told?),
                }
            }
            Self::Increment(path, key) => drop(scope(state, path)?.increment(key, 1)?),
            Self::Append(path, key) => drop(scope(state, path)?.append(key, 7)?),
            Self::Delete(path, key) => drop(scope(state, path)?.delete(key)?),
            Self::Clear(path, pattern) => drop(scope(state, path)?.clear(pattern)?),
            Self::Post(path, key, text) => {
                let (tell, told) = channel();
                let call = scope(state, path)?.calls().set(key, document(text))?;
                call.then(move |version| drop(tell.send(version)));
                told.recv().map_err(|_| Error::invalid("nobody was told"))??;
            }
            Self::Watch(path, name) => drop(scope(state, path)?.watch(named(name))?),
            Self::Follow(path, name, most) => follow(&scope(state, path)?, name, *most)?,
            Self::Forget(path, name) => drop(scope(state, path)?.forget_watch(name)?),
            Self::Retain(path, max_versions, age) => {
                let max_age = age.map(|millis| Duration::from_millis(millis.into()));
                let policy = RetentionPolicy { max_age, max_versions: *max_versions, ..RetentionPolicy::keep_all() };
                scope(state, path)?.set_retention(Some(&policy))?;
            }
            Self::Cleanup => drop(state.cleanup()?),
            Self::Fork(path, name) => {
                let (around, of) = split(path);
                scope(state, around)?.fork(of, name)?;
            }
            Self::Merge(path, fork) => match scope(state, path)?.merge_from(&scope(state, fork)?) {
                // A copy of a fork is one of another scope.
                Err(error) if error.kind() == ErrorKind::Invalid => return Ok(Told::Keys(0)),
                merged => return Ok(Told::Keys(merged?.keys)),
            },
            Self::Revert(path, key, _) => return unless_trimmed(scope(state, path)?.revert(key, then), |_| Told::Done),
            Self::RevertTo(path, pattern, _) => {
                return unless_trimmed(scope(state, path)?.revert_to(then, pattern), Told::Keys);
            }
            Self::Run(path, run, pairs) => {
                let origin = Origin { actor: None, run: Some(run.clone()), reason: None };
                scope(state, path)?.as_run(origin)?.set_many(documents(pairs))?;
            }
            Self::Undo(path, run) => {
                let what = Undo { run: Some(run.clone()), ..Undo::default() };
                return unless_trimmed(scope(state, path)?.undo(what), |undone| Told::Keys(undone.keys));
            }
        }
        Ok(Told::Done)
    }

    /// How much later it is when it is over, in milliseconds.
    pub(super) fn takes(&self) -> i64 {
        match self {
            Self::Wait(millis) => *millis,
            Self::Within(.., millis) => (*millis).into(),
            _ => 0,
        }
    }

    /// How many operations it goes back.
    pub(super) fn back(&self) -> usize {
        match self {
            Self::Revert(.., back) | Self::RevertTo(.., back) => *back,
            Self::Killed(last, _) => last.back(),
            _ => 0,
        }
    }

    /// Whether it takes something out of the past, in several commits.
    pub(super) fn is_cleaning(&self) -> bool {
        match self {
            Self::Cleanup => true,
            Self::Killed(last, _) => last.is_cleaning(),
            _ => false,
        }
    }

    /// Whether it begins with commits of its own, by which it tells of what has expired.
    pub(super) fn is_in_parts(&self) -> bool {
        match self {
            Self::Fork(..) => true,
            Self::Killed(last, _) => last.is_in_parts(),
            _ => self.is_cleaning(),
        }
    }

    /// The scope of which it may change keys, or those inside, in a way that is found in the store and then explained; or what stands
    /// among them for a named watch.
    pub(super) fn is_explained(&self) -> Option<(&str, Option<String>)> {
        match self {
            Self::Watch(path, name) | Self::Follow(path, name, _) | Self::Forget(path, name) => {
                Some((path, Some(format!("{WATCH}{name}"))))
            }
            Self::Revert(path, key, _) => Some((path, Some(key.clone()))),
            Self::Merge(path, _) | Self::RevertTo(path, ..) | Self::Undo(path, _) => Some((path, None)),
            _ => None,
        }
    }
}

//! What a damaged store may answer: exactly what it held, or an error that says what is wrong.

use super::bases::{Base, Contents, SCOPES, WATCH};
use llmspell_state_persistence::{Error, ErrorKind, Scope, State, StateConfig, WatchOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How a damaged store ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It held the same as before, and went on.
    Same,
    /// It was not opened.
    Refused,
    /// Its newest commits were gone, which it said.
    Lost,
    /// It was opened; what was damaged is an error.
    Told,
}

/// A damaged store told something that is not so.
type Wrong = String;

/// Kinds that tell of damage.
fn typed(during: &str, error: &Error) -> Result<(), Wrong> {
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::DataLoss | ErrorKind::UnknownFormat | ErrorKind::Io => Ok(()),
        kind => Err(format!("{during}: {kind} says nothing of damage: {error}")),
    }
}

/// What reading everything came to.
#[derive(Default)]
struct Reading {
    /// Calls that told of damage.
    told: u64,
    /// What was answered and is not so.
    wrong: Vec<String>,
}

impl Reading {
    fn note<T>(
        &mut self,
        what: &str,
        answer: Result<T, Error>,
        right: impl Fn(&T) -> Option<String>,
    ) -> Result<(), Wrong> {
        match answer {
            Ok(answer) => self.wrong.extend(right(&answer).map(|wrong| format!("{what}: {wrong}"))),
            Err(error) => {
                typed(what, &error)?;
                self.told += 1;
            }
        }
        Ok(())
    }
}

fn scope(state: &State, name: &str) -> Result<Scope, Error> {
    if name.is_empty() { Ok((**state).clone()) } else { state.scope(name) }
}

/// Every key of these stores, whether it is there or not.
fn keys(base: &Base) -> impl Iterator<Item = &(&'static str, String)> {
    let mut all: Vec<_> = base.history.iter().flat_map(Contents::keys).collect();
    all.sort();
    all.dedup();
    all.into_iter()
}

/// Up to where the named watch is kept, and the keys of the changes that it still tells.
fn watch(state: &State) -> Result<(Option<u64>, BTreeSet<String>), Error> {
    // Before it is opened: that would make it if it were gone.
    let kept = state.named_watches()?.into_iter().find(|watch| watch.name == WATCH).map(|watch| watch.version);
    let watch = state.watch(WatchOptions { name: Some(WATCH.into()), ..WatchOptions::default() })?;
    let mut keys = BTreeSet::new();
    while let Some(change) = watch.next_timeout(Duration::ZERO)? {
        keys.insert(change.key);
    }
    Ok((kept, keys))
}

/// The named watch tells what was changed since it was kept, or an error.
fn read_watch(state: &State, base: &Base) -> Result<Reading, Wrong> {
    let mut changed = BTreeSet::new();
    let since = usize::try_from(base.kept).unwrap_or(usize::MAX);
    for (before, after) in base.history.iter().zip(&base.history[1..]).skip(since) {
        let all = before.keys().chain(after.keys()).filter(|(scope, _)| scope.is_empty());
        changed.extend(all.filter(|key| before.get(key) != after.get(key)).map(|(_, key)| key.clone()));
    }
    let mut reading = Reading::default();
    reading.note("the named watch", watch(state), |(kept, told)| {
        // A key that was set to what it was is told, too.
        let fits = *kept == Some(base.kept) && changed.is_subset(told);
        (!fits).then(|| format!("kept at {kept:?}, not {}; told {}, not {}", base.kept, brief(told), brief(&changed)))
    })?;
    Ok(reading)
}

/// Reads everything in every way.
fn read(state: &State, base: &Base, wanted: &Contents) -> Result<Reading, Wrong> {
    let mut reading = Reading::default();
    for name in SCOPES {
        let scope = match scope(state, name) {
            Ok(scope) => scope,
            Err(error) => {
                typed("a scope", &error)?;
                reading.told += 1;
                continue;
            }
        };
        for (_, key) in keys(base).filter(|(of, _)| *of == name) {
            let wanted = wanted.get(&(name, key.clone()));
            let differs = |found: &Option<Value>| {
                (found.as_ref() != wanted).then(|| format!("{} instead of {}", brief(found), brief(&wanted)))
            };
            reading.note(&format!("get {name} {key}"), scope.get(key), differs)?;
        }
        let wanted: Vec<(String, Value)> = wanted
            .iter()
            .filter(|((of, _), _)| *of == name)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        let items = scope.items("*").and_then(Iterator::collect::<Result<Vec<_>, Error>>);
        reading.note(&format!("items of {name}"), items, |found| {
            let found: Vec<(String, Value)> = found.iter().map(|(key, entry)| (key.clone(), entry.value())).collect();
            (found != wanted).then(|| format!("{} instead of {}", brief(&found), brief(&wanted)))
        })?;
        let listed = scope.keys("*").and_then(Iterator::collect::<Result<Vec<_>, Error>>);
        reading.note(&format!("keys of {name}"), listed, |found| {
            let same = found.iter().eq(wanted.iter().map(|(key, _)| key));
            (!same).then(|| format!("{} instead of {}", found.len(), wanted.len()))
        })?;
        reading.note(&format!("count of {name}"), scope.count("*"), |found| {
            (*found != wanted.len() as u64).then(|| format!("{found} instead of {}", wanted.len()))
        })?;
    }
    Ok(reading)
}

fn brief(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(100).collect()
}

/// Whether `verify` finds anything.
fn verify_tells(state: &State) -> Result<bool, Wrong> {
    match state.verify() {
        Ok(found) => Ok(!found.is_ok()),
        Err(error) => typed("verify", &error).map(|()| true),
    }
}

/// Uses a damaged copy of `base` in every way.
pub(super) fn examine(config: &StateConfig, base: &Base) -> Result<Verdict, Wrong> {
    let state = match State::with_config(config.clone()) {
        Err(error) => {
            typed("opening", &error)?;
            let verdict = if error.kind() == ErrorKind::DataLoss { Verdict::Lost } else { Verdict::Refused };
            if verdict == Verdict::Lost {
                rolled_back(config, base)?;
            }
            return Ok(verdict);
        }
        Ok(state) => state,
    };
    let mut before = read(&state, base, base.now())?;
    let verify_tells = verify_tells(&state)?;
    let watched = read_watch(&state, base)?;
    before.told += watched.told;
    before.wrong.extend(watched.wrong);
    if before.told > 0 && !verify_tells {
        return Err("reading tells of damage, but verify of none".into());
    }
    if !before.wrong.is_empty() {
        let verified = if verify_tells { "tells of damage" } else { "finds nothing" };
        return Err(format!("{} (verify {verified})", before.wrong.join("; ")));
    }
    let mut sound = before.told == 0 && !verify_tells;
    if let Err(error) = state.set("after", json!(1)) {
        typed("writing", &error)?;
        sound = false;
    }
    if sound {
        state.close().map_err(|e| format!("closing a sound store: {e}"))?;
        let state = State::with_config(config.clone()).map_err(|e| format!("opening again: {e}"))?;
        state.delete("after").map_err(|e| format!("deleting: {e}"))?;
        let again = read(&state, base, base.now())?;
        if again.told > 0 || !again.wrong.is_empty() {
            return Err(format!("after a write: {} errors, {}", again.told, again.wrong.join("; ")));
        }
        return Ok(Verdict::Same);
    }
    if let Err(error) = state.close() {
        typed("closing", &error)?;
    }
    Ok(Verdict::Told)
}

/// The caller accepts that commits are gone: what is left is what there was after some commit.
fn rolled_back(config: &StateConfig, base: &Base) -> Result<(), Wrong> {
    let accepting = StateConfig { accept_rollback: true, ..config.clone() };
    let state = match State::with_config(accepting) {
        Err(error) => return typed("opening with accept_rollback", &error),
        Ok(state) => state,
    };
    let version = match state.version() {
        Err(error) => return typed("the version", &error),
        Ok(version) => usize::try_from(version).unwrap_or(usize::MAX),
    };
    let wanted = base.history.get(version).filter(|_| version + 1 < base.history.len());
    let wanted = wanted.ok_or_else(|| format!("rolled back to version {version}, which is not in the past"))?;
    let reading = read(&state, base, wanted)?;
    if !reading.wrong.is_empty() {
        return Err(format!("rolled back to version {version}: {}", reading.wrong.join("; ")));
    }
    state.close().or_else(|error| typed("closing", &error))
}

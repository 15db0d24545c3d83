//! Whether one state of a store follows from another by an operation.

use super::model::{
    Content, Deed, KEYS, Keys, Model, RETENTION, Stored, WATCH, alive, difference, hash, is_setting, policy_text,
};
use super::operation::{Operation, Told, grown, split};
use crate::{Failure, hold};
use std::sync::Arc;
use std::time::Duration;

/// The path of something inside a scope, if another took the place of that.
fn moved(path: &str, from: &str, to: &str) -> Option<String> {
    let rest = path.strip_prefix(from)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
}

fn fork_path(path: &str, name: &str) -> String {
    match split(path).0 {
        "" => name.to_owned(),
        around => format!("{around}/{name}"),
    }
}

impl Model {
    /// What the store holds after an operation that is done; `version` is that of the commit, if it makes one.
    fn after(&self, operation: &Operation, version: u64) -> Content {
        let mut content = self.content.clone();
        let stored = |text: &str, expires_ms| Stored { text: text.into(), version, expires_ms };
        let until = |millis: u32| (millis > 0).then(|| self.clock_ms + i64::from(millis));
        let mut put = |path: &str, key: &str, stored: Stored| {
            content.entry(path.to_owned()).or_default().insert(key.to_owned(), stored);
        };
        let expires_ms = |path: &str, key: &str| self.alive(path, key).and_then(|stored| stored.expires_ms);
        match operation {
            Operation::Open
            | Operation::Close
            | Operation::Checkpoint(_)
            | Operation::Wait(_)
            | Operation::Killed(..)
            | Operation::Watch(..)
            | Operation::Follow(..)
            | Operation::Forget(..)
            | Operation::Cleanup
            | Operation::Merge(..)
            | Operation::Revert(..)
            | Operation::RevertTo(..)
            | Operation::Undo(..) => {}
            Operation::Scope(path) => drop(content.entry(path.clone()).or_default()),
            Operation::Set(path, pairs) | Operation::Run(path, _, pairs) => {
                for (key, text) in pairs {
                    put(path, key, stored(text, None));
                }
            }
            Operation::SetFor(path, key, text, millis) => put(path, key, stored(text, until(*millis))),
            Operation::Grow(path, key, more) => {
                let before = self.alive(path, key).map(|stored| &*stored.text);
                put(path, key, stored(&grown(before, more), None));
            }
            Operation::Touch(path, key, millis) => {
                if let Some(before) = self.alive(path, key) {
                    put(path, key, stored(&before.text, until(*millis)));
                }
            }
            Operation::Post(path, key, text) => put(path, key, stored(text, None)),
            Operation::Transact(each) => {
                for (path, key, text) in each {
                    put(path, key, stored(text, None));
                }
            }
            Operation::Within(path, read, key, text, millis) => {
                let was_there = self.alive(path, read);
                if was_there.is_none_or(|read| read.is_alive(self.clock_ms + i64::from(*millis))) {
                    put(path, key, stored(text, None));
                }
            }
            Operation::Increment(path, key) => {
                let before: i64 = self.alive(path, key).map_or(0, |stored| stored.text.parse().unwrap_or(0));
                put(path, key, stored(&(before + 1).to_string(), expires_ms(path, key)));
            }
            Operation::Append(path, key) => {
                let before = self.alive(path, key).map_or("[]", |stored| &*stored.text);
                let list = if before == "[]" { "[7]".to_owned() } else { before.replace(']', ",7]") };
                put(path, key, stored(&list, expires_ms(path, key)));
            }
            Operation::Delete(path, key) => drop(content.get_mut(path).and_then(|keys| keys.remove(key))),
            Operation::Clear(path, pattern) => {
                let prefix = pattern.trim_end_matches('*');
                let doomed = |key: &str| key.starts_with(prefix) && !is_setting(key);
                content.entry(path.clone()).or_default().retain(|key, _| !doomed(key));
            }
            Operation::Retain(path, versions, age) => {
                let text: Arc<str> = policy_text(*versions, age.map(|millis| Duration::from_millis(millis.into())));
                put(path, RETENTION, Stored { text, version: 0, expires_ms: None });
            }
            Operation::Fork(path, name) => {
                let to = fork_path(path, name);
                let of_keys = |keys: &Keys| {
                    let kept = keys.iter().filter(|(key, _)| !is_setting(key));
                    kept.map(|(key, stored)| (key.clone(), stored.clone())).collect()
                };
                let copied =
                    self.content.iter().filter_map(|(from, keys)| Some((moved(from, path, &to)?, of_keys(keys))));
                content.extend(copied);
            }
        }
        content
    }

    /// Whether a store that was looked at is what this one becomes by an operation; if that was acknowledged, by what it has told.
    pub(super) fn check_next(
        &self,
        found: &Self,
        operation: &Operation,
        told: Option<Told>,
        then: Option<&Self>,
    ) -> Result<(), Failure> {
        let wanted = Self { content: self.after(operation, found.version), past: found.past.clone(), ..self.clone() };
        let now_ms = found.clock_ms;
        let wrong = || Failure::new(format!("after {}: {}", super::tell(operation), difference(found, &wanted)));
        let Some((within, key)) = operation.is_explained() else {
            if alive(&wanted.content, now_ms) != found.content {
                return Err(wrong());
            }
            return self.check_past(found, operation);
        };
        let mut changed = 0;
        let before = alive(&self.content, now_ms);
        // Merging makes the scopes that only the fork has, such as one that was made there by who died before it was told.
        let is_made = |path: &str| {
            let Operation::Merge(ours, theirs) = operation else { return false };
            moved(path, ours, theirs).is_some_and(|theirs| before.contains_key(&theirs))
        };
        let is_scope = |path: &String| before.contains_key(path) || is_made(path);
        hold!(before.keys().all(|path| found.content.contains_key(path)), "{}", wrong());
        hold!(found.content.keys().all(is_scope), "{}", wrong());
        let nothing = Keys::new();
        for (path, keys) in &found.content {
            let before = before.get(path).unwrap_or(&nothing);
            let names = keys.keys().chain(before.keys().filter(|key| !keys.contains_key(*key)));
            for name in names {
                let (was, is) = (before.get(name), keys.get(name));
                if was == is {
                    continue;
                }
                changed += 1;
                let is_inside = within.is_empty() || moved(path, within, "").is_some();
                let is_meant = key.as_ref().map_or(is_inside && !is_setting(name), |key| path == within && name == key);
                hold!(is_meant, "{}", wrong());
                hold!(self.explains((path, name), is, operation, found.version, then), "{}", wrong());
            }
        }
        if let (Some(Told::Done | Told::Keys(_)), Some(then)) = (told, then) {
            hold!(
                self.is_back(found, operation, then),
                "{}: it is not as it was then: {}",
                wrong(),
                difference(found, then)
            );
        }
        if let Some(Told::Keys(keys)) = told {
            hold!(keys == changed, "{keys} keys were told as changed, and {changed} are: {}", wrong());
        }
        if told == Some(Told::Trimmed) {
            hold!(changed == 0, "what is not kept any more was told, and something done: {}", wrong());
        }
        self.check_past(found, operation)
    }

    /// Whether a store that was looked at is this one with scopes that merging makes before anything else: those that only the fork
    /// has.
    pub(super) fn begins_by(&self, found: &Self, operation: &Operation) -> bool {
        let (ours, theirs) = match operation {
            Operation::Merge(ours, theirs) => (ours, theirs),
            Operation::Killed(last, _) => return self.begins_by(found, last),
            _ => return false,
        };
        let mut content = alive(&self.content, found.clock_ms);
        let made = self.content.keys().filter_map(|path| moved(path, theirs, ours));
        for path in made.filter(|path| found.content.contains_key(path)) {
            content.entry(path).or_default();
        }
        self.past == found.past && content == found.content
    }

    /// Whether everything that goes back to an earlier state is as it was then.
    fn is_back(&self, found: &Self, operation: &Operation, then: &Self) -> bool {
        let (Operation::Revert(path, pattern, _) | Operation::RevertTo(path, pattern, _)) = operation else {
            return true;
        };
        // Before it was made, a fork is what its origin was.
        let Some(keys) = then.content.get(path) else { return true };
        let prefix = pattern.trim_end_matches('*');
        KEYS.iter().filter(|key| key.starts_with(prefix)).all(|key| {
            let was = keys.get(*key).filter(|stored| stored.is_alive(self.clock_ms));
            match (found.alive(path, key), was) {
                (Some(is), Some(was)) => is.is_like(was),
                (is, was) => is.is_none() && was.is_none(),
            }
        })
    }

    /// Whether a key that is another now is what the operation could make of it.
    fn explains(
        &self,
        (path, key): (&str, &str),
        is: Option<&Stored>,
        operation: &Operation,
        version: u64,
        then: Option<&Self>,
    ) -> bool {
        if key.starts_with(WATCH) {
            return true;
        }
        if is.is_some_and(|stored| stored.version != version) {
            return false;
        }
        let is_same = |other: Option<&Stored>| match (is, other) {
            (Some(is), Some(other)) => is.is_like(other),
            (is, other) => is.is_none() && other.is_none(),
        };
        match operation {
            Operation::Merge(ours, theirs) => {
                moved(path, ours, theirs).is_some_and(|theirs| is_same(self.alive(&theirs, key)))
            }
            Operation::Revert(..) | Operation::RevertTo(..) => {
                // Before it was made, a fork is what its origin was.
                let Some(keys) = then.and_then(|then| then.content.get(path)) else { return true };
                is_same(keys.get(key).filter(|stored| stored.is_alive(self.clock_ms)))
            }
            _ => {
                let value = is.map(|stored| hash(&stored.text));
                let deeds = self.deeds(path, key);
                value.is_none() || deeds.iter().any(|deed| deed.value == value)
            }
        }
    }

    /// Whether the past is what it was, with what has come to it since. Cleaning up takes from it, never what keys are.
    fn check_past(&self, found: &Self, operation: &Operation) -> Result<(), Failure> {
        for (place, deeds) in &found.past {
            let (path, key) = place;
            let mut before = self.deeds(path, key);
            if let Operation::Fork(origin, name) = operation
                && let Some(path) = moved(path, &fork_path(origin, name), origin)
            {
                before = self.deeds(&path, key);
            }
            let old: Vec<&Deed> = deeds.iter().filter(|deed| deed.version <= self.version).collect();
            let is_kept = if operation.is_cleaning() {
                old.iter().all(|deed| before.contains(deed))
            } else {
                old.iter().copied().eq(before)
            };
            hold!(
                is_kept,
                "after {}: '{path}' {key} has another past: {deeds:?}, not {before:?}",
                super::tell(operation)
            );
        }
        for ((path, key), before) in &self.past {
            let now = found.deeds(path, key);
            let least = if operation.is_cleaning() { self.least(path, key).min(before.len()) } else { 1 };
            hold!(
                now.len() >= least,
                "after {}: of '{path}' {key} is left {now:?}, of {before:?}",
                super::tell(operation)
            );
        }
        Ok(())
    }

    /// How many versions of a key cleaning up leaves at least.
    fn least(&self, path: &str, key: &str) -> usize {
        if self.alive(path, key).is_none() {
            return 0;
        }
        let policy = self.content[path].get(RETENTION).map(|policy| &*policy.text);
        match policy.and_then(|text| text.split_once(' ')) {
            // Of a fork, what its origin has no use for may go but what it is.
            _ if path.contains(['_', '-']) => 1,
            None => super::workload::VERSIONS,
            Some((versions, "None")) => versions.parse().unwrap_or(1),
            Some(_) => 1,
        }
    }
}

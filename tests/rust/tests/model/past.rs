//! Looking back, taking back, forks and merging.

use super::acts::Past;
use super::pair::{Outcome, Pair, RUN};
use super::reference::{Held, Keys, Verdict, texts, verdict};
use llmspell_state_persistence::{Document, Error, ErrorKind, Merged, Resolution, Undo, View};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

impl Pair {
    /// A number of a moment, the newest being 0, as a version, with what every scope was then.
    fn moment(&self, number: usize) -> (u64, &Vec<Keys>) {
        let (version, scopes) = self.past.iter().rev().nth(number % self.past.len()).unwrap();
        (*version, scopes)
    }

    fn then(&self, past: Past) -> (usize, u64, Keys) {
        let scope = self.model.scope(past.scope);
        let (version, scopes) = self.moment(past.moment);
        (scope, version, scopes[scope].clone())
    }

    /// An answer about the past, or none where the store may have forgotten that and says so.
    fn known<T>(&self, answer: Result<T, Error>) -> Result<Option<T>, TestCaseError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if self.trims && error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        }
    }

    pub(crate) fn look(&mut self, past: Past) -> Outcome {
        self.calm();
        let (scope, version, then) = self.then(past);
        let handle = self.scope(scope);
        let Some(view) = self.known(handle.at(version))? else { return Ok(()) };
        prop_assert!(view.version() == version, "asked for {}, shows {}", version, view.version());
        let listed = view.items("*").and_then(Iterator::collect::<Result<BTreeMap<_, _>, _>>);
        if let Some(listed) = self.known(listed)? {
            let listed: Keys = listed.into_iter().map(|(key, entry)| (key, Held::of(&entry))).collect();
            prop_assert_eq!(&listed, &then, "what was listed at {}", version);
        }
        if let Some(count) = self.known(view.count("*"))? {
            prop_assert_eq!(count, then.len() as u64, "how much was there at {}", version);
        }
        let now = self.model.scopes[scope].clone();
        self.look_at(&view, &then, &now)?;
        let differences = handle.diff(version, None, "*").and_then(Iterator::collect::<Result<Vec<_>, _>>);
        Self::surely(&self.model)?;
        if let Some(differences) = self.known(differences)? {
            let text = |document: Option<Document>| document.map(|document| document.text().to_owned());
            let told: Vec<_> = differences.into_iter().map(|told| (told.key, text(told.from), text(told.to))).collect();
            let keys: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
            let both = keys.into_iter().map(|key| (key.clone(), texts(then.get(key)), texts(now.get(key))));
            let expected: Vec<_> = both.filter(|(_, from, to)| from != to).collect();
            prop_assert_eq!(told, expected, "what differs from {}", version);
        }
        Ok(())
    }

    /// Key by key: what is not known any more of one may be known of another.
    fn look_at(&self, view: &View, then: &Keys, now: &Keys) -> Outcome {
        for key in then.keys().chain(now.keys()) {
            if let Some(found) = self.known(view.entry(key))? {
                let found = found.map(|entry| Held::of(&entry));
                prop_assert_eq!(found.as_ref(), then.get(key), "{} at {}", key, view.version());
            }
        }
        Ok(())
    }

    pub(crate) fn revert(&mut self, past: Past, key: &str) -> Outcome {
        let (now_ms, mark) = (self.calm(), self.model.mark());
        let (scope, version, then) = self.then(past);
        let reverted = self.known(self.scope(scope).revert(key, version))?;
        Self::surely(&self.model)?;
        if reverted.is_some() {
            self.model.revert(scope, key, &then, now_ms);
        }
        self.settle(now_ms, mark)?;
        self.everything()
    }

    pub(crate) fn revert_to(&mut self, past: Past, pattern: &str) -> Outcome {
        let (now_ms, mark) = (self.calm(), self.model.mark());
        let (scope, version, then) = self.then(past);
        let reverted = self.known(self.scope(scope).revert_to(version, pattern))?;
        Self::surely(&self.model)?;
        if let Some(count) = reverted {
            let expected = self.model.revert_to(scope, pattern, &then, now_ms);
            prop_assert_eq!(count, expected, "keys that were reverted to {}", version);
        }
        self.settle(now_ms, mark)?;
        self.everything()
    }

    pub(crate) fn undo(&mut self, since: Option<usize>) -> Outcome {
        let (now_ms, mark) = (self.calm(), self.model.mark());
        let since = since.map_or(0, |number| self.moment(number).0);
        let what = Undo { run: Some(RUN.into()), since, actor: None };
        let undone = self.known(self.state.undo(what))?;
        Self::surely(&self.model)?;
        if let Some(done) = undone {
            let (keys, refused) = self.model.undo(since, now_ms);
            let refused: BTreeSet<_> =
                refused.into_iter().map(|(scope, key)| (self.model.paths[scope].clone(), key)).collect();
            let told: BTreeSet<_> = done.refused.into_iter().collect();
            // Of a key that others have changed since, what the run did may be forgotten.
            let is_right = if self.trims { told.is_subset(&refused) } else { told == refused };
            prop_assert!(is_right, "undo after {} refuses {:?}, and should {:?}", since, told, refused);
            prop_assert_eq!(done.keys, keys, "keys that were undone after {}", since);
        }
        self.settle(now_ms, mark)?;
        self.everything()
    }

    /// Makes a fork of the scope, or of its first fork; at most two.
    pub(crate) fn fork(&mut self, again: bool) -> Outcome {
        self.calm();
        let made = self.model.forks.len();
        if made == 2 {
            return Ok(());
        }
        let origin = self.model.forks.first().filter(|_| again).map_or(1, |fork| fork.scope);
        let name = format!("fork{made}");
        self.state.fork(&self.model.paths[origin][0], &name).unwrap();
        Self::surely(&self.model)?;
        let scope = self.model.fork(origin, &name);
        // Its past is that of its origin.
        for scopes in self.past.values_mut() {
            scopes.extend_from_within(origin..origin + 2);
        }
        (scope..scope + 2).for_each(|scope| self.replicate(scope));
        self.everything()
    }

    /// Merges one of the forks, unless the store may have forgotten what both were when they parted.
    pub(crate) fn merge(&mut self, number: usize) -> Outcome {
        let (now_ms, mark) = (self.calm(), self.model.mark());
        let Some(fork) = self.model.forks.get(number).cloned().filter(|_| !self.trims) else { return Ok(()) };
        let (ours, theirs) = (self.scope(fork.origin), self.scope(fork.scope));
        let merged = ours.merge_with(&theirs, |conflict| {
            Ok::<_, Error>(match verdict(&conflict.key) {
                Verdict::Left => None,
                Verdict::Ours => Some(Resolution::Ours),
                Verdict::Theirs => Some(Resolution::Theirs),
                Verdict::Value(value) => Some(Resolution::Value(Document::from_value(&value, 1 << 20)?)),
                Verdict::Delete => Some(Resolution::Delete),
            })
        });
        let Merged { keys, conflicts, .. } = merged.unwrap();
        Self::surely(&self.model)?;
        let (changed, left) = self.model.merge(&fork);
        let inner = |scope: usize| if scope == fork.origin { Vec::new() } else { vec!["b".to_owned()] };
        let left: BTreeSet<_> = left.into_iter().map(|(scope, key)| (inner(scope), key)).collect();
        prop_assert_eq!(conflicts.into_iter().collect::<BTreeSet<_>>(), left, "conflicts of {:?}", fork);
        prop_assert_eq!(keys, changed, "keys that were merged of {:?}", fork);
        self.settle(now_ms, mark)?;
        self.everything()
    }
}

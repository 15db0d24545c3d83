//! A map that follows a scope by nothing but what a watch tells.

use super::pair::handle;
use super::reference;
use llmspell_state_persistence::{Change, Document, Operation, State, Watch, WatchOptions};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Values without the times at which they expire: those a watch does not tell.
type Keys = BTreeMap<String, Value>;

fn values(keys: &reference::Keys) -> Keys {
    keys.iter().map(|(key, held)| (key.clone(), held.value.clone())).collect()
}

/// A map, the watch that feeds it, and what the map was after each commit: a named watch goes on from one of them.
pub(crate) struct Replica {
    pub(crate) scope: usize,
    name: Option<String>,
    watch: Watch,
    keys: Keys,
    /// The last commit that was told whole.
    version: u64,
    past: BTreeMap<u64, Keys>,
}

impl Replica {
    /// Follows a scope from now on, when it is as told.
    pub(crate) fn new(
        state: &State,
        path: &[String],
        scope: usize,
        name: Option<String>,
        keys: &reference::Keys,
    ) -> Self {
        let handle = handle(state, path);
        let mut version = state.version().unwrap();
        let watch = handle.watch(WatchOptions { name: name.clone(), ..WatchOptions::default() }).unwrap();
        // A sweep may have come in between.
        let named = handle.named_watches().unwrap().into_iter().find(|watch| Some(&watch.name) == name.as_ref());
        version = named.map_or(version, |watch| watch.version);
        let keys = values(keys);
        Self { scope, name, watch, keys: keys.clone(), version, past: BTreeMap::from([(0, keys)]) }
    }

    /// Takes everything that there is; then the map is what the scope is. Of keys that have expired it is told soon.
    pub(crate) fn follow(&mut self, scope: &reference::Keys, save: bool) -> Result<(), TestCaseError> {
        let (scope, start) = (values(scope), Instant::now());
        loop {
            while let Some(change) = self.watch.next_timeout(Duration::ZERO).unwrap() {
                self.take(&change)?;
            }
            let is_overdue = self.keys.len() > scope.len() && start.elapsed() < Duration::from_secs(10);
            if !is_overdue {
                break;
            }
            if let Some(change) = self.watch.next_timeout(Duration::from_millis(50)).unwrap() {
                self.take(&change)?;
            }
        }
        if save {
            self.watch.save().unwrap();
        }
        prop_assert_eq!(&self.keys, &scope, "what a watch has told of scope {}", self.scope);
        Ok(())
    }

    fn take(&mut self, change: &Change) -> Result<(), TestCaseError> {
        prop_assert!(change.version > self.version, "version {} after {} is over", change.version, self.version);
        let old = match (change.operation, &change.value) {
            (Operation::Set | Operation::Touch, Some(value)) => self.keys.insert(change.key.clone(), value.to_value()),
            (Operation::Delete, None) => self.keys.remove(&change.key),
            (Operation::Expire, None) => {
                let old = self.keys.remove(&change.key);
                // It was not there any more for those who asked before the watch began.
                old.or_else(|| change.old.as_ref().map(Document::to_value))
            }
            _ => return Err(TestCaseError::fail("a deletion with a value, or none without")),
        };
        prop_assert_eq!(old, change.old.as_ref().map(Document::to_value), "the old value of {}", &change.key);
        if change.ends_commit {
            self.version = change.version;
            self.past.insert(change.version, self.keys.clone());
        }
        Ok(())
    }

    /// Goes on after the store was closed, or its process killed.
    pub(crate) fn open(&mut self, state: &State, path: &[String]) -> Result<(), TestCaseError> {
        let scope = handle(state, path);
        if let Some(name) = &self.name {
            let kept = scope.named_watches().unwrap().into_iter().find(|watch| watch.name == *name);
            let kept = kept.map(|watch| watch.version);
            prop_assert!(kept.is_some_and(|kept| kept <= self.version), "kept at {:?}, told {}", kept, self.version);
            self.version = kept.unwrap_or_default();
        }
        // A version without a change of this scope is that of the change before it.
        let past = self.past.range(..=self.version).next_back();
        self.keys = past.map(|(_, keys)| keys.clone()).unwrap_or_default();
        let since = self.name.is_none().then_some(self.version);
        self.watch = scope.watch(WatchOptions { since, name: self.name.clone(), pattern: None }).unwrap();
        Ok(())
    }
}

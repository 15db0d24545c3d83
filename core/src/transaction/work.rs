//! What a transaction has read and is to write.

use crate::engine::{Head, ScopeId};
use crate::key::Pattern;
use crate::listing::{Overlay, Soonest};
use crate::scope::Budget;
use crate::store::Store;
use crate::store::request::{Action, Change, Life, Reliance, Request};
use crate::{Entry, Error, ErrorKind, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What a transaction has done so far, in all scopes.
pub(super) struct Work {
    pub(super) snapshot: Head,
    pub(super) ended: Option<&'static str>,
    pub(super) keys: HashSet<(ScopeId, Box<str>)>,
    pub(super) ranges: Vec<(ScopeId, Pattern)>,
    pub(super) writes: BTreeMap<ScopeId, Overlay>,
    /// How long what is written is to live, where that was told; and what is only to live longer or shorter.
    pub(super) lives: HashMap<(ScopeId, Box<str>), Told>,
    pub(super) soonest: Arc<Soonest>,
    pub(super) budget: Budget,
}

/// What a transaction was told of a key's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) life: Life,
    /// The value is not the transaction's own.
    pub(super) is_touch: bool,
}

/// What a transaction needs is not kept any more: it can only begin anew.
pub(crate) fn too_old(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::new(ErrorKind::Conflict, format!("the transaction began too long ago: {}; run it again", error.message()))
}

impl Work {
    pub(super) fn new(snapshot: Head) -> Self {
        Self {
            snapshot,
            ended: None,
            keys: HashSet::new(),
            ranges: Vec::new(),
            writes: BTreeMap::new(),
            lives: HashMap::new(),
            soonest: Arc::default(),
            budget: Budget::default(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.ended {
            None => Ok(()),
            Some(how) => {
                Err(Error::new(crate::ErrorKind::Closed, format!("this transaction was {how}; begin a new one")))
            }
        }
    }

    /// Counts changes of so many bytes, all of them or, if they are too many, none.
    pub(super) fn afford(&mut self, changes: impl IntoIterator<Item = usize>) -> Result<()> {
        let mut budget = self.budget;
        changes.into_iter().try_for_each(|bytes| budget.spend(bytes))?;
        self.budget = budget;
        Ok(())
    }

    /// Ends the work and lets go of what it holds.
    pub(super) fn end(&mut self, how: &'static str) {
        self.ended = Some(how);
        self.keys.clear();
        self.ranges.clear();
        self.writes.clear();
        self.lives.clear();
    }

    /// Everything that is to be committed, and what it relies on.
    pub(super) fn take_request(&mut self, store: &Store) -> Request {
        let mut changes = Vec::new();
        for (scope, writes) in std::mem::take(&mut self.writes) {
            for (key, entry) in writes {
                let told = self.lives.remove(&(scope, key.clone()));
                let life = told.map_or(Life::Default, |told| told.life);
                let action = match entry {
                    Some(_) if told.is_some_and(|told| told.is_touch) => Action::Touch(life),
                    Some(entry) => store.set_action(
                        scope,
                        &key,
                        Arc::try_unwrap(entry).map_or_else(|entry| entry.document().clone(), Entry::into_document),
                        life,
                    ),
                    None => Action::Delete,
                };
                changes.push(Change::One { scope, key, action, if_version: None });
            }
        }
        let keys = std::mem::take(&mut self.keys).into_iter().collect();
        let ranges = std::mem::take(&mut self.ranges);
        let relies_on = Reliance { snapshot: self.snapshot, keys, ranges, expires_ms: self.soonest.get() };
        Request { changes, relies_on: Some(Box::new(relies_on)), origin: None }
    }
}

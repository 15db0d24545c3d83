//! What a caller asks the writer to do, and what it is told afterwards.

use super::codec::Packed;
use super::past::{Deeds, Place};
use crate::engine::{Head, ScopeId};
use crate::key::Pattern;
use crate::value::Update;
use crate::{Document, Entry, Origin, Result};
use std::sync::Arc;

/// Changes that are committed together, if what they rely on still holds.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) changes: Vec<Change>,
    pub(crate) relies_on: Option<Reliance>,
    /// Who makes them, and why, as the log tells.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// One change. A request of several holds only `Set` and `Delete` without `if_version`, which cannot fail alone.
#[derive(Debug)]
pub(crate) enum Change {
    /// A change of one key; with `if_version` only if that is its version (0: it must not exist).
    One { scope: ScopeId, key: Box<str>, action: Action, if_version: Option<u64> },
    /// Deletes every key that matches.
    Clear { scope: ScopeId, pattern: Pattern },
    /// Makes every key that matches as it was when a row was the newest.
    Revert { scope: ScopeId, pattern: Pattern, to: Head },
    /// Takes back what somebody has done.
    Undo(Box<Deeds>),
}

/// What happens to one key.
#[derive(Debug)]
pub(crate) enum Action {
    Set { document: Document, packed: Packed },
    Delete,
    Update(Update),
}

/// What a transaction has read: none of it may have changed after the snapshot.
#[derive(Debug)]
pub(crate) struct Reliance {
    pub(crate) snapshot: Head,
    pub(crate) keys: Vec<(ScopeId, Box<str>)>,
    pub(crate) ranges: Vec<(ScopeId, Pattern)>,
}

/// What came of one change.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The new entry of the key.
    Written(Arc<Entry>),
    /// Whether there was something to delete.
    Deleted(bool),
    /// How many keys were deleted.
    Cleared(u64),
    /// How many keys were changed.
    Reverted(u64),
    /// How many keys were changed, and which were not, since others have changed them.
    Undone { keys: u64, refused: Vec<Place> },
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Response {
    /// Version of its commit; of the newest one if nothing changed.
    pub(crate) version: i64,
    pub(crate) applied: Vec<Applied>,
}

impl Request {
    /// A request of one change.
    pub(crate) fn one(scope: ScopeId, key: &str, action: Action, if_version: Option<u64>) -> Self {
        Self { changes: vec![Change::One { scope, key: key.into(), action, if_version }], ..Self::default() }
    }

    /// The same once more, if it does nothing but delete.
    pub(crate) fn deletion(&self) -> Option<Self> {
        let again = |change: &Change| match change {
            Change::One { scope, key, action: Action::Delete, if_version } => {
                Some(Change::One { scope: *scope, key: key.clone(), action: Action::Delete, if_version: *if_version })
            }
            Change::Clear { scope, pattern } => Some(Change::Clear { scope: *scope, pattern: pattern.clone() }),
            Change::One { .. } | Change::Revert { .. } | Change::Undo(_) => None,
        };
        if self.relies_on.is_some() {
            return None;
        }
        let changes = self.changes.iter().map(again).collect::<Option<_>>()?;
        Some(Self { changes, relies_on: None, origin: self.origin.clone() })
    }

    /// Bytes that wait with it in the queue.
    pub(crate) fn footprint(&self) -> usize {
        self.changes.iter().map(Change::footprint).sum()
    }
}

impl Change {
    fn footprint(&self) -> usize {
        match self {
            Self::One { key, action, .. } => size_of::<Self>() + key.len() + action.footprint(),
            Self::Clear { .. } | Self::Revert { .. } | Self::Undo(_) => size_of::<Self>(),
        }
    }
}

impl Action {
    /// A set of a value of which nothing earlier is known.
    #[cfg(models)]
    pub(crate) fn set(document: Document, compress: bool) -> Self {
        let packed = Packed::new(&document, compress);
        Self::Set { document, packed }
    }

    fn footprint(&self) -> usize {
        match self {
            Self::Set { document, .. } => document.text().len(),
            Self::Delete => 0,
            Self::Update(update) => update.footprint(),
        }
    }
}

impl Response {
    /// What came of the only change.
    pub(crate) fn only(self) -> Result<Applied> {
        self.applied.into_iter().next().ok_or_else(|| crate::Error::corrupt("a request was answered without a result"))
    }
}

//! What a caller asks the writer to do, and what it is told afterwards.

use super::codec::Packed;
use super::past::{Deeds, Place};
use super::snapshot::AsOf;
use super::trim::Trim;
use crate::engine::{Head, ScopeId};
use crate::key::Pattern;
use crate::value::Update;
use crate::{Document, Entry, Origin, Result, Ttl};
use std::sync::Arc;

/// Changes that are committed together, if what they rely on still holds.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) changes: Vec<Change>,
    pub(crate) relies_on: Option<Box<Reliance>>,
    /// Who makes them, and why, as the log tells.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// One change. A request of several stands or falls as a whole.
#[derive(Debug)]
pub(crate) enum Change {
    /// A change of one key; with `if_version` only if that is its version (0: it must not exist).
    One { scope: ScopeId, key: Box<str>, action: Action, if_version: Option<u64> },
    /// Deletes every key that matches.
    Clear { scope: ScopeId, pattern: Pattern },
    /// Makes every key that matches as it was when a row was the newest.
    Revert { scope: ScopeId, pattern: Pattern, to: AsOf },
    /// Takes back what somebody has done.
    Undo(Box<Deeds>),
    /// Takes away keys whose time has run out, some of them.
    Sweep,
    /// Takes changes of the past out of the log.
    Trim(Box<Trim>),
}

/// What happens to one key.
#[derive(Debug)]
pub(crate) enum Action {
    Set {
        document: Document,
        packed: Packed,
        life: Life,
    },
    Delete,
    /// Its time to expire stays.
    Update(Update),
    /// Only its time to expire changes.
    Touch(Life),
}

/// How long a value that is written is to live.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Life {
    /// As the scope says.
    #[default]
    Default,
    /// As long as what it replaces; a new key as the scope says.
    Keep,
    /// So long from the commit on, in milliseconds; for ever where nothing is given.
    For(Option<i64>),
    /// Until then, in milliseconds since the epoch; for ever where nothing is given.
    Until(Option<i64>),
}

impl Life {
    /// # Errors
    /// `Invalid` for what is no time.
    pub(crate) fn of(ttl: Ttl) -> Result<Self> {
        Ok(match ttl {
            Ttl::Default => Self::Default,
            ttl => Self::For(ttl.millis()?),
        })
    }

    /// When that is over, counted from now; nothing is never, or not known before the commit.
    pub(crate) fn expires_ms(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::For(ttl_ms) => ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)),
            Self::Until(at_ms) => at_ms,
            Self::Default | Self::Keep => None,
        }
    }
}

/// What a transaction has read: none of it may have changed after the snapshot.
#[derive(Debug)]
pub(crate) struct Reliance {
    pub(crate) snapshot: Head,
    pub(crate) keys: Vec<(ScopeId, Box<str>)>,
    pub(crate) ranges: Vec<(ScopeId, Pattern)>,
    /// The earliest time at which something that was read expires.
    pub(crate) expires_ms: Option<i64>,
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
    /// Whether there was something to touch.
    Touched(bool),
    /// How many keys were taken away, whose time had run out.
    Swept(u64),
    /// How many changes are not in the log any more.
    Trimmed(u64),
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
            Change::One { .. } | Change::Revert { .. } | Change::Undo(_) | Change::Sweep | Change::Trim(_) => None,
        };
        if self.relies_on.is_some() {
            return None;
        }
        let changes = self.changes.iter().map(again).collect::<Option<_>>()?;
        Some(Self { changes, relies_on: None, origin: self.origin.clone() })
    }

    /// Whether it may be refused, or find something damaged, when it has written a part already. What changes one key looks
    /// first, and can only fail together with the disk, or in a damaged page, afterwards.
    pub(crate) fn may_fail_halfway(&self) -> bool {
        !matches!(*self.changes, [Change::One { .. }])
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
            Self::Clear { .. } | Self::Revert { .. } | Self::Undo(_) | Self::Sweep | Self::Trim(_) => size_of::<Self>(),
        }
    }
}

impl Action {
    /// A set of a value of which nothing earlier is known.
    #[cfg(models)]
    pub(crate) fn set(document: Document, compress: bool, life: Life) -> Self {
        let packed = Packed::new(&document, compress);
        Self::Set { document, packed, life }
    }

    fn footprint(&self) -> usize {
        match self {
            Self::Set { document, .. } => document.text().len(),
            Self::Delete | Self::Touch(_) => 0,
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

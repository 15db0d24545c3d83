//! What the state manager asks of a database. SQLite is the first engine; nothing outside `sqlite/` may assume it.
//!
//! An engine keeps two tables: an append-only `log` of changes, and `entry`, the newest change of every key; what a fork shares with
//! its origin may be there once. It stores
//! what it is given and knows nothing of values, checks or transactions of users; those are `store`'s business.

pub(crate) mod sqlite;

use crate::Result;
use std::ops::{ControlFlow, RangeInclusive};

/// Identifies a scope for as long as the store exists.
pub(crate) type ScopeId = i64;

/// The root scope of the default tenant.
pub(crate) const ROOT: ScopeId = 1;

/// Holds what was set for scopes, under their ids as text; no handle leads here.
pub(crate) const SETTINGS: ScopeId = 2;

/// The newest row of the log. Both numbers are 0 in a store without changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) seq: i64,
    pub(crate) version: i64,
}

/// What a change did to its key. The numbers are part of the file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The key was deleted.
    Delete = 0,
    /// The key got a value.
    Set = 1,
    /// The key's time ran out.
    Expire = 2,
    /// The key got another time to expire; its value is the same.
    Touch = 3,
}

impl Operation {
    /// Its name as every language shows it: `"set"`, `"delete"`, `"expire"` or `"touch"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Set => "set",
            Self::Expire => "expire",
            Self::Touch => "touch",
        }
    }

    /// The operation of a number in a file.
    pub(crate) const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Delete),
            1 => Some(Self::Set),
            2 => Some(Self::Expire),
            3 => Some(Self::Touch),
            _ => None,
        }
    }

    /// Whether the key has a value afterwards.
    pub const fn has_value(self) -> bool {
        matches!(self, Self::Set | Self::Touch)
    }
}

/// One change. `value` is empty where the key is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogRow<'a> {
    pub(crate) seq: i64,
    pub(crate) version: i64,
    pub(crate) time_ms: i64,
    pub(crate) scope: ScopeId,
    pub(crate) key: &'a str,
    pub(crate) operation: Operation,
    /// The row of the same key before this one; 0 for the first.
    pub(crate) prev: i64,
    pub(crate) expires_ms: Option<i64>,
    /// How `value` is encoded; see `store::codec`.
    pub(crate) flags: i64,
    pub(crate) value: &'a [u8],
    /// Who made the change, in the course of what, and why, as far as that is known.
    pub(crate) origin: [Option<&'a str>; 3],
    pub(crate) check: i64,
}

/// The newest change of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) seq: i64,
    /// False for a tombstone.
    pub(crate) live: bool,
    /// When the key came into being; `None` when the newest row did that.
    pub(crate) created_ms: Option<i64>,
    /// When its time runs out, if ever.
    pub(crate) expires_ms: Option<i64>,
    /// Rows that it has in the log, as far as they were counted.
    pub(crate) versions: i64,
}

impl Newest {
    /// Whether the key is there at a time.
    pub(crate) fn is_alive(&self, clock_ms: i64) -> bool {
        self.live && !is_over(self.expires_ms, clock_ms)
    }
}

/// Whether a time to expire has come.
pub(crate) fn is_over(expires_ms: Option<i64>, clock_ms: i64) -> bool {
    expires_ms.is_some_and(|at| at <= clock_ms)
}

/// A row of the log without what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outline<'a> {
    pub(crate) seq: i64,
    pub(crate) time_ms: i64,
    pub(crate) scope: ScopeId,
    pub(crate) key: &'a str,
    pub(crate) prev: i64,
    pub(crate) operation: Operation,
}

/// What is not in the log of a scope any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Trimmed {
    /// How many changes.
    pub(crate) changes: i64,
    /// The newest of them.
    pub(crate) seq: i64,
    /// The newest of those whose keys are not known any more.
    pub(crate) gone: i64,
}

/// From which scope a scope was forked, and at which row of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fork {
    pub(crate) scope: ScopeId,
    pub(crate) at: i64,
}

/// What a scope takes, in bytes of stored values and in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    pub(crate) keys: u64,
    pub(crate) live_bytes: u64,
    pub(crate) past_bytes: u64,
    pub(crate) changes: u64,
}

/// A run of keys of one scope, in byte order or against it.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) scope: ScopeId,
    /// The first key that belongs to it.
    pub(crate) from: String,
    /// The first key beyond it.
    pub(crate) to: Option<String>,
    pub(crate) reverse: bool,
}

/// Looks at a row while it is at hand.
pub(crate) type OnRow<'f> = &'f mut dyn FnMut(&LogRow<'_>) -> Result<()>;

/// Looks at the changes of the log in their order: the number of each and, where it is wanted, its row.
pub(crate) type OnChange<'f> = &'f mut dyn FnMut(Head, Option<&LogRow<'_>>) -> Result<ControlFlow<()>>;

/// Where a named watch goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) name: String,
    /// The last row of the log that it is done with.
    pub(crate) at: Head,
}

/// Looks at a key with its newest change and that change's row, if it is there.
pub(crate) type OnEntry<'f> = &'f mut dyn FnMut(ScopeId, &str, Newest, Option<&LogRow<'_>>) -> Result<()>;

/// Questions to one state of the database.
pub(crate) trait Reads {
    /// The newest row of the log.
    fn head(&self) -> Result<Head>;
    /// The newest change of a key.
    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>>;
    /// The newest change of a key, and its row in the same step.
    fn current(&self, scope: ScopeId, key: &str, on_row: OnRow<'_>) -> Result<Option<Newest>>;
    /// One row of the log; says whether it is there.
    fn row(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool>;
    /// One row of the log, asked for while another is looked at; says whether it is there.
    fn base(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        self.row(seq, on_row)
    }
    /// Whether a row with this check is there.
    fn has(&self, seq: i64, check: i64) -> Result<bool> {
        let mut same = false;
        self.row(seq, &mut |row| {
            same = row.check == check;
            Ok(())
        })?;
        Ok(same)
    }
    /// The newest changes of all keys in a range, tombstones included, until `each` has enough.
    fn entries(&self, range: &Range, each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()>;
    /// How many keys of a range are there at a time.
    fn count(&self, range: &Range, clock_ms: i64) -> Result<u64>;
    /// Keys that have a value although their time had run out by then, the first of them first, until `each` has enough.
    fn overdue(&self, clock_ms: i64, each: &mut dyn FnMut(ScopeId, &str, Newest) -> ControlFlow<()>) -> Result<()>;
    /// The earliest time at which a key expires.
    fn next_expiry(&self) -> Result<Option<i64>>;
    /// What the store keeps for itself under a name.
    fn note(&self, name: &str) -> Result<Option<String>>;
    /// The keys changed after `seq`, in the order of their changes, until `each` has enough.
    fn tail(&self, seq: i64, each: &mut dyn FnMut(ScopeId, &str) -> ControlFlow<()>) -> Result<()>;
    /// The changes after `seq`, with the rows of those that are wanted, until `each` has enough.
    fn changes(&self, seq: i64, wanted: &dyn Fn(ScopeId, &str) -> bool, each: OnChange<'_>) -> Result<()>;
    /// The changes after `seq` without what they hold, until `each` has enough.
    fn outlines(&self, seq: i64, each: &mut dyn FnMut(Outline<'_>) -> ControlFlow<()>) -> Result<()>;
    /// The changes of a scope that are not the newest of their keys, the oldest first, each with the bytes of its value.
    fn past(&self, scope: ScopeId, each: &mut dyn FnMut(i64, &str, u64)) -> Result<()>;
    /// What is not in the log of a scope any more.
    fn trimmed(&self, scope: ScopeId) -> Result<Trimmed>;
    /// Whether a change after `seq` is not in the log any more whose key is not known any more, in any scope.
    fn has_gone(&self, seq: i64) -> Result<bool>;
    /// What a scope takes at a time.
    fn taken(&self, scope: ScopeId, clock_ms: i64) -> Result<Taken>;
    /// From what a scope was forked, if it was.
    fn forked(&self, scope: ScopeId) -> Result<Option<Fork>>;
    /// The scopes that were forked from a scope, each with the row at which it was.
    fn forks(&self, scope: ScopeId) -> Result<Vec<Fork>>;
    /// The newest change that is not after `seq`; nothing before the first.
    fn at_or_before(&self, seq: i64) -> Result<Option<Head>>;
    /// The named watches of a scope, sorted by their names.
    fn cursors(&self, scope: ScopeId) -> Result<Vec<Cursor>>;
    /// The named watch of a scope.
    fn cursor(&self, scope: ScopeId, name: &str) -> Result<Option<Head>>;
    /// The names of the scopes directly below `parent`, sorted.
    fn scopes(&self, parent: ScopeId) -> Result<Vec<String>>;
    /// The id of a scope, if it exists.
    fn find_scope(&self, parent: ScopeId, name: &str) -> Result<Option<ScopeId>>;
    /// Every row of the log, in the order of their numbers.
    fn log(&self, on_row: OnRow<'_>) -> Result<()>;
    /// Every entry of every scope, tombstones included. Of keys that a fork and its origin share the fork may have none.
    fn all_entries(&self, on_entry: OnEntry<'_>) -> Result<()>;
    /// The scope around a scope; 0 is the parent of a tenant's root.
    fn parent(&self, scope: ScopeId) -> Result<Option<ScopeId>>;
    /// Every scope with its parent and its name; 0 is the parent of a tenant's root.
    fn all_scopes(&self, each: &mut dyn FnMut(ScopeId, ScopeId, &str)) -> Result<()>;
}

/// Changes inside the one write transaction.
pub(crate) trait Writes {
    /// Questions that see the changes made so far.
    fn reads(&self) -> &dyn Reads;
    /// The newest row of the log, changes made so far included.
    fn head(&self) -> Head;
    /// The time of the newest row, in milliseconds since the epoch.
    fn last_ms(&self) -> i64;
    /// How many statements were to write something so far, those that failed included.
    fn written(&self) -> u64;
    /// Whether the disk is so full that it must be left to deletions.
    fn is_short_of_space(&self) -> bool;
    /// Appends a row to the log and makes it the newest of its key, which has had the entry `replaced` so far. Forks keep that.
    fn append(&mut self, row: &LogRow<'_>, created_ms: Option<i64>, replaced: Option<Newest>) -> Result<()>;
    /// Does so if the newest change of the key is `row.prev` and has left it a value, or does nothing; says which. Where somebody
    /// believes to know that, this spares a question. An engine need not do it.
    fn supersede(&mut self, _row: &LogRow<'_>, _created_ms: Option<i64>) -> Result<bool> {
        Ok(false)
    }
    /// Takes rows out of the log; says how many of them were there.
    fn trim(&mut self, rows: RangeInclusive<i64>) -> Result<i64>;
    /// Notes how many rows a key has left; one that has none is not known any more.
    fn set_versions(&mut self, scope: ScopeId, key: &str, versions: i64) -> Result<()>;
    /// Notes what is not in the log of a scope any more, beside what is noted already.
    fn add_trimmed(&mut self, scope: ScopeId, trimmed: Trimmed) -> Result<()>;
    /// Keeps something for the store itself under a name.
    fn put_note(&mut self, name: &str, text: &str) -> Result<()>;
    /// Adds a scope below `parent`.
    fn add_scope(&mut self, parent: ScopeId, name: &str) -> Result<ScopeId>;
    /// Adds a scope below `parent` with all the keys that another has now.
    fn fork_scope(&mut self, from: ScopeId, parent: ScopeId, name: &str) -> Result<ScopeId>;
    /// Makes a named watch of a scope, unless there is one.
    fn add_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()>;
    /// Moves the named watch of a scope forward, never back; one that was removed stays so.
    fn move_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()>;
    /// Removes the named watch of a scope; says whether there was one.
    fn drop_cursor(&mut self, scope: ScopeId, name: &str) -> Result<bool>;
    /// Whether what was written is still there. When its disk fails SQLite undoes all of it by itself, also while it reads.
    fn is_intact(&self) -> bool;
    /// Starts a part that can be undone alone.
    fn savepoint(&mut self) -> Result<()>;
    /// Keeps what was done since the savepoint.
    fn release(&mut self) -> Result<()>;
    /// Undoes what was done since the savepoint.
    fn undo(&mut self) -> Result<()>;
}

/// Work over one state of the database.
pub(crate) type ReadWork<'f> = &'f mut dyn FnMut(&dyn Reads) -> Result<()>;
/// Work inside the write transaction.
pub(crate) type WriteWork<'f> = &'f mut dyn FnMut(&mut dyn Writes) -> Result<()>;

/// A database with a log.
pub(crate) trait Engine: Send + Sync {
    /// A number that differs after every commit of any process. Cheap enough to ask before every read.
    fn stamp(&self) -> u64;
    /// Runs one question; each question inside `work` may see a newer state than the one before.
    fn read(&self, work: ReadWork<'_>) -> Result<()>;
    /// Runs several questions to one and the same state.
    fn snapshot(&self, work: ReadWork<'_>) -> Result<()>;
    /// Runs `work` as the only writer of all processes and commits it, or undoes it when it fails.
    ///
    /// Answers the new stamp when it is certain that no other process has committed since, otherwise nothing.
    fn write(&self, work: WriteWork<'_>) -> Result<Option<u64>>;
    /// What is wrong with the way in which the database keeps its tables, at most `most` texts.
    fn check_structure(&self, most: usize) -> Result<Vec<String>>;
    /// The store's own identity, a UUID.
    fn store_id(&self) -> &str;
    /// Waits for calls under way, then lets go of the files. Later calls are `Closed`.
    fn close(&self) -> Result<()>;
}

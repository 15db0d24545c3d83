//! The end of the log as watches read it: what has changed since a row, commit by commit.

use super::{Store, codec, past, snapshot};
use crate::change::Change;
use crate::engine::{Cursor, Head, LogRow, Operation, Reads, ScopeId};
use crate::error::shorten;
use crate::harness::sabotaged;
use crate::key::Pattern;
use crate::{Error, ErrorKind, Result, limits};
use std::ops::ControlFlow;

/// What is watched: keys of a scope, from a row of the log on.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) scope: ScopeId,
    pub(crate) pattern: Pattern,
}

/// A part of the log's end.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) changes: Vec<Change>,
    /// The last row that was looked at.
    pub(crate) reached: Head,
    /// The last row that was looked at, or an earlier one, after which no commit goes on.
    pub(crate) whole: Option<Head>,
    /// Whether there was nothing after it.
    pub(crate) is_end: bool,
}

impl Store {
    /// The next changes after a row.
    pub(crate) fn tail(&self, watched: &Watched, after: Head) -> Result<Tail> {
        let mut tail = Tail { changes: Vec::new(), reached: after, whole: None, is_end: true };
        self.engine.snapshot(&mut |reads| {
            if reads.trimmed(watched.scope)?.gone > after.seq {
                return Err(trimmed("a key that was deleted meanwhile"));
            }
            let (mut looked_at, mut bytes) = (0, 0);
            let wanted = |scope, key: &str| scope == watched.scope && watched.pattern.matches(key);
            reads.changes(after.seq, &|_, _| true, &mut |at, row| {
                let is_told = |row: &LogRow<'_>| row.operation != Operation::Expire || !sabotaged("expire-untold");
                let row = row.filter(|row| wanted(row.scope, row.key) && is_told(row)).map_or_else(
                    // Damage may have made it look like one of another scope.
                    || row.map_or(Ok(None), |other| codec::verify(other).map(|()| None)),
                    |row| Ok(Some(row)),
                )?;
                let last = tail.changes.last_mut();
                let is_open = last.is_some_and(|last| {
                    last.ends_commit |= last.version != at.version.cast_unsigned();
                    !last.ends_commit
                });
                if tail.reached.version != at.version {
                    tail.whole = Some(tail.reached);
                }
                let is_full = tail.changes.len() >= limits::WATCH_PAGE || bytes >= limits::PAGE_BYTES;
                // Of the last change it still has to be told whether its commit goes on.
                if (is_full || looked_at >= limits::WATCH_ROWS) && (!is_open || row.is_some()) {
                    tail.is_end = false;
                    return Ok(ControlFlow::Break(()));
                }
                if let Some(row) = row {
                    let mut change = change(reads, row)?;
                    change.ends_commit = sabotaged("commit-told-in-parts");
                    bytes += change.footprint();
                    tail.changes.push(change);
                }
                tail.reached = at;
                looked_at += 1;
                Ok(ControlFlow::Continue(()))
            })
        })?;
        if tail.is_end {
            // A snapshot has whole commits.
            tail.whole = Some(tail.reached);
            if let Some(last) = tail.changes.last_mut() {
                last.ends_commit = true;
            }
        }
        Ok(tail)
    }

    /// The newest row of a version, or of the one before it where that changed nothing.
    pub(crate) fn row_of(&self, version: u64) -> Result<Head> {
        let mut found = Head::default();
        self.engine.snapshot(&mut |reads| {
            let newest = reads.head()?;
            if version > newest.version.cast_unsigned() {
                return Err(Error::invalid(format!(
                    "since is {version}, but the newest commit is {}; was an older copy of the store put back?",
                    newest.version
                )));
            }
            found = last_up_to(reads, newest, version)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// The row at which a named watch stands.
    pub(crate) fn cursor(&self, scope: ScopeId, name: &str) -> Result<Option<Head>> {
        let mut found = None;
        self.engine.snapshot(&mut |reads| {
            found = reads.cursor(scope, name)?;
            // What has been damaged would miss changes without a word.
            match found.map(|at| misplaced(reads, at)).transpose()?.flatten() {
                Some(why) => Err(Error::corrupt(format!(
                    "the watch {} {why}; forget it and watch from a version that you know",
                    shorten(name)
                ))),
                None => Ok(()),
            }
        })?;
        Ok(found)
    }

    /// The named watches of a scope.
    pub(crate) fn cursors(&self, scope: ScopeId) -> Result<Vec<Cursor>> {
        let mut found = Vec::new();
        self.engine.read(&mut |reads| {
            found = reads.cursors(scope)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Makes a named watch, unless somebody was faster; answers where it stands.
    pub(crate) fn add_cursor(&self, scope: ScopeId, name: &str, at: Head) -> Result<Head> {
        let mut found = None;
        self.engine.write(&mut |writes| {
            writes.add_cursor(scope, name, at)?;
            found = writes.reads().cursor(scope, name)?;
            Ok(())
        })?;
        Ok(found.unwrap_or(at))
    }

    /// Keeps where a named watch stands.
    pub(crate) fn move_cursor(&self, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        if sabotaged("save-nothing") {
            return Ok(());
        }
        self.engine.write(&mut |writes| writes.move_cursor(scope, name, at)).map(drop)
    }

    /// Forgets a named watch; says whether there was one.
    pub(crate) fn drop_cursor(&self, scope: ScopeId, name: &str) -> Result<bool> {
        let mut dropped = false;
        self.engine.write(&mut |writes| {
            dropped = writes.drop_cursor(scope, name)?;
            Ok(())
        })?;
        Ok(dropped)
    }
}

/// What is wrong with where a named watch stands, if anything is.
pub(super) fn misplaced(reads: &dyn Reads, at: Head) -> Result<Option<String>> {
    let newest = reads.head()?;
    if at.seq < 0 || at.version < 0 {
        return Ok(Some("stands before the first commit".into()));
    }
    if at.seq > newest.seq || at.version > newest.version {
        return Ok(Some(format!("stands at version {}, after the newest commit", at.version)));
    }
    // Its row may not be there any more.
    let row = reads.at_or_before(at.seq)?.filter(|row| row.seq == at.seq && row.version != at.version);
    Ok(row.map(|row| format!("stands at version {}, but its row in the log is of version {}", at.version, row.version)))
}

/// The newest row whose version is at most `version`: versions grow with the numbers of rows, so halves are enough.
fn last_up_to(reads: &dyn Reads, newest: Head, version: u64) -> Result<Head> {
    let is_within = |at: Head| at.version.cast_unsigned() <= version;
    if is_within(newest) {
        return Ok(newest);
    }
    // Rows up to `low` are within, those from `high` on are not.
    let (mut found, mut low, mut high) = (Head::default(), 0, newest.seq);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        match reads.at_or_before(middle)?.filter(|at| at.seq > low) {
            Some(at) if is_within(at) => (found, low) = (at, at.seq),
            Some(at) => high = at.seq,
            None => low = middle,
        }
    }
    // What is not in the log any more had one row for each version at least.
    let version = version.cast_signed();
    Ok(Head { seq: found.seq + version - found.version, version })
}

/// A watch that has come too late.
fn trimmed(what: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{what} is not kept any more; read the keys again, watch from now on, and see the scope's retention policy"
        ),
    )
}

/// A row of the log as a change, with the value that it replaced.
fn change(reads: &dyn Reads, row: &LogRow<'_>) -> Result<Change> {
    let value = past::value(reads, row)?;
    let (mut old, mut is_there) = (None, row.prev == 0);
    if !is_there {
        let before = if sabotaged("wrong-old") { row.seq - 1 } else { row.prev };
        is_there = reads.row(before, &mut |before| {
            if !sabotaged("wrong-old") {
                snapshot::check_key(reads, before, row.scope, row.key)?;
            }
            old = past::value(reads, before)?;
            Ok(())
        })?;
    }
    if !is_there {
        if snapshot::is_trimmed(reads, row.scope, row.prev)? {
            return Err(trimmed(&format!("what key {} was before", shorten(row.key))));
        }
        return Err(snapshot::missing(reads, row.scope, row.key, row.prev));
    }
    Ok(Change {
        version: row.version.cast_unsigned(),
        key: row.key.to_owned(),
        operation: row.operation,
        value,
        old,
        time_ms: row.time_ms,
        origin: codec::origin(row),
        ends_commit: false,
        seq: row.seq,
    })
}

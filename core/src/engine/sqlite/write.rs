//! One write transaction: begin as the only writer of all processes, commit, and tell the truth about how that went.

use super::change::Change;
use super::checkpoint;
use super::error::{from_sqlite, is_busy};
use super::statements::View;
use super::wal::IndexHeader;
use super::{Known, Shared, Writer};
use crate::engine::{Head, Reads as _, WriteWork};
use crate::{Error, ErrorKind, Result, SyncMode, harness};
use rusqlite::{Connection, ffi};
use std::sync::atomic::Ordering;

/// What was read when a write began.
struct Start {
    /// Nothing where the store has one connection, or the header was being written.
    header: Option<IndexHeader>,
    stamp: Option<u64>,
    known: Known,
    short_of_space: bool,
}

impl Start {
    /// Frames in the log.
    fn frames(&self) -> u32 {
        self.header.map_or(0, |header| header.last_frame)
    }
}

/// Another process is writing.
pub(super) struct Busy(rusqlite::Error);

impl From<Busy> for Error {
    fn from(busy: Busy) -> Self {
        from_sqlite("starting a write", busy.0)
    }
}

/// Starts the write transaction unless another process is in one.
fn begin(connection: &Connection) -> Result<Result<(), Busy>> {
    let failed = |e| from_sqlite("starting a write", e);
    if !connection.is_autocommit() {
        // A panic has left a transaction behind.
        connection.execute_batch("ROLLBACK").map_err(|e| from_sqlite("undoing a write", e))?;
    }
    match connection.prepare_cached("BEGIN IMMEDIATE").map_err(failed)?.execute([]) {
        Ok(_) => Ok(Ok(())),
        Err(e) if is_busy(&e) => Ok(Err(Busy(e))),
        Err(e) => Err(failed(e)),
    }
}

impl Shared {
    /// Runs `work` and commits it. Answers the new stamp, if it is known, and the frames that the log had before; or, not having
    /// begun, that somebody else is writing.
    ///
    /// On a full disk the ballast is given up, so that the next call can delete.
    pub(super) fn write(&self, work: WriteWork<'_>) -> Result<Result<(Option<u64>, u32), Busy>> {
        let mut writer = self.lock_writer();
        let writer = &mut *writer;
        if let Err(busy) = begin(self.connected(writer)?)? {
            return Ok(Err(busy));
        }
        let done = self.write_with(writer, work);
        if let Err(error) = &done
            && error.kind() == ErrorKind::DiskFull
            && let Some(ballast) = &self.ballast
            && ballast.is_held()
        {
            if let Some(connection) = &writer.connection {
                // A log that starts over takes the next commits without growing. Not with the space that was kept back: a long
                // log would take all of it for the database, and none were left for deleting.
                let _ = checkpoint::restart(connection);
            }
            ballast.release();
        }
        done.map(Ok)
    }

    fn write_with(&self, writer: &mut Writer, work: WriteWork<'_>) -> Result<(Option<u64>, u32)> {
        let connection = writer.connection.as_ref().ok_or_else(|| Error::closed("the store"))?;
        harness::point("write.begun");
        let applied = self.start(connection, writer.known).and_then(|start| {
            let mut change = Change {
                view: View(connection),
                append: None,
                move_entry: None,
                supersede: None,
                head: start.known.head,
                last_ms: start.known.last_ms,
                last_forked: start.known.last_forked,
                last_check: None,
                kept_check: None,
                written: 0,
                short_of_space: start.short_of_space,
            };
            work(&mut change)?;
            let Change { head, last_ms, last_forked, last_check, written, .. } = change;
            Ok((start, Known { head, last_ms, last_forked }, last_check, written > 0))
        });
        let (start, known, last_check, wrote) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                // SQLite may have rolled back by itself already.
                let _ = connection.execute_batch("ROLLBACK");
                return Err(error);
            }
        };
        let head = known.head;
        harness::point("write.applied");
        if !wrote {
            connection.execute_batch("ROLLBACK").map_err(|e| from_sqlite("ending a write", e))?;
            return Ok((start.stamp, start.frames()));
        }
        if harness::sabotaged("mark-early")
            && let Some(mark) = &mut writer.mark
        {
            mark.raise(head.version);
        }
        let committed = connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        let commits = self.commits.fetch_add(1, Ordering::AcqRel) + 1;
        let stamp = match committed {
            Ok(_) => self.stamp_after(&start, commits),
            Err(error) => {
                let _ = connection.execute_batch("ROLLBACK");
                self.settle(writer, head, last_check, error)?;
                None
            }
        };
        harness::point("write.committed");
        writer.known = stamp.map(|stamp| (stamp, known));
        if let Some(mark) = &mut writer.mark {
            mark.raise(head.version);
        }
        harness::point("write.marked");
        if start.frames() >= checkpoint::TOO_MANY_FRAMES
            && let Some(connection) = &writer.connection
        {
            // The commit stands whatever comes of this.
            let _ = checkpoint::restart(connection);
        }
        Ok((stamp, start.frames()))
    }

    /// Looks around inside the write transaction, and makes sure that its commit will be kept.
    fn start(&self, connection: &Connection, known: Option<(u64, Known)>) -> Result<Start> {
        let header = self.sharing.as_ref().and_then(|sharing| sharing.index.header());
        let stamp = match self.sharing {
            Some(_) => header.map(|header| header.stamp),
            None => Some(self.commits.load(Ordering::Acquire)),
        };
        let known = match known {
            Some((at, known)) if stamp == Some(at) => known,
            _ => {
                let (head, last_ms) = View(connection).end()?;
                Known { head, last_ms, last_forked: None }
            }
        };
        self.check_files()?;
        let short_of_space = match &self.ballast {
            Some(ballast) => !ballast.take()?,
            None => false,
        };
        if self.sharing.is_none() && self.path.is_some() {
            checkpoint::automatic(connection, !short_of_space);
        }
        let start = Start { header, stamp, known, short_of_space };
        if let Some(sharing) = &self.sharing
            && self.config.sync_mode == SyncMode::Full
        {
            match sharing.wal.make_room(start.frames()) {
                // The commit may fit into what there is.
                Err(e) if e.kind() == ErrorKind::DiskFull => {}
                made => made?,
            }
        }
        harness::point("write.room");
        Ok(start)
    }

    /// The stamp after our own commit, if nobody else has committed since the write began.
    fn stamp_after(&self, start: &Start, commits: u64) -> Option<u64> {
        let Some(sharing) = &self.sharing else { return Some(commits) };
        let (before, after) = (start.header?, sharing.index.header()?);
        (after.change == before.change.wrapping_add(1)).then_some(after.stamp)
    }

    /// After a COMMIT that failed: tells whether the last row of the commit is there after all. Another process may have
    /// written a row of that number meanwhile, so only the row's check proves that it is ours.
    fn settle(&self, writer: &mut Writer, last: Head, last_check: Option<i64>, error: rusqlite::Error) -> Result<()> {
        let mut emptied = false;
        // A connection that failed to commit is not trusted any more. A store in memory has no other.
        if let Some(path) = &self.path {
            writer.connection = None;
            // If that fails, the next call tries again.
            emptied = self.reopen(writer, path).unwrap_or(false);
            harness::point("settle.reopened");
        }
        let mut found = None;
        let read = writer.connection.as_ref().map(|connection| {
            View(connection).row(last.seq, &mut |row| {
                found = Some(row.check);
                Ok(())
            })
        });
        let code = error.sqlite_error().map_or(0, |error| error.extended_code);
        // What is read may come from memory, and after a failed sync the disk may never get it; what was moved out of the log has
        // been synced anew.
        let synced = emptied || !matches!(code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC);
        // A full disk leaves the log without the end of the commit. A journal may be ended all the same, which only a row tells.
        let disk_full = code == ffi::SQLITE_FULL && (self.config.enable_wal || last_check.is_some());
        match read {
            _ if harness::sabotaged("unknown-is-done") => Ok(()),
            _ if harness::sabotaged("unknown-is-failed") => Err(from_sqlite("committing", error)),
            Some(Ok(_)) if synced && last_check.is_some() && found == last_check => Ok(()),
            // Another commit has taken the place, or the pages were never written. A commit without a row cannot tell.
            Some(Ok(there)) if last_check.is_some() && (there && found != last_check || emptied) || disk_full => {
                Err(from_sqlite("committing", error))
            }
            _ => Err(Error::new(
                ErrorKind::CommitUnknown,
                format!("it is unknown whether the commit is stored ({error}); read the key again to know"),
            )
            .with_source(error)),
        }
    }
}

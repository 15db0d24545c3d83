//! The changes in the database that data is written by.

use super::error::from_sqlite;
use super::layers::FIRST_FORK;
use super::sql::{
    ADD_CURSOR, ADD_ENTRY, ADD_SCOPE, ADD_TRIMMED, APPEND, DROP_CURSOR, DROP_ENTRY, FORK_SCOPE, HIDE_ENTRY,
    LEAVE_TO_FORKS, MOVE_CURSOR, MOVE_ENTRY, PUT_ENTRY, PUT_NOTE, SET_VERSIONS, STOP_HIDING, SUPERSEDE, TRIM,
};
use super::statements::{View, prepare};
use crate::engine::{Head, LogRow, Newest, Reads, ScopeId, Trimmed, Writes};
use crate::{Result, harness};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql, params};
use std::ops::RangeInclusive;

/// A statement that is kept for the next time.
fn at_hand<'s, 'c>(
    kept: &'s mut Option<CachedStatement<'c>>,
    connection: &'c Connection,
    sql: &str,
) -> Result<&'s mut CachedStatement<'c>> {
    match kept {
        Some(statement) => Ok(statement),
        none => Ok(none.insert(prepare(connection, sql)?)),
    }
}

/// The write transaction. Keeps the log's end at hand, since every change needs it.
pub(super) struct Change<'c> {
    pub(super) view: View<'c>,
    /// Kept at hand: looking for it takes a part of the time that it takes.
    pub(super) append: Option<CachedStatement<'c>>,
    pub(super) move_entry: Option<CachedStatement<'c>>,
    pub(super) supersede: Option<CachedStatement<'c>>,
    pub(super) head: Head,
    /// The time of the newest row.
    pub(super) last_ms: i64,
    /// As `View::last_forked` says, once that was asked.
    pub(super) last_forked: Option<i64>,
    /// The check of the last row that was appended: it tells our row from another of the same number.
    pub(super) last_check: Option<i64>,
    /// The same at the savepoint.
    pub(super) kept_check: Option<i64>,
    /// Statements that were to write something.
    pub(super) written: u64,
    /// The disk has no space but what is needed to delete.
    pub(super) short_of_space: bool,
}

impl Change<'_> {
    /// Appends a row to the log.
    fn put_row(&mut self, row: &LogRow<'_>) -> Result<()> {
        let value = match row.flags {
            _ if !row.operation.has_value() => ValueRef::Null,
            // Plain JSON is stored as text, so that any SQLite can read it.
            0 => ValueRef::Text(row.value),
            _ => ValueRef::Blob(row.value),
        };
        at_hand(&mut self.append, self.view.0, APPEND)?
            .execute(params![
                row.seq,
                row.version,
                row.time_ms,
                row.scope,
                row.key,
                row.operation as i64,
                row.prev,
                row.expires_ms,
                row.flags,
                row.check,
                ToSqlOutput::Borrowed(value),
                row.origin[0],
                row.origin[1],
                row.origin[2],
            ])
            .map_err(|e| from_sqlite("writing", e))?;
        self.head = Head { seq: row.seq, version: row.version };
        self.last_ms = row.time_ms;
        self.last_check = Some(row.check);
        Ok(())
    }

    /// Makes a row the newest of its key.
    fn put_entry(&mut self, row: &LogRow<'_>, created_ms: Option<i64>, replaced: Option<Newest>) -> Result<()> {
        if let Some(replaced) = replaced {
            self.leave_to_forks(row.scope, row.key, replaced)?;
        }
        let live = row.operation.has_value();
        let versions = replaced.map_or(1, |replaced| replaced.versions + 1);
        let entry = params![row.scope, row.key, row.seq, live, created_ms, row.expires_ms, versions];
        match replaced {
            _ if row.scope >= FIRST_FORK => prepare(self.view.0, PUT_ENTRY)?.execute(entry),
            Some(_) => at_hand(&mut self.move_entry, self.view.0, MOVE_ENTRY)?.execute(entry),
            None => prepare(self.view.0, ADD_ENTRY)?.execute(entry),
        }
        .map_err(|e| from_sqlite("writing", e))?;
        Ok(())
    }

    fn last_forked(&mut self) -> Result<i64> {
        match self.last_forked {
            Some(at) => Ok(at),
            None => Ok(*self.last_forked.insert(self.view.last_forked()?)),
        }
    }

    /// Gives the forks of a scope that show its entry of a key, which is about to be replaced, one of their own.
    fn leave_to_forks(&mut self, scope: ScopeId, key: &str, replaced: Newest) -> Result<()> {
        if replaced.seq > self.last_forked()? || harness::sabotaged("fork-follows") {
            return Ok(());
        }
        let Newest { seq, live, created_ms, expires_ms, .. } = replaced;
        self.change(LEAVE_TO_FORKS, params![scope, key, seq, live, created_ms, expires_ms])?;
        self.change(STOP_HIDING, params![scope, key, seq]).map(drop)
    }

    fn put_cursor(&mut self, sql: &str, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        self.written += 1;
        prepare(self.view.0, sql)?
            .execute(params![scope, name, at.seq, at.version])
            .map_err(|e| from_sqlite("keeping a named watch", e))?;
        Ok(())
    }

    /// Makes a change that needs no row of the log; says how many rows it has changed.
    fn change(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<usize> {
        self.written += 1;
        prepare(self.view.0, sql)?.execute(parameters).map_err(|e| from_sqlite("writing", e))
    }

    fn run(&mut self, sql: &str) -> Result<()> {
        prepare(self.view.0, sql)?.execute([]).map_err(|e| from_sqlite("writing", e))?;
        Ok(())
    }
}

impl Writes for Change<'_> {
    fn reads(&self) -> &dyn Reads {
        &self.view
    }

    fn head(&self) -> Head {
        self.head
    }

    fn last_ms(&self) -> i64 {
        self.last_ms
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn is_short_of_space(&self) -> bool {
        self.short_of_space
    }

    fn append(&mut self, row: &LogRow<'_>, created_ms: Option<i64>, replaced: Option<Newest>) -> Result<()> {
        self.written += 1;
        self.put_row(row)?;
        self.put_entry(row, created_ms, replaced)
    }

    fn supersede(&mut self, row: &LogRow<'_>, created_ms: Option<i64>) -> Result<bool> {
        if row.prev <= self.last_forked()? {
            // Forks may have to be left what is there.
            return Ok(false);
        }
        self.written += 1;
        let moved = at_hand(&mut self.supersede, self.view.0, SUPERSEDE)?
            .execute(params![row.scope, row.key, row.seq, created_ms, row.expires_ms, row.prev])
            .map_err(|e| from_sqlite("writing", e))?;
        if moved == 0 && !harness::sabotaged("believe-the-cache") {
            self.written -= 1;
            return Ok(false);
        }
        self.put_row(row)?;
        Ok(true)
    }

    fn trim(&mut self, rows: RangeInclusive<i64>) -> Result<i64> {
        let count = self.change(TRIM, params![rows.start(), rows.end()])?;
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn set_versions(&mut self, scope: ScopeId, key: &str, versions: i64) -> Result<()> {
        match versions {
            0 if self.view.inherited(scope, key)?.is_some() => self.change(HIDE_ENTRY, params![scope, key]),
            0 => self.change(DROP_ENTRY, params![scope, key]),
            versions => self.change(SET_VERSIONS, params![scope, key, versions]),
        }
        .map(drop)
    }

    fn add_trimmed(&mut self, scope: ScopeId, trimmed: Trimmed) -> Result<()> {
        self.change(ADD_TRIMMED, params![scope, trimmed.changes, trimmed.seq, trimmed.gone]).map(drop)
    }

    fn fork_scope(&mut self, from: ScopeId, parent: ScopeId, name: &str) -> Result<ScopeId> {
        let at = self.head.seq;
        self.last_forked = None;
        self.change(FORK_SCOPE, params![parent, name, from, at, FIRST_FORK])?;
        Ok(self.view.0.last_insert_rowid())
    }

    fn put_note(&mut self, name: &str, text: &str) -> Result<()> {
        self.written += 1;
        prepare(self.view.0, PUT_NOTE)?
            .execute([name, text])
            .map_err(|e| from_sqlite("keeping something for the store itself", e))?;
        Ok(())
    }

    fn add_scope(&mut self, parent: ScopeId, name: &str) -> Result<ScopeId> {
        self.written += 1;
        prepare(self.view.0, ADD_SCOPE)?
            .execute(params![parent, name, FIRST_FORK])
            .map_err(|e| from_sqlite("making a scope", e))?;
        Ok(self.view.0.last_insert_rowid())
    }

    fn add_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        self.put_cursor(ADD_CURSOR, scope, name, at)
    }

    fn move_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        self.put_cursor(MOVE_CURSOR, scope, name, at)
    }

    fn drop_cursor(&mut self, scope: ScopeId, name: &str) -> Result<bool> {
        self.written += 1;
        let dropped = prepare(self.view.0, DROP_CURSOR)?
            .execute(params![scope, name])
            .map_err(|e| from_sqlite("removing a named watch", e))?;
        Ok(dropped > 0)
    }

    fn is_intact(&self) -> bool {
        !self.view.0.is_autocommit()
    }

    fn savepoint(&mut self) -> Result<()> {
        self.kept_check = self.last_check;
        self.run("SAVEPOINT request")
    }

    fn release(&mut self) -> Result<()> {
        self.run("RELEASE request")
    }

    fn undo(&mut self) -> Result<()> {
        self.run("ROLLBACK TO request")?;
        self.run("RELEASE request")?;
        (self.head, self.last_ms) = self.view.end()?;
        self.last_check = self.kept_check;
        self.last_forked = None;
        Ok(())
    }
}

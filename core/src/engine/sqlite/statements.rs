//! The questions to the database and the changes in it that data is read and written by.

use super::error::from_sqlite;
use super::sql::{
    ADD_CURSOR, ADD_ENTRY, ADD_SCOPE, ADD_TRIMMED, ALL_ENTRIES, ALL_SCOPES, APPEND, AT_OR_BEFORE, BASE, CHANGES, COUNT,
    CURRENT, CURSOR, CURSORS, DROP_CURSOR, DROP_ENTRY, ENTRIES, ENTRIES_REVERSE, FIND_SCOPE, FORK_ENTRIES, FORK_SCOPE,
    FORKED, FORKS, HAS, HAS_GONE, HEAD, LOG, MOVE_CURSOR, MOVE_ENTRY, NEWEST, NEXT_EXPIRY, NOTE, OUTLINES, OVERDUE,
    PARENT, PAST, PUT_NOTE, ROW, SCOPES, SET_VERSIONS, TAIL, TAKEN, TRIM, TRIMMED,
};
use crate::engine::{
    Cursor, Fork, Head, LogRow, Newest, OnChange, OnEntry, OnRow, Operation, Outline, Range, Reads, ScopeId, Taken,
    Trimmed, Writes,
};
use crate::{Error, Result};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use std::ops::ControlFlow;

/// A statement of the connection's cache, ready to run.
fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    connection.prepare_cached(sql).map_err(|e| from_sqlite("preparing a statement", e))
}

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

/// One state of the database, seen through a connection.
pub(super) struct View<'c>(pub(super) &'c Connection);

impl View<'_> {
    /// The newest row of the log and its time.
    pub(super) fn end(&self) -> Result<(Head, i64)> {
        prepare(self.0, HEAD)?
            .query_row([], |row| Ok((head(row, 0)?, row.get(2)?)))
            .optional()
            .map(Option::unwrap_or_default)
            .map_err(|e| from_sqlite("reading the log's end", e))
    }

    fn one_row(&self, sql: &str, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        let failed = |e| from_sqlite("reading the log", e);
        let mut statement = prepare(self.0, sql)?;
        let mut rows = statement.query([seq]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(false) };
        on_row(&log_row(row)?)?;
        Ok(true)
    }
}

impl Reads for View<'_> {
    fn head(&self) -> Result<Head> {
        self.end().map(|(head, _)| head)
    }

    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        prepare(self.0, NEWEST)?
            .query_row(params![scope, key], |row| newest(row, 0))
            .optional()
            .map_err(|e| from_sqlite("reading a key", e))
    }

    fn current(&self, scope: ScopeId, key: &str, on_row: OnRow<'_>) -> Result<Option<Newest>> {
        let failed = |e| from_sqlite("reading a key", e);
        let mut statement = prepare(self.0, CURRENT)?;
        let mut rows = statement.query(params![scope, key]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
        let newest = newest(row, 0).map_err(failed)?;
        if row.get_ref(5).map_err(failed)? == ValueRef::Null {
            return Err(Error::corrupt(format!(
                "the log row {} of a key is missing; restore from a backup",
                newest.seq
            )));
        }
        on_row(&log_row(row)?)?;
        Ok(Some(newest))
    }

    fn row(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        self.one_row(ROW, seq, on_row)
    }

    fn base(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        self.one_row(BASE, seq, on_row)
    }

    fn has(&self, seq: i64, check: i64) -> Result<bool> {
        prepare(self.0, HAS)?.exists([seq, check]).map_err(|e| from_sqlite("reading the log", e))
    }

    fn entries(&self, range: &Range, each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()> {
        let failed = |e| from_sqlite("listing keys", e);
        let mut statement = prepare(self.0, if range.reverse { ENTRIES_REVERSE } else { ENTRIES })?;
        let mut rows = statement.query(params![range.scope, range.from, end_of(range)]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = text(row, 0)?;
            if each(key, newest(row, 1).map_err(failed)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, range: &Range, clock_ms: i64) -> Result<u64> {
        prepare(self.0, COUNT)?
            .query_row(params![range.scope, range.from, end_of(range), clock_ms], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(|e| from_sqlite("counting keys", e))
    }

    fn overdue(&self, clock_ms: i64, each: &mut dyn FnMut(ScopeId, &str, Newest) -> ControlFlow<()>) -> Result<()> {
        let failed = |e| from_sqlite("listing keys that expire", e);
        let mut statement = prepare(self.0, OVERDUE)?;
        let mut rows = statement.query([clock_ms]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if each(row.get(0).map_err(failed)?, text(row, 1)?, newest(row, 2).map_err(failed)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn next_expiry(&self) -> Result<Option<i64>> {
        prepare(self.0, NEXT_EXPIRY)?
            .query_row([], |row| row.get(0))
            .map_err(|e| from_sqlite("looking for keys that expire", e))
    }

    fn note(&self, name: &str) -> Result<Option<String>> {
        prepare(self.0, NOTE)?
            .query_row([name], |row| row.get(0))
            .optional()
            .map_err(|e| from_sqlite("reading what the store keeps for itself", e))
    }

    fn tail(&self, seq: i64, each: &mut dyn FnMut(ScopeId, &str) -> ControlFlow<()>) -> Result<()> {
        let failed = |e| from_sqlite("reading the log's end", e);
        let mut statement = prepare(self.0, TAIL)?;
        let mut rows = statement.query([seq]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if each(row.get(0).map_err(failed)?, text(row, 1)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn changes(&self, seq: i64, wanted: &dyn Fn(ScopeId, &str) -> bool, each: OnChange<'_>) -> Result<()> {
        let failed = |e| from_sqlite("reading the log", e);
        let mut statement = prepare(self.0, CHANGES)?;
        let mut rows = statement.query([seq]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let at = head(row, 5).map_err(failed)?;
            // The value of a row is not touched before it is known that it is wanted: it may be large.
            let change = if wanted(row.get(8).map_err(failed)?, text(row, 9)?) { Some(log_row(row)?) } else { None };
            if each(at, change.as_ref())?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn outlines(&self, seq: i64, each: &mut dyn FnMut(Outline<'_>) -> ControlFlow<()>) -> Result<()> {
        let failed = |e| from_sqlite("reading the log", e);
        let mut statement = prepare(self.0, OUTLINES)?;
        let mut rows = statement.query([seq]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let int = |column| row.get::<_, i64>(column).map_err(failed);
            let outline = Outline {
                seq: int(0)?,
                time_ms: int(1)?,
                scope: int(2)?,
                key: text(row, 3)?,
                prev: int(4)?,
                operation: operation(int(0)?, int(5)?)?,
            };
            if each(outline).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn past(&self, scope: ScopeId, each: &mut dyn FnMut(i64, &str, u64)) -> Result<()> {
        let failed = |e| from_sqlite("reading the log", e);
        let mut statement = prepare(self.0, PAST)?;
        let mut rows = statement.query([scope]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(row.get(0).map_err(failed)?, text(row, 1)?, row.get::<_, i64>(2).map_err(failed)?.cast_unsigned());
        }
        Ok(())
    }

    fn trimmed(&self, scope: ScopeId) -> Result<Trimmed> {
        prepare(self.0, TRIMMED)?
            .query_row([scope], |row| Ok(Trimmed { changes: row.get(0)?, seq: row.get(1)?, gone: row.get(2)? }))
            .optional()
            .map(Option::unwrap_or_default)
            .map_err(|e| from_sqlite("reading what was trimmed", e))
    }

    fn has_gone(&self, seq: i64) -> Result<bool> {
        prepare(self.0, HAS_GONE)?.exists([seq]).map_err(|e| from_sqlite("reading what was trimmed", e))
    }

    fn taken(&self, scope: ScopeId, clock_ms: i64) -> Result<Taken> {
        let failed = |e| from_sqlite("measuring a scope", e);
        let mut statement = prepare(self.0, TAKEN)?;
        let mut rows = statement.query([scope, clock_ms]).map_err(failed)?;
        let mut taken = Taken::default();
        while let Some(row) = rows.next().map_err(failed)? {
            let (count, bytes) = (row.get::<_, i64>(1).map_err(failed)?, row.get::<_, i64>(2).map_err(failed)?);
            taken.changes += count.cast_unsigned();
            if row.get::<_, Option<bool>>(0).map_err(failed)?.unwrap_or(false) {
                taken.live_bytes = bytes.cast_unsigned();
            } else {
                taken.past_bytes = bytes.cast_unsigned();
            }
        }
        let all = Range { scope, from: String::new(), to: None, reverse: false };
        taken.keys = self.count(&all, clock_ms)?;
        Ok(taken)
    }

    fn forked(&self, scope: ScopeId) -> Result<Option<Fork>> {
        prepare(self.0, FORKED)?
            .query_row([scope], |row| Ok(Fork { scope: row.get(0)?, at: row.get(1)? }))
            .optional()
            .map_err(|e| from_sqlite("finding what a scope was forked from", e))
    }

    fn forks(&self, scope: ScopeId) -> Result<Vec<Fork>> {
        prepare(self.0, FORKS)?
            .query_map([scope], |row| Ok(Fork { scope: row.get(0)?, at: row.get(1)? }))
            .and_then(Iterator::collect)
            .map_err(|e| from_sqlite("finding forks of a scope", e))
    }

    fn at_or_before(&self, seq: i64) -> Result<Option<Head>> {
        prepare(self.0, AT_OR_BEFORE)?
            .query_row([seq], |row| head(row, 0))
            .optional()
            .map_err(|e| from_sqlite("reading the log", e))
    }

    fn cursors(&self, scope: ScopeId) -> Result<Vec<Cursor>> {
        prepare(self.0, CURSORS)?
            .query_map([scope], |row| Ok(Cursor { name: row.get(0)?, at: head(row, 1)? }))
            .and_then(Iterator::collect)
            .map_err(|e| from_sqlite("listing named watches", e))
    }

    fn cursor(&self, scope: ScopeId, name: &str) -> Result<Option<Head>> {
        prepare(self.0, CURSOR)?
            .query_row(params![scope, name], |row| head(row, 0))
            .optional()
            .map_err(|e| from_sqlite("finding a named watch", e))
    }

    fn scopes(&self, parent: ScopeId) -> Result<Vec<String>> {
        prepare(self.0, SCOPES)?
            .query_map([parent], |row| row.get(0))
            .and_then(Iterator::collect)
            .map_err(|e| from_sqlite("listing scopes", e))
    }

    fn find_scope(&self, parent: ScopeId, name: &str) -> Result<Option<ScopeId>> {
        prepare(self.0, FIND_SCOPE)?
            .query_row(params![parent, name], |row| row.get(0))
            .optional()
            .map_err(|e| from_sqlite("finding a scope", e))
    }

    fn parent(&self, scope: ScopeId) -> Result<Option<ScopeId>> {
        prepare(self.0, PARENT)?
            .query_row([scope], |row| row.get(0))
            .optional()
            .map_err(|e| from_sqlite("finding the scope around a scope", e))
    }

    fn log(&self, on_row: OnRow<'_>) -> Result<()> {
        let failed = |e| from_sqlite("reading the log", e);
        let mut statement = prepare(self.0, LOG)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            on_row(&log_row(row)?)?;
        }
        Ok(())
    }

    fn all_entries(&self, on_entry: OnEntry<'_>) -> Result<()> {
        let failed = |e| from_sqlite("listing keys", e);
        let mut statement = prepare(self.0, ALL_ENTRIES)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let change = match row.get_ref(5).map_err(failed)? {
                ValueRef::Null => None,
                _ => Some(log_row(row)?),
            };
            on_entry(row.get(19).map_err(failed)?, text(row, 20)?, newest(row, 0).map_err(failed)?, change.as_ref())?;
        }
        Ok(())
    }

    fn all_scopes(&self, each: &mut dyn FnMut(ScopeId, ScopeId, &str)) -> Result<()> {
        let failed = |e| from_sqlite("listing scopes", e);
        let mut statement = prepare(self.0, ALL_SCOPES)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            each(row.get(0).map_err(failed)?, row.get(1).map_err(failed)?, text(row, 2)?);
        }
        Ok(())
    }
}

/// The first key beyond a range, or what sorts after every key.
fn end_of(range: &Range) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(range.to.as_deref().map_or(ValueRef::Blob(&[]), |to| ValueRef::Text(to.as_bytes())))
}

fn head(row: &Row<'_>, first: usize) -> rusqlite::Result<Head> {
    Ok(Head { seq: row.get(first)?, version: row.get(first + 1)? })
}

fn newest(row: &Row<'_>, first: usize) -> rusqlite::Result<Newest> {
    Ok(Newest {
        seq: row.get(first)?,
        live: row.get(first + 1)?,
        created_ms: row.get(first + 2)?,
        expires_ms: row.get(first + 3)?,
        versions: row.get(first + 4)?,
    })
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str> {
    row.get_ref(column)
        .and_then(|value| value.as_str().map_err(rusqlite::Error::from))
        .map_err(|e| from_sqlite("reading a key's text", e))
}

fn operation(seq: i64, number: i64) -> Result<Operation> {
    Operation::from_number(number)
        .ok_or_else(|| Error::corrupt(format!("log row {seq} has the unknown operation {number}")))
}

/// The columns from the sixth on, as `CURRENT` and `ROW` name them.
fn log_row<'r>(row: &'r Row<'_>) -> Result<LogRow<'r>> {
    let failed = |e| from_sqlite("reading a row of the log", e);
    let int = |column| row.get::<_, i64>(column).map_err(failed);
    let value = match row.get_ref(15).map_err(failed)? {
        ValueRef::Null => &[],
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => {
            return Err(Error::corrupt(format!("the value of log row {} is a number; restore from a backup", int(5)?)));
        }
    };
    let operation = operation(int(5)?, int(10)?)?;
    let mut origin = [None; 3];
    for (part, column) in origin.iter_mut().zip(16..) {
        if row.get_ref(column).map_err(failed)? != ValueRef::Null {
            *part = Some(text(row, column)?);
        }
    }
    Ok(LogRow {
        seq: int(5)?,
        version: int(6)?,
        time_ms: int(7)?,
        scope: int(8)?,
        key: text(row, 9)?,
        operation,
        prev: int(11)?,
        expires_ms: row.get(12).map_err(failed)?,
        flags: int(13)?,
        value,
        origin,
        check: int(14)?,
    })
}

/// The write transaction. Keeps the log's end at hand, since every change needs it.
pub(super) struct Change<'c> {
    pub(super) view: View<'c>,
    /// Kept at hand: looking for it takes a part of the time that it takes.
    pub(super) append: Option<CachedStatement<'c>>,
    pub(super) move_entry: Option<CachedStatement<'c>>,
    pub(super) head: Head,
    /// The time of the newest row.
    pub(super) last_ms: i64,
    /// The check of the last row that was appended: it tells our row from another of the same number.
    pub(super) last_check: Option<i64>,
    /// Statements that were to write something.
    pub(super) written: u64,
    /// The disk has no space but what is needed to delete.
    pub(super) short_of_space: bool,
}

impl Change<'_> {
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
        let failed = |e| from_sqlite("writing", e);
        let live = row.operation.has_value();
        let value = match row.flags {
            _ if !live => ValueRef::Null,
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
            .map_err(failed)?;
        match replaced {
            Some(replaced) => at_hand(&mut self.move_entry, self.view.0, MOVE_ENTRY)?.execute(params![
                row.scope,
                row.key,
                row.seq,
                live,
                created_ms,
                row.expires_ms,
                replaced.versions + 1
            ]),
            None => prepare(self.view.0, ADD_ENTRY)?.execute(params![
                row.scope,
                row.key,
                row.seq,
                live,
                created_ms,
                row.expires_ms
            ]),
        }
        .map_err(failed)?;
        self.head = Head { seq: row.seq, version: row.version };
        self.last_ms = row.time_ms;
        self.last_check = Some(row.check);
        Ok(())
    }

    fn trim(&mut self, seq: i64) -> Result<bool> {
        self.change(TRIM, params![seq]).map(|rows| rows > 0)
    }

    fn set_versions(&mut self, scope: ScopeId, key: &str, versions: i64) -> Result<()> {
        match versions {
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
        self.change(FORK_SCOPE, params![parent, name, from, at])?;
        let scope = self.view.0.last_insert_rowid();
        self.change(FORK_ENTRIES, params![scope, from])?;
        Ok(scope)
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
            .execute(params![parent, name])
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
        self.run("SAVEPOINT request")
    }

    fn release(&mut self) -> Result<()> {
        self.run("RELEASE request")
    }

    fn undo(&mut self) -> Result<()> {
        self.run("ROLLBACK TO request")?;
        self.run("RELEASE request")?;
        (self.head, self.last_ms) = self.view.end()?;
        Ok(())
    }
}

//! The questions to the database that data is read by.

use super::error::from_sqlite;
use super::layers::{FIRST_FORK, Layer, hides, shown};
use super::sql::{
    ALL_ENTRIES, ALL_SCOPES, AT_OR_BEFORE, BASE, CHANGES, COUNT, CURRENT, CURSOR, CURSORS, ENTRIES, ENTRIES_REVERSE,
    FIND_SCOPE, FORKED, FORKS, HAS, HAS_GONE, HEAD, LOG, NEWEST, NEXT_EXPIRY, NOTE, OUTLINES, OVERDUE, PARENT, PAST,
    ROW, SCOPES, TAIL, TAKEN, TRIMMED,
};
use crate::engine::{
    Cursor, Fork, Head, LogRow, Newest, OnChange, OnEntry, OnRow, Operation, Outline, Range, Reads, ScopeId, Taken,
    Trimmed,
};
use crate::{Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use std::ops::ControlFlow;

/// A statement of the connection's cache, ready to run.
pub(super) fn prepare<'c>(connection: &'c Connection, sql: &str) -> Result<CachedStatement<'c>> {
    connection.prepare_cached(sql).map_err(|e| from_sqlite("preparing a statement", e))
}

/// The database, seen through a connection: one state of it where that is in a transaction.
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

    /// The entry that a scope has of a key, those beneath it left aside.
    pub(super) fn entry(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        prepare(self.0, NEWEST)?
            .query_row(params![scope, key], |row| newest(row, 0))
            .optional()
            .map_err(|e| from_sqlite("reading a key", e))
    }

    /// What a layer shows of its entry of a key, if it has one, with its row.
    fn current_in(&self, layer: Layer, key: &str, on_row: OnRow<'_>) -> Result<ControlFlow<Option<Newest>>> {
        let failed = |e| from_sqlite("reading a key", e);
        let mut statement = prepare(self.0, CURRENT)?;
        let mut rows = statement.query(params![layer.scope, key]).map_err(failed)?;
        let Some(row) = rows.next().map_err(failed)? else { return Ok(ControlFlow::Continue(())) };
        let Some(newest) = shown(newest(row, 0).map_err(failed)?, layer) else { return Ok(ControlFlow::Break(None)) };
        if row.get_ref(5).map_err(failed)? == ValueRef::Null {
            return Err(Error::corrupt(format!(
                "the log row {} of a key is missing; restore from a backup",
                newest.seq
            )));
        }
        on_row(&log_row(row)?)?;
        Ok(ControlFlow::Break(Some(newest)))
    }
}

impl Reads for View<'_> {
    fn head(&self) -> Result<Head> {
        self.end().map(|(head, _)| head)
    }

    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        self.uppermost(scope, |layer| self.newest_in(layer, key))
    }

    fn current(&self, scope: ScopeId, key: &str, on_row: OnRow<'_>) -> Result<Option<Newest>> {
        self.uppermost(scope, |layer| self.current_in(layer, key, on_row))
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
        if range.scope >= FIRST_FORK {
            return self.layered_entries(range, each);
        }
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
        if range.scope >= FIRST_FORK {
            let mut count = 0;
            self.layered_entries(range, &mut |_, newest| {
                count += u64::from(newest.is_alive(clock_ms));
                Ok(ControlFlow::Continue(()))
            })?;
            return Ok(count);
        }
        prepare(self.0, COUNT)?
            .query_row(params![range.scope, range.from, end_of(range), clock_ms], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
            .map_err(|e| from_sqlite("counting keys", e))
    }

    fn overdue(&self, clock_ms: i64, each: &mut dyn FnMut(ScopeId, &str, Newest) -> ControlFlow<()>) -> Result<()> {
        let failed = |e| from_sqlite("listing keys that expire", e);
        let last_forked = self.last_forked()?;
        let mut statement = prepare(self.0, OVERDUE)?;
        let mut rows = statement.query([clock_ms]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (scope, key, newest) = (row.get(0).map_err(failed)?, text(row, 1)?, newest(row, 2).map_err(failed)?);
            let is_enough = each(scope, key, newest).is_break();
            if is_enough || newest.seq <= last_forked && self.heirs(scope, key, newest, each)?.is_break() {
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
            let (scope, newest) = (row.get(19).map_err(failed)?, newest(row, 0).map_err(failed)?);
            if !hides(&newest, scope) {
                on_entry(scope, text(row, 20)?, newest, change.as_ref())?;
            }
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
pub(super) fn end_of(range: &Range) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(range.to.as_deref().map_or(ValueRef::Blob(&[]), |to| ValueRef::Text(to.as_bytes())))
}

fn head(row: &Row<'_>, first: usize) -> rusqlite::Result<Head> {
    Ok(Head { seq: row.get(first)?, version: row.get(first + 1)? })
}

pub(super) fn newest(row: &Row<'_>, first: usize) -> rusqlite::Result<Newest> {
    Ok(Newest {
        seq: row.get(first)?,
        live: row.get(first + 1)?,
        created_ms: row.get(first + 2)?,
        expires_ms: row.get(first + 3)?,
        versions: row.get(first + 4)?,
    })
}

pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str> {
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

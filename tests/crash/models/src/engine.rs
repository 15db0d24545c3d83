//! A database in memory with the engine's promises and the model's steps: every state is kept, one number says which is the newest.

use crate::engine::{
    Cursor, Engine, Fork, Head, LogRow, Newest, OnChange, OnEntry, OnRow, Operation, Outline, Range, ReadWork, Reads,
    SETTINGS, ScopeId, Taken, Trimmed, WriteWork, Writes,
};
use crate::{Error, ErrorKind, Result};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64};
use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// How the connections of the database are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One connection, which one thread uses at a time: a store in memory or in exclusive use.
    Solo,
    /// Readers beside the writer, and other processes.
    Shared,
}

/// What becomes of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored and told so.
    Stored,
    /// It is stored, and nobody knows.
    Unknown,
    /// It is not stored, and nobody knows.
    Lost,
}

/// The database; clones are the same.
#[derive(Clone)]
pub(super) struct Shelf(Arc<Inner>);

struct Inner {
    sharing: Sharing,
    /// Every state that was ever committed, the empty one first. Std's lock: no step of the model.
    states: std::sync::Mutex<Vec<Arc<Rows>>>,
    /// The newest state. A commit shows at once to whoever looks here.
    newest: AtomicU64,
    /// The writer of this process; true once closed.
    writer: Mutex<bool>,
    /// Mirrors it for readers with connections of their own.
    closed: AtomicBool,
    /// The write lock of all processes.
    file: Mutex<()>,
    fate: std::sync::Mutex<Fate>,
}

/// The log of one state, and where its named watches stand.
#[derive(Clone, Default)]
struct Rows(Vec<Row>, BTreeMap<(ScopeId, String), Head>);

#[derive(Clone)]
struct Row {
    version: i64,
    time_ms: i64,
    scope: ScopeId,
    key: Box<str>,
    operation: Operation,
    prev: i64,
    flags: i64,
    value: Box<[u8]>,
    check: i64,
    created_ms: Option<i64>,
}

impl Shelf {
    pub(super) fn new(sharing: Sharing) -> Self {
        Self(Arc::new(Inner {
            sharing,
            states: std::sync::Mutex::new(vec![Arc::default()]),
            newest: AtomicU64::new(0),
            writer: Mutex::new(false),
            closed: AtomicBool::new(false),
            file: Mutex::new(()),
            fate: std::sync::Mutex::new(Fate::Stored),
        }))
    }

    /// Decides about the next commit.
    pub(super) fn decide(&self, fate: Fate) {
        *self.0.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }

    /// How many commits there are.
    pub(super) fn commits(&self) -> u64 {
        self.0.newest.load(Ordering::Acquire)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.now().0.iter().any(|row| *row.key == *key)
    }

    fn now(&self) -> Arc<Rows> {
        let newest = usize::try_from(self.commits()).unwrap_or(usize::MAX);
        Arc::clone(&self.0.states.lock().unwrap_or_else(PoisonError::into_inner)[newest])
    }

    /// Commits as the holder of the file's lock.
    fn commit(&self, work: WriteWork<'_>) -> Result<bool> {
        let mut change = Change { rows: (*self.now()).clone(), written: 0, savepoint: 0 };
        work(&mut change)?;
        if change.written == 0 {
            return Ok(false);
        }
        let fate = std::mem::replace(&mut *self.0.fate.lock().unwrap_or_else(PoisonError::into_inner), Fate::Stored);
        if fate != Fate::Lost {
            let newest = {
                let mut states = self.0.states.lock().unwrap_or_else(PoisonError::into_inner);
                states.push(Arc::new(change.rows));
                states.len() as u64 - 1
            };
            self.0.newest.store(newest, Ordering::Release);
        }
        if fate == Fate::Stored { Ok(true) } else { Err(Error::new(ErrorKind::CommitUnknown, "nobody knows")) }
    }

    /// Commits as another process.
    pub(super) fn commit_elsewhere(&self, work: WriteWork<'_>) -> Result<()> {
        let _file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit(work).map(drop)
    }

    fn ask(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let closed = || Err(Error::closed("the store"));
        if self.0.sharing == Sharing::Shared {
            return if self.0.closed.load(Ordering::Acquire) { closed() } else { work() };
        }
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *writer { closed() } else { work() }
    }
}

impl Engine for Shelf {
    fn stamp(&self) -> u64 {
        if super::sabotaged("no-stamp") { 0 } else { self.commits() }
    }

    fn read(&self, work: ReadWork<'_>) -> Result<()> {
        self.snapshot(work)
    }

    fn snapshot(&self, work: ReadWork<'_>) -> Result<()> {
        self.ask(|| work(&*self.now()))
    }

    fn write(&self, work: WriteWork<'_>) -> Result<Option<u64>> {
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *writer && !super::sabotaged("write-after-close") {
            return Err(Error::closed("the store"));
        }
        let before = {
            let _file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
            let before = self.commits();
            if !self.commit(work)? {
                return Ok(Some(before));
            }
            before
        };
        // Another process may have committed since.
        let after = self.commits();
        Ok((after == before + 1).then_some(after))
    }

    fn check_structure(&self, _: usize) -> Result<Vec<String>> {
        unasked()
    }

    fn store_id(&self) -> &'static str {
        "a model"
    }

    fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::Release);
        *self.0.writer.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }
}

/// What no model has needed so far.
fn unasked<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Io, "the database of the models does not do this"))
}

impl Rows {
    fn at(&self, seq: i64) -> Option<LogRow<'_>> {
        let row = usize::try_from(seq - 1).ok().and_then(|index| self.0.get(index))?;
        Some(LogRow {
            seq,
            version: row.version,
            time_ms: row.time_ms,
            scope: row.scope,
            key: &row.key,
            operation: row.operation,
            prev: row.prev,
            expires_ms: None,
            flags: row.flags,
            value: &row.value,
            origin: [None; 3],
            check: row.check,
        })
    }
}

impl Reads for Rows {
    fn head(&self) -> Result<Head> {
        let seq = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        Ok(Head { seq, version: self.0.last().map_or(0, |row| row.version) })
    }

    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        let found = (1..).zip(&self.0).filter(|(_, row)| row.scope == scope && *row.key == *key).last();
        Ok(found.map(|(seq, row)| Newest {
            seq,
            live: row.operation == Operation::Set,
            created_ms: row.created_ms,
            expires_ms: None,
            versions: 1,
        }))
    }

    fn current(&self, scope: ScopeId, key: &str, on_row: OnRow<'_>) -> Result<Option<Newest>> {
        let newest = self.newest(scope, key)?;
        newest.map_or(Ok(false), |newest| self.row(newest.seq, on_row))?;
        Ok(newest)
    }

    fn row(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        let row = self.at(seq);
        row.as_ref().map_or(Ok(()), on_row)?;
        Ok(row.is_some())
    }

    fn tail(&self, seq: i64, each: &mut dyn FnMut(ScopeId, &str) -> ControlFlow<()>) -> Result<()> {
        let rows = self.0.iter().skip(usize::try_from(seq).unwrap_or(0));
        let _ = rows.map(|row| each(row.scope, &row.key)).find(ControlFlow::is_break);
        Ok(())
    }

    fn changes(&self, seq: i64, wanted: &dyn Fn(ScopeId, &str) -> bool, each: OnChange<'_>) -> Result<()> {
        for row in (seq + 1..).map_while(|seq| self.at(seq)) {
            let at = Head { seq: row.seq, version: row.version };
            if each(at, wanted(row.scope, row.key).then_some(&row))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn at_or_before(&self, seq: i64) -> Result<Option<Head>> {
        let newest = self.head()?;
        Ok(self.at(seq.min(newest.seq)).map(|row| Head { seq: row.seq, version: row.version }))
    }

    fn cursors(&self, scope: ScopeId) -> Result<Vec<Cursor>> {
        let of_scope = self.1.iter().filter(|((of, _), _)| *of == scope);
        Ok(of_scope.map(|((_, name), at)| Cursor { name: name.clone(), at: *at }).collect())
    }

    fn cursor(&self, scope: ScopeId, name: &str) -> Result<Option<Head>> {
        Ok(self.1.get(&(scope, name.to_owned())).copied())
    }

    /// Only settings are listed, and none are set.
    fn entries(&self, range: &Range, _: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()> {
        if range.scope == SETTINGS { Ok(()) } else { unasked() }
    }

    fn count(&self, _: &Range, _: i64) -> Result<u64> {
        unasked()
    }

    fn overdue(&self, _: i64, _: &mut dyn FnMut(ScopeId, &str, Newest) -> ControlFlow<()>) -> Result<()> {
        unasked()
    }

    fn next_expiry(&self) -> Result<Option<i64>> {
        Ok(None)
    }

    /// Of the clock.
    fn note(&self, _: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn outlines(&self, _: i64, _: &mut dyn FnMut(Outline<'_>) -> ControlFlow<()>) -> Result<()> {
        unasked()
    }

    fn past(&self, _: ScopeId, _: &mut dyn FnMut(i64, &str, u64)) -> Result<()> {
        unasked()
    }

    /// Nothing ever is.
    fn trimmed(&self, _: ScopeId) -> Result<Trimmed> {
        Ok(Trimmed::default())
    }

    fn has_gone(&self, _: i64) -> Result<bool> {
        Ok(false)
    }

    fn taken(&self, _: ScopeId, _: i64) -> Result<Taken> {
        unasked()
    }

    fn forked(&self, _: ScopeId) -> Result<Option<Fork>> {
        Ok(None)
    }

    fn forks(&self, _: ScopeId) -> Result<Vec<Fork>> {
        unasked()
    }

    fn parent(&self, _: ScopeId) -> Result<Option<ScopeId>> {
        unasked()
    }

    fn scopes(&self, _: ScopeId) -> Result<Vec<String>> {
        unasked()
    }

    fn find_scope(&self, _: ScopeId, _: &str) -> Result<Option<ScopeId>> {
        unasked()
    }

    fn log(&self, _: OnRow<'_>) -> Result<()> {
        unasked()
    }

    fn all_entries(&self, _: OnEntry<'_>) -> Result<()> {
        unasked()
    }

    fn all_scopes(&self, _: &mut dyn FnMut(ScopeId, ScopeId, &str)) -> Result<()> {
        unasked()
    }
}

/// A write transaction.
struct Change {
    rows: Rows,
    /// What was to be written, so many times.
    written: u64,
    /// Rows at the savepoint.
    savepoint: usize,
}

impl Writes for Change {
    fn reads(&self) -> &dyn Reads {
        &self.rows
    }

    fn head(&self) -> Head {
        self.rows.head().unwrap_or_default()
    }

    fn last_ms(&self) -> i64 {
        self.rows.0.last().map_or(0, |row| row.time_ms)
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn is_intact(&self) -> bool {
        true
    }

    fn is_short_of_space(&self) -> bool {
        false
    }

    fn append(&mut self, row: &LogRow<'_>, created_ms: Option<i64>, _: Option<Newest>) -> Result<()> {
        self.written += 1;
        self.rows.0.push(Row {
            version: row.version,
            time_ms: row.time_ms,
            scope: row.scope,
            key: row.key.into(),
            operation: row.operation,
            prev: row.prev,
            flags: row.flags,
            value: row.value.into(),
            check: row.check,
            created_ms,
        });
        Ok(())
    }

    fn trim(&mut self, _: RangeInclusive<i64>) -> Result<i64> {
        unasked()
    }

    fn set_versions(&mut self, _: ScopeId, _: &str, _: i64) -> Result<()> {
        unasked()
    }

    fn add_trimmed(&mut self, _: ScopeId, _: Trimmed) -> Result<()> {
        unasked()
    }

    fn put_note(&mut self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    fn add_scope(&mut self, _: ScopeId, _: &str) -> Result<ScopeId> {
        unasked()
    }

    fn fork_scope(&mut self, _: ScopeId, _: ScopeId, _: &str) -> Result<ScopeId> {
        unasked()
    }

    fn add_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        self.written += 1;
        self.rows.1.entry((scope, name.to_owned())).or_insert(at);
        Ok(())
    }

    fn move_cursor(&mut self, scope: ScopeId, name: &str, at: Head) -> Result<()> {
        self.written += 1;
        if let Some(cursor) = self.rows.1.get_mut(&(scope, name.to_owned())).filter(|cursor| cursor.seq < at.seq) {
            *cursor = at;
        }
        Ok(())
    }

    fn drop_cursor(&mut self, scope: ScopeId, name: &str) -> Result<bool> {
        self.written += 1;
        Ok(self.rows.1.remove(&(scope, name.to_owned())).is_some())
    }

    fn savepoint(&mut self) -> Result<()> {
        self.savepoint = self.rows.0.len();
        Ok(())
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        self.rows.0.truncate(self.savepoint);
        Ok(())
    }
}

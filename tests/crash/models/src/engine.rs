//! A database in memory with the engine's promises and the model's steps: every state is kept, one number says which is the newest.

use crate::engine::{
    Engine, Head, LogRow, Newest, OnRow, Operation, Range, ReadWork, Reads, ScopeId, WriteWork, Writes,
};
use crate::{Error, ErrorKind, Result};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
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

/// The database.
pub(super) struct Shelf {
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

/// The log of one state.
#[derive(Clone, Default)]
struct Rows(Vec<Row>);

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
        Self {
            sharing,
            states: std::sync::Mutex::new(vec![Arc::default()]),
            newest: AtomicU64::new(0),
            writer: Mutex::new(false),
            closed: AtomicBool::new(false),
            file: Mutex::new(()),
            fate: std::sync::Mutex::new(Fate::Stored),
        }
    }

    /// Decides about the next commit.
    pub(super) fn decide(&self, fate: Fate) {
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }

    /// How many commits there are.
    pub(super) fn commits(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.now().0.iter().any(|row| *row.key == *key)
    }

    fn now(&self) -> Arc<Rows> {
        let newest = usize::try_from(self.commits()).unwrap_or(usize::MAX);
        Arc::clone(&self.states.lock().unwrap_or_else(PoisonError::into_inner)[newest])
    }

    /// Commits as the holder of the file's lock.
    fn commit(&self, work: WriteWork<'_>) -> Result<bool> {
        let mut change = Change { rows: (*self.now()).clone(), wrote: false, savepoint: 0 };
        work(&mut change)?;
        if !change.wrote {
            return Ok(false);
        }
        let fate = std::mem::replace(&mut *self.fate.lock().unwrap_or_else(PoisonError::into_inner), Fate::Stored);
        if fate != Fate::Lost {
            let newest = {
                let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
                states.push(Arc::new(change.rows));
                states.len() as u64 - 1
            };
            self.newest.store(newest, Ordering::Release);
        }
        if fate == Fate::Stored { Ok(true) } else { Err(Error::new(ErrorKind::CommitUnknown, "nobody knows")) }
    }

    /// Commits as another process.
    pub(super) fn commit_elsewhere(&self, work: WriteWork<'_>) -> Result<()> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit(work).map(drop)
    }

    fn ask(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let closed = || Err(Error::closed("the store"));
        if self.sharing == Sharing::Shared {
            return if self.closed.load(Ordering::Acquire) { closed() } else { work() };
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *writer { closed() } else { work() }
    }
}

impl Engine for Shelf {
    fn stamp(&self) -> u64 {
        if super::sabotaged("no-stamp") { 0 } else { self.commits() }
    }

    fn read(&self, work: ReadWork<'_>) -> Result<()> {
        self.ask(|| work(&Live(self)))
    }

    fn snapshot(&self, work: ReadWork<'_>) -> Result<()> {
        self.ask(|| work(&*self.now()))
    }

    fn write(&self, work: WriteWork<'_>) -> Result<Option<u64>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *writer && !super::sabotaged("write-after-close") {
            return Err(Error::closed("the store"));
        }
        let before = {
            let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn store_id(&self) -> &'static str {
        "a model"
    }

    fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }
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
            check: row.check,
        })
    }

    /// The newest row of every key that `wanted` accepts.
    fn find(&self, wanted: impl Fn(&Row) -> bool) -> BTreeMap<&str, Newest> {
        let rows = (1..).zip(&self.0).filter(|(_, row)| wanted(row));
        rows.map(|(seq, row)| {
            (&*row.key, Newest { seq, live: row.operation == Operation::Set, created_ms: row.created_ms })
        })
        .collect()
    }
}

impl Reads for Rows {
    fn head(&self) -> Result<Head> {
        let seq = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        Ok(Head { seq, version: self.0.last().map_or(0, |row| row.version) })
    }

    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        Ok(self.find(|row| row.scope == scope && *row.key == *key).into_values().next())
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

    fn entries(&self, range: &Range, each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()> {
        let inside = |row: &Row| {
            row.scope == range.scope && *row.key >= *range.from && range.to.as_ref().is_none_or(|to| *row.key < **to)
        };
        for (key, newest) in self.find(inside) {
            if each(key, newest)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, range: &Range) -> Result<u64> {
        let mut count = 0;
        self.entries(range, &mut |_, newest| {
            count += u64::from(newest.live);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    fn tail(&self, seq: i64, each: &mut dyn FnMut(ScopeId, &str) -> ControlFlow<()>) -> Result<()> {
        let rows = self.0.iter().skip(usize::try_from(seq).unwrap_or(0));
        let _ = rows.map(|row| each(row.scope, &row.key)).find(ControlFlow::is_break);
        Ok(())
    }

    fn scopes(&self, _: ScopeId) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn find_scope(&self, _: ScopeId, _: &str) -> Result<Option<ScopeId>> {
        Ok(None)
    }
}

/// Questions of which each sees the state of its own moment.
struct Live<'s>(&'s Shelf);

impl Reads for Live<'_> {
    fn head(&self) -> Result<Head> {
        self.0.now().head()
    }

    fn newest(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        self.0.now().newest(scope, key)
    }

    fn current(&self, scope: ScopeId, key: &str, on_row: OnRow<'_>) -> Result<Option<Newest>> {
        self.0.now().current(scope, key, on_row)
    }

    fn row(&self, seq: i64, on_row: OnRow<'_>) -> Result<bool> {
        self.0.now().row(seq, on_row)
    }

    fn entries(&self, range: &Range, each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()> {
        self.0.now().entries(range, each)
    }

    fn count(&self, range: &Range) -> Result<u64> {
        self.0.now().count(range)
    }

    fn tail(&self, seq: i64, each: &mut dyn FnMut(ScopeId, &str) -> ControlFlow<()>) -> Result<()> {
        self.0.now().tail(seq, each)
    }

    fn scopes(&self, parent: ScopeId) -> Result<Vec<String>> {
        self.0.now().scopes(parent)
    }

    fn find_scope(&self, parent: ScopeId, name: &str) -> Result<Option<ScopeId>> {
        self.0.now().find_scope(parent, name)
    }
}

/// A write transaction.
struct Change {
    rows: Rows,
    wrote: bool,
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

    fn is_short_of_space(&self) -> bool {
        false
    }

    fn append(&mut self, row: &LogRow<'_>, created_ms: Option<i64>, _: bool) -> Result<()> {
        self.wrote = true;
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

    fn add_scope(&mut self, _: ScopeId, _: &str) -> Result<ScopeId> {
        Err(Error::closed("a scope in a model"))
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

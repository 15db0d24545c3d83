//! Read connections, opened when first needed and lent to one caller at a time.

use crate::{Error, Result};
use rusqlite::Connection;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most read connections of one store.
const MOST: usize = 16;

/// The read connections of a store.
pub(super) struct Pool {
    inner: Mutex<Inner>,
    changed: Condvar,
    open: Box<dyn Fn() -> Result<Connection> + Send + Sync>,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Connection>,
    lent: usize,
    /// Callers for whom there was no connection. Waking nobody would still cost a system call.
    waiting: usize,
    closed: bool,
}

impl Pool {
    pub(super) fn new(open: impl Fn() -> Result<Connection> + Send + Sync + 'static) -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), open: Box::new(open) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with a connection of its own.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let lent = self.lend()?;
        match &lent.connection {
            Some(connection) => work(connection),
            None => Err(Error::closed("the store")),
        }
    }

    fn lend(&self) -> Result<Lent<'_>> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return Err(Error::closed("the store"));
            }
            if let Some(connection) = inner.idle.pop() {
                inner.lent += 1;
                return Ok(Lent { pool: self, connection: Some(connection) });
            }
            if inner.lent < MOST {
                inner.lent += 1;
                drop(inner);
                // From here on the loan is given back even if opening fails.
                let mut lent = Lent { pool: self, connection: None };
                lent.connection = Some((self.open)()?);
                return Ok(lent);
            }
            inner = self.wait(inner);
        }
    }

    fn wait<'p>(&'p self, mut inner: MutexGuard<'p, Inner>) -> MutexGuard<'p, Inner> {
        inner.waiting += 1;
        inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        inner.waiting -= 1;
        inner
    }

    /// Waits for every loan to end and closes all connections.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.changed.notify_all();
        while inner.lent > 0 {
            inner = self.wait(inner);
        }
        inner.idle.clear();
    }
}

struct Lent<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.lent -= 1;
        // One that was left inside a transaction, by a panic or a failure, would answer from the past.
        inner.idle.extend(self.connection.take().filter(Connection::is_autocommit));
        if inner.waiting > 0 {
            self.pool.changed.notify_all();
        }
    }
}

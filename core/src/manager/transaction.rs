//! `StateTransaction` and `TransactionId`: one transaction, as what reads and writes and as a number.

use super::persistent::PersistentStateManager;
use crate::key::Key;
use crate::scope::Budget;
use crate::{Document, Error, ErrorKind, Result, Scope, Transaction, limits};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// Names a transaction that was begun in this process; given once, never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(u64);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.0)
    }
}

/// The transactions that have not ended, by their ids. Whoever works with one keeps it: here are only the names.
static NAMED: LazyLock<Mutex<HashMap<TransactionId, Weak<Ongoing>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction that reads and writes; see [`Transaction`](crate::Transaction) for what it guarantees: it is serializable.
///
/// It works with the transaction that [`begin_transaction`](super::StateManager::begin_transaction) began under this id, so it makes no
/// difference whether it is ended here or by its id. Dropping the last one of an id rolls back.
///
/// ```
/// use llmspell_state_persistence::{PersistentStateManager, StateConfig, StateTransaction};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
/// let manager = PersistentStateManager::new(StateConfig::default()).await?;
/// let mut tx = StateTransaction::new(manager.begin_transaction().await?);
/// let visits = tx.get("visits").await?.and_then(|visits| visits.as_i64()).unwrap_or(0);
/// tx.set("visits".into(), json!(visits + 1));
/// tx.commit(&manager).await?;                        // a Conflict if somebody else has changed it meanwhile
/// # Ok(())
/// # }
/// ```
pub struct StateTransaction {
    id: TransactionId,
    /// Nothing when the id had ended before.
    ongoing: Option<Arc<Ongoing>>,
}

impl StateTransaction {
    /// The transaction of an id. If that has ended, every call is `Closed`.
    pub fn new(id: TransactionId) -> Self {
        let ongoing = lock(&NAMED).get(&id).and_then(Weak::upgrade);
        if let Some(begun) = ongoing.as_ref().and_then(|ongoing| ongoing.begun.upgrade()) {
            begun.remove(id);
        }
        Self { id, ongoing }
    }

    /// Its id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The value of a key as the transaction sees it: its own writes over the state of the moment at which it began.
    ///
    /// # Errors
    /// As [`Scope::get`](crate::Scope::get); what an earlier write failed with.
    pub async fn get(&self, key: &str) -> Result<Option<Value>> {
        let ongoing = self.ongoing()?;
        let turn = ongoing.turn().await?;
        if let Some(known) = ongoing.transaction.peek(key)? {
            return known.map(|entry| entry.document().parse()).transpose();
        }
        let key = key.to_owned();
        ongoing.read(turn, move |transaction| transaction.get(&key)).await
    }

    /// The keys that match a glob as the transaction sees them, sorted by bytes.
    ///
    /// # Errors
    /// As [`StateTransaction::get`].
    pub async fn keys(&self, pattern: &str) -> Result<Vec<String>> {
        let ongoing = self.ongoing()?;
        let turn = ongoing.turn().await?;
        let pattern = pattern.to_owned();
        ongoing.read(turn, move |transaction| transaction.keys(&*pattern)?.collect()).await
    }

    /// Sets a key when the transaction commits. A key or value that cannot be stored makes the next read, or the commit, fail.
    #[allow(clippy::needless_pass_by_value)] // as the specification has it
    pub fn set(&mut self, key: String, value: Value) {
        self.write(key, |ongoing| Document::from_value(&value, ongoing.transaction.max_value_bytes()).map(Some));
    }

    /// Deletes a key when the transaction commits. As [`StateTransaction::set`].
    pub fn delete(&mut self, key: String) {
        self.write(key, |_| Ok(None));
    }

    /// Executes all of it atomically.
    ///
    /// # Errors
    /// As [`commit_transaction`](super::StateManager::commit_transaction).
    pub async fn commit(self, manager: &PersistentStateManager) -> Result<()> {
        let ongoing = self.ongoing()?;
        ongoing.check_scope(self.id, manager.handle())?;
        ongoing.commit().await
    }

    /// Another one of the same transaction.
    pub(super) fn share(&self) -> Self {
        Self { id: self.id, ongoing: self.ongoing.clone() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ongoing.as_ref().is_none_or(|ongoing| lock(&ongoing.noted).ended)
    }

    /// Ends the transaction if it has not ended.
    pub(super) async fn abandon(self) {
        if let Some(ongoing) = &self.ongoing {
            // It may have ended.
            let _ = ongoing.rollback().await;
        }
    }

    fn ongoing(&self) -> Result<&Arc<Ongoing>> {
        self.ongoing.as_ref().ok_or_else(|| ended(self.id))
    }

    fn write(&self, key: String, value: impl FnOnce(&Ongoing) -> Result<Option<Document>>) {
        let Some(ongoing) = &self.ongoing else { return };
        let write = Key::parse(&key).and_then(|_| value(ongoing)).map(|value| (key, value));
        lock(&ongoing.noted).note(write);
    }
}

fn ended(id: TransactionId) -> Error {
    Error::new(ErrorKind::Closed, format!("{id} has ended, or its manager was dropped; begin a new one"))
}

/// The transaction of an id as a manager of that scope's store sees it.
pub(super) fn ongoing(id: TransactionId, scope: &Scope) -> Result<Arc<Ongoing>> {
    let ongoing = lock(&NAMED).get(&id).and_then(Weak::upgrade).ok_or_else(|| ended(id))?;
    ongoing.check_scope(id, scope)?;
    Ok(ongoing)
}

/// The transactions of a manager that nobody works with yet: otherwise nobody would keep them.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<HashMap<TransactionId, Arc<Ongoing>>>);

impl Begun {
    pub(super) fn add(self: &Arc<Self>, transaction: Transaction) -> Result<TransactionId> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut begun = lock(&self.0);
        if begun.len() >= limits::OPEN_TRANSACTIONS {
            return Err(Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "{} transactions were begun and neither used nor ended; commit them or roll them back",
                    limits::OPEN_TRANSACTIONS
                ),
            ));
        }
        let id = TransactionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let ongoing = Arc::new(Ongoing {
            id,
            transaction,
            noted: Mutex::default(),
            turn: Arc::default(),
            begun: Arc::downgrade(self),
        });
        lock(&NAMED).insert(id, Arc::downgrade(&ongoing));
        begun.insert(id, ongoing);
        Ok(id)
    }

    fn remove(&self, id: TransactionId) {
        // Dropped without the lock.
        let removed = lock(&self.0).remove(&id);
        drop(removed);
    }
}

/// A transaction that was begun.
#[derive(Debug)]
pub(super) struct Ongoing {
    id: TransactionId,
    /// Used by whoever has the turn, so that nobody waits for its lock.
    transaction: Transaction,
    noted: Mutex<Noted>,
    turn: Arc<tokio::sync::Mutex<()>>,
    begun: Weak<Begun>,
}

/// Writes since the last read.
#[derive(Debug, Default)]
struct Noted {
    writes: Vec<(String, Option<Document>)>,
    budget: Budget,
    /// The first write that failed.
    failed: Option<Error>,
    ended: bool,
}

impl Noted {
    fn note(&mut self, write: Result<(String, Option<Document>)>) {
        if self.ended || self.failed.is_some() {
            return;
        }
        let bytes = |(key, value): &(String, Option<Document>)| {
            key.len() + value.as_ref().map_or(0, |value| value.text().len())
        };
        match write.and_then(|write| self.budget.spend(bytes(&write)).map(|()| write)) {
            Ok(write) => self.writes.push(write),
            Err(error) => self.failed = Some(error),
        }
    }
}

impl Ongoing {
    fn check_scope(&self, id: TransactionId, scope: &Scope) -> Result<()> {
        if self.transaction.is_of(scope) {
            return Ok(());
        }
        Err(Error::invalid(format!("{id} was begun by a manager of another opening; end it there")))
    }

    /// Waits until no other call of this transaction is under way, and does what was noted.
    async fn turn(&self) -> Result<OwnedMutexGuard<()>> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (writes, failed) = {
            let mut noted = lock(&self.noted);
            // What the transaction holds already it counts by itself.
            noted.budget = Budget::default();
            (std::mem::take(&mut noted.writes), noted.failed.clone())
        };
        let done = failed.map_or(Ok(()), Err).and_then(|()| {
            writes.into_iter().try_for_each(|(key, value)| match value {
                Some(document) => self.transaction.set(&key, document),
                None => self.transaction.delete_unread(&key),
            })
        });
        if let Err(error) = done {
            lock(&self.noted).failed = Some(error.clone());
            return Err(error);
        }
        Ok(turn)
    }

    /// A read that may ask the database. The turn ends with it, even if nobody awaits it any more.
    async fn read<T: Send + 'static>(
        &self,
        turn: OwnedMutexGuard<()>,
        work: impl FnOnce(&Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let call = self.transaction.call(move |transaction| {
            let outcome = work(transaction);
            drop(turn);
            outcome
        });
        call.await
    }

    pub(super) async fn commit(&self) -> Result<()> {
        let turn = match self.turn().await {
            Ok(turn) => turn,
            Err(error) => {
                // Nothing of it is written; that it has ended before is not worth telling.
                let _ = self.rollback().await;
                return Err(error);
            }
        };
        self.end();
        let answer = self.transaction.commit_call()?.into_future();
        drop(turn);
        answer.await.map(drop)
    }

    pub(super) async fn rollback(&self) -> Result<()> {
        let _turn = Arc::clone(&self.turn).lock_owned().await;
        self.end();
        self.transaction.rollback()
    }

    /// From now on it is known to those who have it only.
    fn end(&self) {
        let writes = {
            let mut noted = lock(&self.noted);
            noted.ended = true;
            std::mem::take(&mut noted.writes)
        };
        drop(writes);
        if let Some(begun) = self.begun.upgrade() {
            begun.remove(self.id);
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        lock(&NAMED).remove(&self.id);
    }
}

impl fmt::Debug for StateTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTransaction")
            .field("id", &self.id.0)
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

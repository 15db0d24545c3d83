//! `PersistentStateManager`, the asynchronous API over an open store.

use super::transaction::{Begun, StateTransaction, TransactionId};
use super::{StateManager, transaction};
use crate::retry::Retry;
use crate::{Error, ErrorKind, Result, Scope, State, StateConfig, limits};
use async_trait::async_trait;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The state of one store, asynchronously; see [`StateManager`]. Clones share one opening.
///
/// ```
/// use llmspell_state_persistence::{PersistentStateManager, StateConfig};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
/// let manager = PersistentStateManager::new(StateConfig::default()).await?;    // StateConfig::at("agent.db") keeps it in a file
/// manager.set("user:123", json!({"name": "Alice", "score": 100})).await?;
/// manager.transact(|mut tx| async move {                                      // runs again when another writer was faster
///     let mut user = tx.get("user:123").await?.unwrap_or_default();
///     user["score"] = json!(90);
///     tx.set("user:123".into(), user);
///     Ok(())
/// }).await?;
/// assert_eq!(manager.get("user:123").await?.unwrap()["score"], 90);
/// manager.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PersistentStateManager {
    state: State,
    scope: Scope,
    begun: Arc<Begun>,
}

impl PersistentStateManager {
    /// Opens the store as the settings say.
    ///
    /// # Errors
    /// As [`State::with_config`].
    pub async fn new(config: StateConfig) -> Result<Self> {
        let state = told(|tell| State::open_then(config, tell)).await?;
        Ok(Self { scope: (*state).clone(), state, begun: Arc::default() })
    }

    /// The handle of the same opening whose calls wait, and whose [`calls`](Scope::calls) and [watches](Scope::watch) can be
    /// awaited: everything that [`StateManager`] does not have.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Closes this opening; doing so again does nothing. What is under way ends first, and is answered.
    ///
    /// Dropping the last handle closes too, but makes the thread that drops it wait, and cannot tell about a failure.
    pub async fn close(&self) -> Result<()> {
        told(|tell| self.state.close_then(tell)).await
    }

    /// See [`StateManager::initialize`].
    pub async fn initialize(&self, config: StateConfig) -> Result<()> {
        let state = self.state.clone();
        self.scope.call(move |_| state.check_config(config)).await
    }

    /// See [`StateManager::get`].
    pub async fn get(&self, key: &str) -> Result<Option<Value>> {
        self.scope.calls().entry(key)?.await?.map(|entry| entry.document().parse()).transpose()
    }

    /// See [`StateManager::set`].
    pub async fn set(&self, key: &str, value: Value) -> Result<()> {
        self.scope.calls().set(key, value)?.await.map(drop)
    }

    /// See [`StateManager::delete`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.scope.calls().delete(key)?.await.map(drop)
    }

    /// See [`StateManager::keys`].
    pub async fn keys(&self, pattern: &str) -> Result<Vec<String>> {
        let pattern = pattern.to_owned();
        self.scope.call(move |scope| scope.keys(&*pattern)?.collect()).await
    }

    /// See [`StateManager::clear`].
    pub async fn clear(&self) -> Result<()> {
        self.scope.calls().clear("*")?.await.map(drop)
    }

    /// See [`StateManager::scope`].
    pub async fn scope(&self, scope: &str) -> Result<Box<dyn StateManager>> {
        let name = scope.to_owned();
        let scope = self.scope.call(move |scope| scope.scope(&name)).await?;
        Ok(Box::new(Self { scope, ..self.clone() }))
    }

    /// See [`StateManager::begin_transaction`].
    pub async fn begin_transaction(&self) -> Result<TransactionId> {
        let transaction = self.scope.calls().transaction()?.await?;
        // In the same step as the answer: a future that is dropped before has begun nothing.
        self.begun.add(transaction)
    }

    /// See [`StateManager::commit_transaction`].
    pub async fn commit_transaction(&self, id: TransactionId) -> Result<()> {
        transaction::ongoing(id, &self.scope)?.commit().await
    }

    /// See [`StateManager::rollback_transaction`].
    pub async fn rollback_transaction(&self, id: TransactionId) -> Result<()> {
        transaction::ongoing(id, &self.scope)?.rollback().await
    }

    /// Runs `f` in a transaction and commits it; rolls back when `f` fails; runs `f` again on a conflict.
    ///
    /// It runs again at once: whoever caused the conflict is done, and of those that commit together one succeeds.
    ///
    /// # Errors
    /// What `f` or the commit fails with; `Conflict` after [`limits::ATTEMPTS`] attempts.
    pub async fn transact<T, F>(&self, mut f: impl FnMut(StateTransaction) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            let mine = StateTransaction::new(self.begin_transaction().await?);
            let failed = match f(mine.share()).await {
                // An f that has committed or rolled back by itself has had its way.
                Ok(done) if mine.has_ended() => return Ok(done),
                Ok(done) => match mine.commit(self).await {
                    Ok(()) => return Ok(done),
                    Err(error) => error,
                },
                Err(error) => {
                    // f may have kept a transaction of its own, which must not go on.
                    mine.abandon().await;
                    error
                }
            };
            if failed.kind() != ErrorKind::Conflict || retry.pause().is_none() {
                return Err(failed);
            }
        }
    }

    pub(super) fn handle(&self) -> &Scope {
        &self.scope
    }
}

#[async_trait]
impl StateManager for PersistentStateManager {
    async fn initialize(&self, config: StateConfig) -> Result<()> {
        Self::initialize(self, config).await
    }

    async fn get(&self, key: &str) -> Result<Option<Value>> {
        Self::get(self, key).await
    }

    async fn set(&self, key: &str, value: Value) -> Result<()> {
        Self::set(self, key, value).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        Self::delete(self, key).await
    }

    async fn keys(&self, pattern: &str) -> Result<Vec<String>> {
        Self::keys(self, pattern).await
    }

    async fn clear(&self) -> Result<()> {
        Self::clear(self).await
    }

    async fn scope(&self, scope: &str) -> Result<Box<dyn StateManager>> {
        Self::scope(self, scope).await
    }

    async fn begin_transaction(&self) -> Result<TransactionId> {
        Self::begin_transaction(self).await
    }

    async fn commit_transaction(&self, id: TransactionId) -> Result<()> {
        Self::commit_transaction(self, id).await
    }

    async fn rollback_transaction(&self, id: TransactionId) -> Result<()> {
        Self::rollback_transaction(self, id).await
    }
}

/// Awaits what is told to a callback.
async fn told<T: Send + 'static>(start: impl FnOnce(Tell<T>)) -> Result<T> {
    let (tell, told) = oneshot::channel();
    start(Box::new(move |outcome| {
        // Whoever gave up waiting is told nothing.
        let _ = tell.send(outcome);
    }));
    told.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Io,
            "a bug in llmspell_state, please report it: nobody told how opening or closing went",
        ))
    })
}

/// The callback.
type Tell<T> = Box<dyn FnOnce(Result<T>) + Send>;

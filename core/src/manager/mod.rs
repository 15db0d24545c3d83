//! The asynchronous API of the specification: `StateManager`, and what implements it over [`State`](crate::State).

mod persistent;
mod scoped;
mod transaction;

pub use persistent::PersistentStateManager;
pub use scoped::ScopedState;
pub use transaction::{StateTransaction, TransactionId};

use crate::{Result, StateConfig};
use async_trait::async_trait;
use serde_json::Value;

/// Persistent state, asynchronously. What can fail fails by kind as the same verb of [`Scope`](crate::Scope) does.
///
/// No call blocks the thread that polls it, on whatever runtime. Dropping a future before it is done never leaves half of
/// anything; a write may still be made.
///
/// Backups, metrics, encryption and tenants are not part of it yet, since the store does not have them.
///
/// ```
/// use llmspell_state_persistence::{PersistentStateManager, StateConfig, StateManager};
/// use serde_json::json;
///
/// async fn remember(memory: &dyn StateManager) -> Result<(), llmspell_state_persistence::Error> {
///     memory.set("user:123", json!({"name": "Alice"})).await?;
///     assert_eq!(memory.keys("user:*").await?, ["user:123"]);
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
/// let manager = PersistentStateManager::new(StateConfig::default()).await?;
/// remember(&manager).await?;
/// remember(&*manager.scope("tenant:a").await?).await?;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait StateManager: Send + Sync {
    /// Makes sure that the store is open with these settings.
    ///
    /// # Errors
    /// `Invalid` names a setting that is another than the one in force; `Closed`.
    async fn initialize(&self, config: StateConfig) -> Result<()>;

    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Value>>;

    /// Sets a key.
    async fn set(&self, key: &str, value: Value) -> Result<()>;

    /// Deletes a key, if it is there.
    async fn delete(&self, key: &str) -> Result<()>;

    /// The keys that match a glob, sorted by bytes.
    async fn keys(&self, pattern: &str) -> Result<Vec<String>>;

    /// Deletes every key, in one commit. Those of scopes below are not touched.
    async fn clear(&self) -> Result<()>;

    /// A scope below this one: isolated from it and from every other scope, whatever their names and keys.
    async fn scope(&self, scope: &str) -> Result<Box<dyn StateManager>>;

    /// Begins a transaction; [`StateTransaction::new`] makes of its id what reads and writes.
    ///
    /// # Errors
    /// `QuotaExceeded` when [`limits::OPEN_TRANSACTIONS`](crate::limits::OPEN_TRANSACTIONS) that nobody works with have neither been
    /// committed nor rolled back.
    async fn begin_transaction(&self) -> Result<TransactionId>;

    /// Commits a transaction.
    ///
    /// # Errors
    /// `Conflict` when something that it read has changed since it began, or what a write of it failed with, and nothing is
    /// written; `Closed` when it has ended before.
    async fn commit_transaction(&self, id: TransactionId) -> Result<()>;

    /// Gives a transaction up.
    ///
    /// # Errors
    /// `Closed` when it has ended before.
    async fn rollback_transaction(&self, id: TransactionId) -> Result<()>;
}

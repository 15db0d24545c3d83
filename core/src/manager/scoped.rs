//! `ScopedState`, a scope of any manager as a manager.

use super::{StateManager, TransactionId};
use crate::{Result, StateConfig};
use async_trait::async_trait;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The scope of a name below `parent`, which is asked for it when it is first used. Keys stay what they are.
///
/// ```
/// use llmspell_state_persistence::{PersistentStateManager, ScopedState, StateConfig, StateManager};
/// use serde_json::json;
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
/// let manager = Arc::new(PersistentStateManager::new(StateConfig::default()).await?);
/// let scoped = ScopedState::new(manager.clone(), "tenant:a".into());
/// scoped.set("config", json!({"theme": "dark"})).await?;
/// assert_eq!(scoped.keys("*").await?, ["config"]);
/// assert_eq!(manager.keys("*").await?, [""; 0]);
/// # Ok(())
/// # }
/// ```
pub struct ScopedState {
    parent: Arc<dyn StateManager>,
    scope: String,
    inner: OnceCell<Box<dyn StateManager>>,
}

impl ScopedState {
    /// A view of the scope `scope` of `parent`.
    pub fn new(parent: Arc<dyn StateManager>, scope: String) -> Self {
        Self { parent, scope, inner: OnceCell::new() }
    }

    async fn inner(&self) -> Result<&dyn StateManager> {
        self.inner.get_or_try_init(|| self.parent.scope(&self.scope)).await.map(|inner| &**inner)
    }
}

#[async_trait]
impl StateManager for ScopedState {
    async fn initialize(&self, config: StateConfig) -> Result<()> {
        self.parent.initialize(config).await
    }

    async fn get(&self, key: &str) -> Result<Option<Value>> {
        self.inner().await?.get(key).await
    }

    async fn set(&self, key: &str, value: Value) -> Result<()> {
        self.inner().await?.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner().await?.delete(key).await
    }

    async fn keys(&self, pattern: &str) -> Result<Vec<String>> {
        self.inner().await?.keys(pattern).await
    }

    async fn clear(&self) -> Result<()> {
        self.inner().await?.clear().await
    }

    async fn scope(&self, scope: &str) -> Result<Box<dyn StateManager>> {
        self.inner().await?.scope(scope).await
    }

    async fn begin_transaction(&self) -> Result<TransactionId> {
        self.inner().await?.begin_transaction().await
    }

    async fn commit_transaction(&self, id: TransactionId) -> Result<()> {
        self.inner().await?.commit_transaction(id).await
    }

    async fn rollback_transaction(&self, id: TransactionId) -> Result<()> {
        self.inner().await?.rollback_transaction(id).await
    }
}

impl fmt::Debug for ScopedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedState").field("scope", &self.scope).finish_non_exhaustive()
    }
}

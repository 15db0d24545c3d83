//! Durable, shared, transactional state for scripts that run language-model agents.
//!
//! ```
//! use llmspell_state_persistence::State;
//! use serde_json::json;
//!
//! let state = State::in_memory()?;                       // State::open("agent.db")? keeps it in a file
//! state.set("user:123", json!({"name": "Alice", "score": 100}))?;
//! for item in state.items("user:*")? {
//!     let (key, user) = item?;
//!     println!("{key} {}", user.value()["name"]);
//! }
//! state.transact(|tx| {                                  // runs again when another writer was faster
//!     let mut user = tx.get("user:123")?.unwrap_or_default();
//!     user["score"] = json!(90);
//!     tx.set("user:123", user)
//! })?;
//! let tenant = state.scope("tenant:a")?;                 // isolated from state and from every other scope
//! tenant.set("config", json!({"theme": "dark"}))?;
//! assert_eq!(state.get("config")?, None);
//! # Ok::<(), llmspell_state_persistence::Error>(())
//! ```
//!
//! # Asynchronously
//!
//! Verbs whose answer need not be waited for are [`Calls`]: [`Call::then`] tells a callback. With the feature `tokio`, a default one, a
//! call is also awaited (`state.calls().set("a", 1)?.await?`), a watch too ([`Watch::recv`]), and [`PersistentStateManager`] is the
//! asynchronous [`StateManager`]. They work on any runtime and never block the thread that polls them.

#[cfg(feature = "tokio")]
mod answer;
mod calls;
mod change;
mod clock;
mod config;
mod engine;
mod entry;
mod error;
mod fork;
#[cfg(feature = "harness")]
#[doc(hidden)]
pub mod harness;
#[cfg(not(feature = "harness"))]
#[allow(unreachable_pub)]
mod harness;
mod history;
#[cfg(feature = "harness")]
#[doc(hidden)]
pub mod inside;
mod interrupt;
pub mod key;
pub mod limits;
mod listing;
#[cfg(feature = "tokio")]
mod manager;
mod merge;
#[cfg(models)]
#[path = "../../tests/crash/models/src/mod.rs"]
pub mod models;
mod origin;
mod retention;
mod retry;
mod scope;
mod session;
mod state;
mod store;
mod sync;
mod transaction;
mod ttl;
mod usage;
pub mod value;
mod verify;
mod watch;

#[cfg(feature = "tokio")]
pub use answer::Answer;
pub use calls::{Call, Calls};
pub use change::Change;
pub use config::{StateConfig, SyncMode};
pub use engine::Operation;
pub use entry::Entry;
pub use error::{Error, ErrorKind, Result};
pub use fork::generation as fork_generation;
pub use history::{Difference, Differences, Moment, Revision, Undo, Undone, View};
pub use interrupt::interruptible;
pub use listing::{Items, Keys, Select};
#[cfg(feature = "tokio")]
pub use manager::{PersistentStateManager, ScopedState, StateManager, StateTransaction, TransactionId};
pub use merge::{MergeConflict, Merged, Merging, Resolution};
pub use origin::Origin;
pub use retention::RetentionPolicy;
pub use retry::Retry;
pub use scope::Scope;
pub use state::State;
pub use transaction::Transaction;
pub use ttl::{SetOptions, Ttl};
pub use usage::{Cleanup, Usage};
pub use value::{Document, IntoDocument, Number};
pub use verify::Verification;
pub use watch::{NamedWatch, Waiter, Watch, WatchOptions};

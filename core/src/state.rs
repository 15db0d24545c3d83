//! `State`, an open store seen from its root scope.

use crate::calls::guarded;
use crate::engine::ROOT;
use crate::session::Session;
use crate::store::lane;
use crate::{Result, Scope, StateConfig, Verification};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// An open store. It is its own root [`Scope`], with the store's affairs beside: settings, identity, closing.
///
/// Clones share one opening: closing one closes all, and so every scope, transaction and iterator that came from it.
/// A store that is opened again in the same process is shared; each opening is closed by itself. Dropping the last handle
/// closes, too, but cannot tell about a failure.
#[derive(Debug, Clone)]
pub struct State {
    root: Scope,
}

impl State {
    /// Opens the store in the file at `path`, with the default settings; makes it if it is missing.
    ///
    /// # Errors
    /// `Invalid` for a path that cannot be a store's, `UnknownFormat` for a file that is something else, `PermissionDenied`,
    /// `Busy` when another process uses the store exclusively.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with_config(StateConfig::at(path.as_ref()))
    }

    /// Opens a store of its own in memory, gone when it is closed.
    pub fn in_memory() -> Result<Self> {
        Self::with_config(StateConfig::default())
    }

    /// Opens a store as the settings say.
    ///
    /// # Errors
    /// As [`State::open`]; `Invalid` also for settings out of range, or other than those with which this process has the
    /// file open already; `NotFound` when the file is missing and `create` is off.
    pub fn with_config(config: StateConfig) -> Result<Self> {
        let session = Arc::new(Session::open(config)?);
        Ok(Self { root: Scope::new(session, ROOT, "", 0) })
    }

    /// [`State::with_config`] without waiting: tells `then` how it went, in another thread unless there is none.
    pub fn open_then(config: StateConfig, then: impl FnOnce(Result<Self>) + Send + 'static) {
        lane::elsewhere("llmspell-open", move || then(guarded(|| Self::with_config(config))));
    }

    /// [`State::close`] without waiting: tells `then` how it went, in another thread unless there is none.
    pub fn close_then(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        if self.is_closed() {
            return then(self.close());
        }
        let state = self.clone();
        lane::elsewhere("llmspell-close", move || then(guarded(|| state.close())));
    }

    /// Closes this opening; doing so again does nothing. Every acknowledged write is stored already; what other threads are
    /// doing ends first.
    pub fn close(&self) -> Result<()> {
        self.root.session().close()
    }

    /// The settings in force; the path is absolute.
    pub fn config(&self) -> &StateConfig {
        self.root.session().config()
    }

    /// Refuses settings other than those of this opening.
    #[cfg(feature = "tokio")]
    pub(crate) fn check_config(&self, config: StateConfig) -> Result<()> {
        self.root.session().check_config(config)
    }

    /// The store's identity, a UUID that it keeps wherever its file goes.
    pub fn store_id(&self) -> &str {
        self.root.session().store_id()
    }

    /// Reads everything that the store holds and tells what is wrong with it: every change against its check and the change
    /// before it, every key against its newest change, and the tables and indexes of the database.
    ///
    /// It reads one snapshot, whatever is written meanwhile; until it is done, the log cannot be emptied and grows. A store of one connection (in
    /// memory, or exclusive) waits.
    ///
    /// # Errors
    /// Damage is no error but a [`Verification`] with problems; `Io` when the files cannot be read.
    pub fn verify(&self) -> Result<Verification> {
        self.root.store()?.verify()
    }

    /// The version of the newest commit of any process; 0 in a new store.
    pub fn version(&self) -> Result<u64> {
        Ok(self.root.store()?.head()?.version.cast_unsigned())
    }
}

impl Deref for State {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.root
    }
}

//! What a scope takes, and cleaning up at once.

use crate::engine::SETTINGS;
use crate::{Result, Scope, State};
use serde::Serialize;

/// What a scope takes, with the scopes inside it; made by [`Scope::usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Keys that exist.
    pub keys: u64,
    /// Bytes in which their values are stored; what a fork has not changed counts in the scope that it was forked from.
    pub live_bytes: u64,
    /// Bytes in which values of the past are stored: replaced, deleted, expired.
    pub history_bytes: u64,
    /// Changes in the log; those from before a fork are its origin's.
    pub changes: u64,
}

/// What [`State::cleanup`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cleanup {
    /// Keys whose time had run out and of which nobody had told yet.
    pub expired: u64,
    /// Changes that were taken out of the log.
    pub trimmed: u64,
}

impl Scope {
    /// What this scope takes, with the scopes inside it. It looks at every change in the log: about a second for a million.
    pub fn usage(&self) -> Result<Usage> {
        let store = self.store()?;
        let mut usage = Usage::default();
        for scope in store.below(self.id())?.into_keys().filter(|scope| *scope != SETTINGS) {
            let taken = store.taken(scope)?;
            usage.keys += taken.keys;
            usage.live_bytes += taken.live_bytes;
            usage.history_bytes += taken.past_bytes;
            usage.changes += taken.changes;
        }
        Ok(usage)
    }
}

impl State {
    /// Does at once what is done in the background: tells of keys whose time has run out, and takes out of the log what the
    /// [retention policies](crate::RetentionPolicy) do not keep, to the letter. The file does not shrink; its space is used again.
    pub fn cleanup(&self) -> Result<Cleanup> {
        self.store()?.cleanup()
    }
}

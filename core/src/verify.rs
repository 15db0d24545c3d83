//! What `verify` found.

use serde::Serialize;

/// The outcome of [`State::verify`](crate::State::verify): what was looked at, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verification {
    /// The newest commit that was looked at.
    pub version: u64,
    /// Changes in the log, each compared with its check and with the change before it of the same key.
    pub changes: u64,
    /// Keys that exist, in all scopes.
    pub keys: u64,
    /// Scopes, the root included.
    pub scopes: u64,
    /// One text for each thing that is wrong, at most 100; none in a sound store.
    pub problems: Vec<String>,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

//! One change of one key, as the log has it.

use crate::{Document, Operation, Origin};

/// A change of a key, told by a [`Watch`](crate::Watch).
#[derive(Debug, Clone)]
pub struct Change {
    /// The version of its commit; all changes of one commit share it.
    pub version: u64,
    /// The key.
    pub key: String,
    /// What happened to it.
    pub operation: Operation,
    /// The value it got; `None` for a deletion.
    pub value: Option<Document>,
    /// The value it had; `None` when it was not there, or when the log does not go back so far.
    pub old: Option<Document>,
    /// When, in milliseconds since the Unix epoch, UTC.
    pub time_ms: i64,
    /// Who made it, in the course of what, and why.
    pub origin: Origin,
    /// Whether it is the last change of its commit that the watch tells of. Whoever keeps a version to go on from keeps it
    /// then.
    pub ends_commit: bool,
    pub(crate) seq: i64,
}

impl Change {
    /// Bytes of memory that it holds.
    pub(crate) fn footprint(&self) -> usize {
        let bytes = |document: &Option<Document>| document.as_ref().map_or(0, Document::footprint);
        size_of::<Self>() + self.key.len() + bytes(&self.value) + bytes(&self.old)
    }
}

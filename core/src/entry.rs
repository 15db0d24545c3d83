//! A stored value with what is known of it.

use crate::Document;
use crate::store::delta::Base;
use std::any::Any;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A value with its version and times. Immutable: a change makes a new entry.
#[derive(Debug)]
pub struct Entry {
    document: Document,
    pub(crate) seq: i64,
    version: u64,
    created_ms: i64,
    updated_ms: i64,
    expires_ms: Option<i64>,
    /// What the next value of the key may be stored as a difference from.
    base: Option<Box<Base>>,
    reads: AtomicU8,
    attached_bytes: AtomicUsize,
    attachment: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Entry {
    pub(crate) fn new(
        document: Document,
        seq: i64,
        version: i64,
        created_ms: i64,
        updated_ms: i64,
        expires_ms: Option<i64>,
    ) -> Self {
        Self {
            document,
            seq,
            version: version.cast_unsigned(),
            created_ms,
            updated_ms,
            expires_ms,
            base: None,
            reads: AtomicU8::new(0),
            attached_bytes: AtomicUsize::new(0),
            attachment: OnceLock::new(),
        }
    }

    /// The same entry, of a key that came into being at another time than this value.
    pub(crate) fn with_created(mut self, created_ms: Option<i64>) -> Self {
        self.created_ms = created_ms.unwrap_or(self.created_ms);
        self
    }

    /// The same entry, with what the next value may differ from.
    pub(crate) fn with_base(mut self, base: Option<Box<Base>>) -> Self {
        self.base = base;
        self
    }

    pub(crate) fn base(&self) -> Option<&Base> {
        self.base.as_deref()
    }

    /// A value that a transaction will write: its version is 0, its times are as if it were committed now.
    pub(crate) fn pending(document: Document, now_ms: i64, expires_ms: Option<i64>) -> Self {
        Self::new(document, 0, 0, now_ms, now_ms, expires_ms)
    }

    /// The same value, which is to expire at another time.
    pub(crate) fn touched(&self, expires_ms: Option<i64>) -> Self {
        let Self { seq, version, created_ms, updated_ms, .. } = *self;
        Self::new(self.document.clone(), seq, version.cast_signed(), created_ms, updated_ms, expires_ms)
    }

    /// The value as a JSON tree; binary in its `{"$binary": …}` form.
    pub fn value(&self) -> serde_json::Value {
        self.document.to_value()
    }

    pub(crate) fn into_document(self) -> Document {
        self.document
    }

    /// The value in its stored form.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The version of the commit that wrote it; 0 while it is a transaction's own, uncommitted write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the key came into being (again), in milliseconds since the Unix epoch, UTC.
    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// When this value was written, in milliseconds since the Unix epoch, UTC.
    pub fn updated_ms(&self) -> i64 {
        self.updated_ms
    }

    /// When it expires, in milliseconds since the Unix epoch, UTC; `None` for never.
    pub fn expires_ms(&self) -> Option<i64> {
        self.expires_ms
    }

    /// Counts reads up to 255 and tells how many there were before this one, so that a binding prepares only what is read
    /// again.
    pub fn note_read(&self) -> u8 {
        let before = self.reads.load(Ordering::Relaxed);
        // Two threads may count one read between them; nothing depends on the exact number.
        self.reads.store(before.saturating_add(1), Ordering::Relaxed);
        before
    }

    /// What a binding has kept here with [`Entry::attach`].
    pub fn attachment(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.attachment.get().map(AsRef::as_ref)
    }

    /// Keeps `object`, such as a value ready for the language, as long as the entry lives; the first one stays.
    /// Its `bytes` count against the cache's budget. It is dropped outside every lock of this crate.
    pub fn attach(&self, object: Box<dyn Any + Send + Sync>, bytes: usize) {
        if self.attachment.set(object).is_ok() {
            self.attached_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of memory that this entry holds.
    pub(crate) fn footprint(&self) -> usize {
        let base = self.base.as_deref().map_or(0, Base::footprint);
        size_of::<Self>() + self.document.footprint() + base + self.attached_bytes.load(Ordering::Relaxed)
    }
}

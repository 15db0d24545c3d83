//! The calls of a transaction: made at once where that only notes something, else by a thread of the core. A scope's are the
//! core's own [`Calls`](core::Calls).

use crate::transaction;
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Call, Document, Entry, Number, SetOptions, Transaction, Ttl};
use std::sync::Arc;

/// A call, or what came of it.
pub(super) enum Made<T> {
    Known(core::Result<T>),
    Call(Call<T>),
}

impl<T: Send + 'static> From<Call<T>> for Made<T> {
    fn from(call: Call<T>) -> Self {
        call.now().map_or_else(Self::Call, Self::Known)
    }
}

/// The verbs of a transaction, by their names.
#[derive(Clone, Copy)]
pub(super) struct Notes<'t>(pub(super) &'t Transaction);

impl Notes<'_> {
    /// Does what asks the database in a thread of the core.
    #[allow(clippy::unnecessary_wraps)] // one of several
    fn ask<T: Send + 'static>(
        self,
        work: impl FnOnce(&Transaction) -> core::Result<T> + Send + 'static,
    ) -> core::Result<Made<T>> {
        Ok(self.0.call(work).into())
    }

    /// Does what only notes something at once, unless another thread is reading for this transaction.
    fn note<T: Send + 'static>(
        self,
        work: impl FnOnce(&Transaction) -> core::Result<T> + Send + 'static,
    ) -> core::Result<Made<T>> {
        if self.0.is_idle() { Ok(Made::Known(work(self.0))) } else { self.ask(work) }
    }

    /// Does what reads one key, at once when the key is known.
    fn one<T: Send + 'static>(
        self,
        key: &str,
        work: impl FnOnce(&Transaction, &str) -> core::Result<T> + Send + 'static,
    ) -> core::Result<Made<T>> {
        let is_known = self.0.peek(key)?.is_some();
        let key = key.to_owned();
        let work = move |transaction: &Transaction| work(transaction, &key);
        if is_known { self.note(work) } else { self.ask(work) }
    }

    pub(super) fn entry(self, key: &str) -> core::Result<Made<Option<Arc<Entry>>>> {
        self.one(key, Transaction::entry)
    }

    pub(super) fn set_with(self, key: &str, document: Document, options: SetOptions) -> core::Result<Made<()>> {
        if options.if_version.is_some() {
            return self.one(key, move |transaction, key| transaction.set_with(key, document, options));
        }
        let key = key.to_owned();
        self.note(move |transaction| transaction.set_with(&key, document, options))
    }

    pub(super) fn set_many(self, pairs: Vec<(String, Document)>, ttl: Ttl) -> core::Result<Made<()>> {
        self.note(move |transaction| transaction.set_many_with(pairs, ttl))
    }

    /// Sets a key as `modify` does once its function has made a new value.
    pub(super) fn replace(self, key: &str, document: Document) -> core::Result<Made<Arc<Entry>>> {
        self.one(key, move |transaction, key| transaction.modify(key, |_| Ok::<_, core::Error>(document)))
    }

    pub(super) fn touch(self, key: &str, ttl: Ttl) -> core::Result<Made<bool>> {
        self.one(key, move |transaction, key| transaction.touch(key, ttl))
    }

    pub(super) fn set_default(self, key: &str, document: Document) -> core::Result<Made<Document>> {
        self.one(key, move |transaction, key| {
            let found = transaction::set_default(transaction, key, &document)?;
            Ok(found.map_or(document, |entry| entry.document().clone()))
        })
    }

    pub(super) fn take(self, key: &str) -> core::Result<Made<Option<Arc<Entry>>>> {
        self.one(key, transaction::take)
    }

    pub(super) fn delete(self, key: &str) -> core::Result<Made<bool>> {
        self.one(key, Transaction::delete)
    }

    pub(super) fn delete_if(self, key: &str, if_version: u64) -> core::Result<Made<bool>> {
        self.one(key, move |transaction, key| transaction.delete_if(key, if_version))
    }

    pub(super) fn clear(self, pattern: &str) -> core::Result<Made<u64>> {
        let pattern = pattern.to_owned();
        self.ask(move |transaction| transaction.clear(&pattern))
    }

    pub(super) fn increment(self, key: &str, by: Number) -> core::Result<Made<Number>> {
        self.one(key, move |transaction, key| transaction.increment(key, by))
    }

    pub(super) fn append(self, key: &str, item: Document) -> core::Result<Made<u64>> {
        self.one(key, move |transaction, key| transaction.append(key, item))
    }

    pub(super) fn merge(self, key: &str, patch: Document) -> core::Result<Made<Document>> {
        self.one(key, move |transaction, key| transaction.merge(key, patch))
    }

    pub(super) fn commit(self) -> core::Result<Made<u64>> {
        if self.0.is_idle() { self.0.commit_call().map(Made::from) } else { self.ask(Transaction::commit) }
    }

    pub(super) fn rollback(self) -> core::Result<Made<()>> {
        self.note(Transaction::rollback)
    }
}

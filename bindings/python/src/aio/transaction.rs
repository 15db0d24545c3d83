//! `AsyncTransaction`: the verbs of a transaction for an event loop.

use super::completions::{Completions, Give, known, later};
use super::give;
use super::listing::{AsyncItems, AsyncKeys, AsyncValues, Source};
use crate::argument::{self, After, Amount, Hook, Key, Keys, Limit, Members, Name, Version};
use crate::error::to_py;
use crate::{transaction, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::Document;
use pyo3::prelude::*;

/// A transaction; `llmspell_state.aio.Transaction` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncTransaction {
    handle: core::Transaction,
}

impl AsyncTransaction {
    pub(super) fn give(py: Python<'_>, handle: core::Transaction) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { handle })?.into_any())
    }

    fn document(&self, object: &Bound<'_, PyAny>, hook: Option<&Hook>) -> PyResult<Document> {
        value::document(object, hook.map(|hook| hook.0.bind(object.py())), self.handle.max_value_bytes())
    }

    /// Does what asks the database in a thread of the core.
    fn ask<'py, T: Send + 'static>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        work: impl FnOnce(&core::Transaction) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> PyResult<()> {
        later(to, future, Ok(self.handle.call(work)), give)
    }

    /// Does what only notes something at once, unless another thread is reading for this transaction.
    fn note<'py, T: Send + 'static>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        work: impl FnOnce(&core::Transaction) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> PyResult<()> {
        if self.handle.is_idle() {
            return known(&future, give(to.py(), work(&self.handle).map_err(to_py)?)?);
        }
        self.ask(to, future, work, give)
    }

    /// Does what reads one key, at once when the key is known.
    fn one<'py, T: Send + 'static>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        work: impl FnOnce(&core::Transaction, &str) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> PyResult<()> {
        let is_known = self.handle.peek(key.0).map_err(to_py)?.is_some();
        let key = key.0.to_owned();
        let work = move |handle: &core::Transaction| work(handle, &key);
        if is_known { self.note(to, future, work, give) } else { self.ask(to, future, work, give) }
    }
}

#[pymethods]
impl AsyncTransaction {
    /// The value of a key, or `default` when it is missing; `unknown` when only the database could tell.
    #[pyo3(signature = (key: "str", default: "object", unknown: "object") -> "typing.Any")]
    fn peek<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        default: Bound<'py, PyAny>,
        unknown: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.handle.peek(key.0).map_err(to_py)? {
            Some(Some(entry)) => value::read_entry(py, &entry),
            Some(None) => Ok(default),
            None => Ok(unknown),
        }
    }

    /// The value of a key, or `MISSING`.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
    fn get<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        self.one(to, future, key, core::Transaction::entry, give::found)
    }

    /// The value of a key with its version and times, or `None`.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
    fn entry<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        self.one(to, future, key, core::Transaction::entry, give::entry)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None")]
    fn exists<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        self.one(to, future, key, core::Transaction::exists, give::truth)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None")]
    fn get_many<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, keys: Keys) -> PyResult<()> {
        let keys = keys.into_strings();
        self.ask(to, future, move |tx| tx.get_many(&keys).map(|found| (keys, found)), give::members)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]", key: "str", value: "object", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn set<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        if let Some(version) = if_version {
            return self.one(to, future, key, move |tx, key| tx.set_if(key, document, version.0), give::nothing);
        }
        let key = key.0.to_owned();
        self.note(to, future, move |tx| tx.set(&key, document), give::nothing)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]", mapping: "collections.abc.Mapping[str, typing.Any]", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn set_many<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        mapping: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let hook = default.as_ref().map(|hook| hook.0.bind(to.py()));
        let mut members = Members::of(mapping, hook, self.handle.max_value_bytes())?;
        let pairs: Vec<(String, Document)> = members.take().map(|(key, value)| (key.to_owned(), value)).collect();
        self.note(to, future, move |tx| tx.set_many(pairs), give::nothing)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str", if_version: "int | None") -> "None")]
    fn delete<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        if_version: Option<Version>,
    ) -> PyResult<()> {
        let delete = move |tx: &core::Transaction, key: &str| match if_version {
            None => tx.delete(key),
            Some(version) => tx.delete_if(key, version.0),
        };
        self.one(to, future, key, delete, give::truth)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None")]
    fn clear<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<()> {
        let pattern = pattern.to_owned();
        self.ask(to, future, move |tx| tx.clear(&pattern), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None")]
    fn count<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<()> {
        let pattern = pattern.to_owned();
        self.ask(to, future, move |tx| tx.count(&pattern), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", by: "float") -> "None")]
    fn increment<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        by: Amount,
    ) -> PyResult<()> {
        self.one(to, future, key, move |tx, key| tx.increment(key, by.0), give::number)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", key: "str", item: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn append<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        item: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(item, default.as_ref())?;
        self.one(to, future, key, move |tx, key| tx.append(key, document), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", patch: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn merge<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        patch: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(patch, default.as_ref())?;
        self.one(to, future, key, move |tx, key| tx.merge(key, document), give::document)
    }

    /// The value of a key, which is `value` when it was missing.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn setdefault<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        let set_default = move |tx: &core::Transaction, key: &str| {
            let found = transaction::set_default(tx, key, &document)?;
            Ok(found.map_or(document, |entry| entry.document().clone()))
        };
        self.one(to, future, key, set_default, give::document)
    }

    /// Removes a key and gives its value, or `MISSING`.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
    fn take<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        self.one(to, future, key, transaction::take, give::found)
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys")]
    fn keys(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncKeys {
        let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncKeys::new(Source::Transaction(self.handle.clone()), move || handle.keys(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems")]
    fn items(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncItems {
        let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncItems::new(Source::Transaction(self.handle.clone()), move || handle.items(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues")]
    fn values(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncValues {
        let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncValues::new(Source::Transaction(self.handle.clone()), move || handle.items(select))
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncTransaction]", name: "str") -> "None")]
    fn scope<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, name: Name<'_>) -> PyResult<()> {
        let name = name.0.to_owned();
        self.ask(to, future, move |tx| tx.scope(&name), Self::give)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]") -> "None")]
    fn commit<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, self.handle.commit_call(), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn rollback<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.note(to, future, core::Transaction::rollback, give::nothing)
    }

    /// Ends the transaction, if it has not ended, without telling how that went. Does not wait.
    fn abandon(&self) {
        let abandon = |tx: &core::Transaction| if tx.has_ended() { Ok(()) } else { tx.rollback() };
        if self.handle.is_idle() {
            let _ = abandon(&self.handle); // in a fork the block is the parent's to end
        } else {
            self.handle.call(abandon).then(drop);
        }
    }

    /// Whether it was committed, rolled back, or failed to commit.
    #[getter]
    fn ended(&self) -> bool {
        self.handle.has_ended()
    }

    /// Whether it was neither committed nor rolled back, and its store is open.
    #[getter]
    fn active(&self) -> bool {
        self.handle.is_active()
    }
}

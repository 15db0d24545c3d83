//! `AsyncTransaction`: the verbs of a transaction for an event loop.

use super::completions::{Completions, later};
use super::give;
use super::listing::{AsyncItems, AsyncKeys, AsyncValues, Source};
use super::notes::{Made, Notes};
use super::verbs::{reading_verbs, verbs};
use crate::argument::{self, After, Amount, Hook, Key, Keys, Limit, Members, Name, Version};
use crate::error::to_py;
use crate::ttl::ToLive;
use crate::{ttl, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Document, Entry};
use pyo3::prelude::*;
use std::sync::Arc;

/// A transaction; `llmspell_state.aio.Transaction` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncTransaction {
    handle: core::Transaction,
}

impl AsyncTransaction {
    pub(super) fn give(py: Python<'_>, handle: core::Transaction) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { handle })?.into_any())
    }

    fn calls(&self) -> Notes<'_> {
        Notes(&self.handle)
    }

    fn find(&self, key: &str) -> core::Result<Made<Option<Arc<Entry>>>> {
        self.calls().entry(key)
    }

    fn set_default(&self, key: &str, document: Document) -> core::Result<Made<Document>> {
        self.calls().set_default(key, document)
    }

    fn taken(&self, key: &str) -> core::Result<Made<Option<Arc<Entry>>>> {
        self.calls().take(key)
    }
}

verbs! { AsyncTransaction {
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]", key: "str", value: "object", ttl: "float | datetime.timedelta | None", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    #[allow(clippy::too_many_arguments)] // as users give them
    fn set<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        ttl: Option<ToLive>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        let options = ttl::options(ttl, if_version);
        later(to, future, self.calls().set_with(key.0, document, options), give::nothing)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]", mapping: "collections.abc.Mapping[str, typing.Any]", ttl: "float | datetime.timedelta | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn set_many<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        mapping: &Bound<'py, PyAny>,
        ttl: Option<ToLive>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let hook = default.as_ref().map(|hook| hook.0.bind(to.py()));
        let mut members = Members::of(mapping, hook, self.handle.max_value_bytes())?;
        let pairs: Vec<(String, Document)> = members.take().map(|(key, value)| (key.to_owned(), value)).collect();
        later(to, future, self.calls().set_many(pairs, ttl::told(ttl)), give::nothing)
    }

    /// Sets a key that lives as long as it did, and gives the new value.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn replace<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        later(to, future, self.calls().replace(key.0, document), give::written)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncTransaction]", name: "str") -> "None")]
    fn scope<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, name: Name<'_>) -> PyResult<()> {
        let name = name.0.to_owned();
        later(to, future, Ok(self.handle.call(move |tx| tx.scope(&name))), Self::give)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]") -> "None")]
    fn commit<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, self.calls().commit(), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn rollback<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, self.calls().rollback(), give::nothing)
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

    /// Whether it was committed, rolled back, or failed to commit. While a thread reads for it, it was not.
    #[getter]
    fn ended(&self) -> bool {
        self.handle.is_idle() && self.handle.has_ended()
    }

    /// Whether it was neither committed nor rolled back, and its store is open.
    #[getter]
    fn active(&self) -> bool {
        !self.handle.is_idle() || self.handle.is_active()
    }
} }

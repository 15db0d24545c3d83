//! `AsyncView`: a scope as it was at a moment of the past, for an event loop.

use super::completions::{Completions, Give, later};
use super::give;
use super::listing::{AsyncItems, AsyncKeys, AsyncValues, Source};
use crate::argument::{self, After, Key, Keys, Limit, Name};
use llmspell_state_persistence as core;
use pyo3::prelude::*;

/// A view; `llmspell_state.aio.View` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncView {
    view: core::View,
    /// Whose threads read.
    scope: core::Scope,
}

impl AsyncView {
    pub(super) fn give(py: Python<'_>, (scope, view): (core::Scope, core::View)) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { view, scope })?.into_any())
    }

    fn ask<'py, T: Send + 'static>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        work: impl FnOnce(&core::View) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> PyResult<()> {
        let view = self.view.clone();
        later(to, future, Ok(self.scope.call(move |_| work(&view))), give)
    }

    fn source(&self) -> Source {
        Source::Scope(self.scope.clone())
    }
}

#[pymethods]
impl AsyncView {
    /// The value of a key, or `MISSING`.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
    fn get<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        let key = key.0.to_owned();
        self.ask(to, future, move |view| view.entry(&key), give::found)
    }

    /// The value of a key with its version and times, or `None`.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
    fn entry<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        let key = key.0.to_owned();
        self.ask(to, future, move |view| view.entry(&key), give::entry)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None")]
    fn exists<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
        let key = key.0.to_owned();
        self.ask(to, future, move |view| view.exists(&key), give::truth)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None")]
    fn get_many<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, keys: Keys) -> PyResult<()> {
        let keys = keys.into_strings();
        self.ask(to, future, move |view| view.get_many(&keys).map(|found| (keys, found)), give::members)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None")]
    fn count<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<()> {
        let pattern = pattern.to_owned();
        self.ask(to, future, move |view| view.count(&pattern), give::count)
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys")]
    fn keys(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncKeys {
        let (view, select) = (self.view.clone(), argument::select(pattern, after, limit, reverse));
        AsyncKeys::new(self.source(), move || view.keys(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems")]
    fn items(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncItems {
        let (view, select) = (self.view.clone(), argument::select(pattern, after, limit, reverse));
        AsyncItems::new(self.source(), move || view.items(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues")]
    fn values(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncValues {
        let (view, select) = (self.view.clone(), argument::select(pattern, after, limit, reverse));
        AsyncValues::new(self.source(), move || view.items(select))
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncView]", name: "str") -> "None")]
    fn scope<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, name: Name<'_>) -> PyResult<()> {
        let (name, scope) = (name.0.to_owned(), self.scope.clone());
        self.ask(to, future, move |view| view.scope(&name).map(|inner| (scope, inner)), Self::give)
    }

    /// The version of the newest commit that it shows.
    #[getter]
    fn version(&self) -> u64 {
        self.view.version()
    }
}

//! `AsyncView`: a scope as it was at a moment of the past, for an event loop.

use super::completions::{Give, later};
use super::give;
use super::listing::{AsyncItems, AsyncKeys, AsyncValues, Source};
use crate::argument::{self, After, Key, Keys, Limit, Name};
use llmspell_state_persistence as core;
use pyo3::prelude::*;

type Future<'py> = PyResult<Bound<'py, PyAny>>;

/// A view; `llmspell_state.aio.View` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncView {
    view: core::View,
    /// Whose threads read.
    scope: core::Scope,
}

impl AsyncView {
    pub(super) fn give(py: Python<'_>, (scope, view): (core::Scope, core::View)) -> Future<'_> {
        Ok(Bound::new(py, Self { view, scope })?.into_any())
    }

    fn ask<'py, T: Send + 'static>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(&core::View) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> Future<'py> {
        let view = self.view.clone();
        later(py, Ok(self.scope.call(move |_| work(&view))), give)
    }

    fn source(&self) -> Source {
        Source::Scope(self.scope.clone())
    }
}

#[pymethods]
impl AsyncView {
    /// The value of a key, or `MISSING`.
    #[pyo3(signature = (key: "str") -> "asyncio.Future[typing.Any]")]
    fn get<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        let key = key.0.to_owned();
        self.ask(py, move |view| view.entry(&key), give::found)
    }

    /// The value of a key with its version and times, or `None`.
    #[pyo3(signature = (key: "str") -> "asyncio.Future[typing.Any]")]
    fn entry<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        let key = key.0.to_owned();
        self.ask(py, move |view| view.entry(&key), give::entry)
    }

    #[pyo3(signature = (key: "str") -> "asyncio.Future[bool]")]
    fn exists<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        let key = key.0.to_owned();
        self.ask(py, move |view| view.exists(&key), give::truth)
    }

    #[pyo3(signature = (keys: "collections.abc.Iterable[str]") -> "asyncio.Future[dict[str, typing.Any]]")]
    fn get_many<'py>(&self, py: Python<'py>, keys: Keys) -> Future<'py> {
        let keys = keys.into_strings();
        self.ask(py, move |view| view.get_many(&keys).map(|found| (keys, found)), give::members)
    }

    #[pyo3(signature = (pattern: "str") -> "asyncio.Future[int]")]
    fn count<'py>(&self, py: Python<'py>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> Future<'py> {
        let pattern = pattern.to_owned();
        self.ask(py, move |view| view.count(&pattern), give::count)
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

    #[pyo3(signature = (name: "str") -> "asyncio.Future[AsyncView]")]
    fn scope<'py>(&self, py: Python<'py>, name: Name<'_>) -> Future<'py> {
        let (name, scope) = (name.0.to_owned(), self.scope.clone());
        self.ask(py, move |view| view.scope(&name).map(|inner| (scope, inner)), Self::give)
    }

    /// The version of the newest commit that it shows.
    #[getter]
    fn version(&self) -> u64 {
        self.view.version()
    }
}

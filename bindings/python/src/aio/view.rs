//! `AsyncView`: a scope as it was at a moment of the past, for an event loop.

use super::completions::{Completions, later};
use super::give;
use super::listing::{AsyncItems, AsyncKeys, AsyncValues, Source};
use super::verbs::reading_verbs;
use crate::argument::{self, After, Key, Keys, Limit, Name};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Call, Entry};
use pyo3::prelude::*;
use std::sync::Arc;

/// A view; `llmspell_state.aio.View` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncView {
    handle: core::View,
}

impl AsyncView {
    pub(super) fn give(py: Python<'_>, handle: core::View) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { handle })?.into_any())
    }

    #[allow(clippy::unnecessary_wraps)] // as for the other handles
    fn find(&self, key: &str) -> core::Result<Call<Option<Arc<Entry>>>> {
        let key = key.to_owned();
        Ok(self.handle.call(move |view| view.entry(&key)))
    }
}

reading_verbs! { AsyncView {
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncView]", name: "str") -> "None")]
    fn scope<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, name: Name<'_>) -> PyResult<()> {
        let name = name.0.to_owned();
        later(to, future, Ok(self.handle.call(move |view| view.scope(&name))), Self::give)
    }

    /// The version of the newest commit that it shows.
    #[getter]
    fn version(&self) -> u64 {
        self.handle.version()
    }
} }

//! `AsyncWatch`: a stream of changes for an event loop.

use super::completions::{Completions, later, pending};
use super::give;
use crate::change;
use llmspell_state_persistence as core;
use pyo3::prelude::*;

/// A stream of changes; `llmspell_state.aio.Watch` is what users see.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncWatch {
    watch: core::Watch,
}

impl AsyncWatch {
    pub(super) fn give(py: Python<'_>, watch: core::Watch) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { watch })?.into_any())
    }
}

#[pymethods]
impl AsyncWatch {
    /// The next change if it was fetched already, else `None`.
    #[pyo3(signature = () -> "typing.Any")]
    fn pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.watch.pop().map(|change| change::fields(py, &change)).transpose()
    }

    /// Fetches what was committed already.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]") -> "None")]
    fn fetch<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, Ok(self.watch.fetch_call()), give::truth)
    }

    /// Resolved when there is a change, or the watch was closed.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn ready<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) {
        let watch = self.watch.clone();
        pending(to, future, give::nothing, move |reply| watch.ready(|ready| reply.send(ready)));
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn save<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, Ok(self.watch.save_call()), give::nothing)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn close<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) {
        let watch = self.watch.clone();
        pending(to, future, give::nothing, move |reply| watch.close_then(|closed| reply.send(closed)));
    }

    /// The last version whose changes, and all before them, are done.
    #[getter]
    fn version(&self) -> u64 {
        self.watch.version()
    }

    /// The name under which the store keeps how far it has come, or `None`.
    #[getter]
    fn name(&self) -> Option<&str> {
        self.watch.name()
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.watch.is_closed()
    }
}

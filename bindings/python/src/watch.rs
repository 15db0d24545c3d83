//! `Watch`: the changes of a scope, one after the other.

use crate::argument::Timeout;
use crate::call::detached;
use crate::change;
use crate::error::unless_forked;
use llmspell_state_persistence as core;
use pyo3::prelude::*;

/// A stream of changes; `llmspell_state.Watch` is what users see.
#[pyclass(frozen, subclass, weakref, module = "llmspell_state._native")]
pub(crate) struct Watch {
    watch: core::Watch,
}

impl Watch {
    pub(crate) fn new(watch: core::Watch) -> Self {
        Self { watch }
    }
}

#[pymethods]
impl Watch {
    /// Another handle of the same stream: each change goes to one of them.
    #[new]
    #[pyo3(signature = (of: "Watch"))]
    fn py_new(of: &Bound<'_, Self>) -> Self {
        Self::new(of.get().watch.clone())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.next(py, None)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        error: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if error.is_none() { self.close(py) } else { unless_forked(py.detach(|| self.watch.close())) }
    }

    /// The next change, waiting for it at most `timeout` seconds, or as long as it takes without one; `None` when none came,
    /// or when the watch was closed.
    #[pyo3(signature = (timeout: "float | None" = None) -> "typing.Any")]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<Timeout>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = detached(py, || match timeout.and_then(|timeout| timeout.0) {
            None => self.watch.next(),
            Some(most) => self.watch.next_timeout(most),
        })?;
        next.map(|change| change::fields(py, &change)).transpose()
    }

    /// Counts every change that was given as done and, for a watch with a name, keeps that in the store.
    fn save(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.watch.save())
    }

    /// Ends the watch, for those who wait, too. Closing it again does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.watch.close())
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

//! `State`: an open store. It is its root scope, with the store's own affairs beside.

use crate::argument::Hook;
use crate::call::detached;
use crate::config;
use crate::error::{self, unless_forked};
use crate::scope::Scope;
use crate::{change, merge, transaction, usage, value, verification};
use llmspell_state_persistence as core;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// An open store; `llmspell_state.State` adds keyword arguments and Python's mapping protocol.
#[pyclass(frozen, subclass, extends = Scope, module = "llmspell_state._native")]
pub(crate) struct State {
    state: core::State,
}

/// Imports what calls give back or raise: finalizers that run when the interpreter is taken apart can import nothing.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    error::prepare(py)?;
    change::prepare(py)?;
    merge::prepare(py)?;
    transaction::prepare(py)?;
    value::prepare(py)
}

#[pymethods]
impl State {
    /// Opens the store at `path` (in memory without one) with settings by name.
    #[new]
    #[pyo3(signature = (path: "str | os.PathLike[str] | None", options: "dict[str, typing.Any]", default: "collections.abc.Callable[[typing.Any], object] | None"))]
    fn py_new(
        py: Python<'_>,
        path: Option<&Bound<'_, PyAny>>,
        options: &Bound<'_, PyDict>,
        default: Option<Hook>,
    ) -> PyResult<PyClassInitializer<Self>> {
        prepare(py)?;
        let config = config::from_py(path, options)?;
        let state = detached(py, || core::State::with_config(config))?;
        let root = core::Scope::clone(&state);
        Ok(PyClassInitializer::from(Scope::new(root, default)).add_subclass(Self { state }))
    }

    /// Closes the store; closing it again does nothing.
    ///
    /// Scopes, transactions, views and watches of it raise `ClosedError` from then on, also for who waits.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.state.close())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        error: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if error.is_none() { self.close(py) } else { unless_forked(py.detach(|| self.state.close())) }
    }

    /// Reads everything that the store holds and tells what is wrong with it.
    ///
    /// Every change is compared with its check and with the change before it, every key with its newest change, and the
    /// tables and indexes of the database with each other. It reads one moment, whatever is written meanwhile.
    #[pyo3(signature = () -> "typing.Any")]
    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        verification::fields(py, detached(py, || self.state.verify())?)
    }

    /// Does at once what is done in the background: tells of keys that have expired, and trims the past.
    #[pyo3(signature = () -> "typing.Any")]
    fn cleanup<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        usage::cleanup(py, detached(py, || self.state.cleanup())?)
    }

    /// The version of the newest commit, of any process.
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || self.state.version())
    }

    /// The store's identity: the text of a UUID, the same wherever its file goes.
    #[getter]
    fn store_id(&self) -> String {
        self.state.store_id().to_owned()
    }

    /// The store's file, or `None` in memory.
    #[getter]
    fn path(&self) -> Option<PathBuf> {
        self.state.config().persistence_path.clone()
    }

    /// The settings in force, as a new `dict`.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        config::to_py_dict(py, self.state.config())
    }
}

//! `AsyncState`: an open store for an event loop.

use super::completions::{Completions, later, pending};
use super::give;
use super::scope::AsyncScope;
use crate::{config, state, usage, verification};
use llmspell_state_persistence as core;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// An open store; `llmspell_state.aio.State` is what users see.
#[pyclass(frozen, extends = AsyncScope, module = "llmspell_state._native")]
pub(crate) struct AsyncState {
    state: core::State,
}

/// A store on its way to who opened it. If nobody is there any more, it is closed where that keeps no loop waiting.
struct Opened(Option<core::State>);

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.close_then(drop);
        }
    }
}

fn give_state(py: Python<'_>, mut opened: Opened) -> PyResult<Bound<'_, PyAny>> {
    let Some(state) = opened.0.take() else { return give::nothing(py, ()) };
    let root = AsyncScope::new(core::Scope::clone(&state));
    Ok(Bound::new(py, PyClassInitializer::from(root).add_subclass(AsyncState { state }))?.into_any())
}

#[pymethods]
impl AsyncState {
    /// Opens the store at `path` (in memory without one) with settings by name.
    #[staticmethod]
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncState]", path: "str | os.PathLike[str] | None", options: "dict[str, typing.Any]") -> "None")]
    fn open<'py>(
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        path: Option<&Bound<'py, PyAny>>,
        options: &Bound<'py, PyDict>,
    ) -> PyResult<()> {
        state::prepare(to.py())?;
        let config = config::from_py(path, options)?;
        pending(to, future, give_state, move |reply| {
            core::State::open_then(config, |opened| reply.send(opened.map(|state| Opened(Some(state)))));
        });
        Ok(())
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
    fn close<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) {
        let state = self.state.clone();
        pending(to, future, give::nothing, move |reply| state.close_then(|closed| reply.send(closed)));
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn verify<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let state = self.state.clone();
        later(to, future, Ok(self.state.call(move |_| state.verify())), verification::fields)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn cleanup<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let state = self.state.clone();
        later(to, future, Ok(self.state.call(move |_| state.cleanup())), usage::cleanup)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]") -> "None")]
    fn version<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let state = self.state.clone();
        later(to, future, Ok(self.state.call(move |_| state.version())), give::count)
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

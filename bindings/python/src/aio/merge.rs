//! `AsyncMerge`: a merge for an event loop, which asks for answers between its attempts.

use super::completions::{Completions, later};
use super::give;
use super::scope::AsyncScope;
use crate::argument::Hook;
use crate::merge;
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Merged, Merging};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A merge under way.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncMerge {
    ours: core::Scope,
    theirs: core::Scope,
    /// Not there during an attempt: the loop may have given that up and ask.
    merging: Arc<Mutex<Option<Merging>>>,
}

fn lock(merging: &Mutex<Option<Merging>>) -> MutexGuard<'_, Option<Merging>> {
    merging.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give_merged(py: Python<'_>, merged: Option<Merged>) -> PyResult<Bound<'_, PyAny>> {
    merged.map_or_else(|| give::nothing(py, ()), |merged| merge::merged(py, merged))
}

#[pymethods]
impl AsyncMerge {
    #[new]
    #[pyo3(signature = (ours: "AsyncScope", theirs: "AsyncScope"))]
    fn py_new(ours: &Bound<'_, AsyncScope>, theirs: &Bound<'_, AsyncScope>) -> Self {
        let (ours, theirs) = (ours.get().handle().clone(), theirs.get().handle().clone());
        Self { merging: Arc::new(Mutex::new(Some(ours.merging(&theirs)))), ours, theirs }
    }

    /// Merges, and leaves conflicts alone; gives what `Merged` is made of.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn leave<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let theirs = self.theirs.clone();
        later(to, future, Ok(self.ours.call(move |ours| ours.merge_from(&theirs))), merge::merged)
    }

    /// Merges with the answers so far and gives what `Merged` is made of; `None`, and nothing is merged, while there are
    /// conflicts that have none.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn attempt<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let merging = Arc::clone(&self.merging);
        let attempt = move |_: &core::Scope| {
            let Some(mut under_way) = lock(&merging).take() else { return Ok(None) };
            let merged = under_way.attempt();
            *lock(&merging) = Some(under_way);
            merged
        };
        later(to, future, Ok(self.ours.call(attempt)), give_merged)
    }

    /// The next conflict that has no answer, or `None`.
    #[pyo3(signature = () -> "typing.Any")]
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = lock(&self.merging).as_ref().and_then(|merging| merging.open().cloned());
        next.map(|next| merge::conflict(py, &next)).transpose()
    }

    /// Answers that conflict.
    #[pyo3(signature = (answer: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn answer(&self, answer: &Bound<'_, PyAny>, default: Option<Hook>) -> PyResult<()> {
        let resolution = merge::resolution(answer, default.as_ref(), self.ours.max_value_bytes())?;
        if let Some(merging) = lock(&self.merging).as_mut() {
            merging.answer(resolution);
        }
        Ok(())
    }
}

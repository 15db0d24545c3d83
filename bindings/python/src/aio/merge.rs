//! `AsyncMerge`: a merge for an event loop, which asks for answers between its attempts.

use super::completions::{Completions, later};
use super::give;
use super::scope::AsyncScope;
use crate::argument::Hook;
use crate::merge;
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Merge, MergeConflict, Merged, Resolution};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A merge under way.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct AsyncMerge {
    ours: core::Scope,
    theirs: core::Scope,
    progress: Arc<Mutex<Progress>>,
}

#[derive(Default)]
struct Progress {
    answers: Vec<(MergeConflict, Option<Resolution>)>,
    /// What has no answer yet.
    open: VecDeque<MergeConflict>,
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn give_merged(py: Python<'_>, merged: Option<Merged>) -> PyResult<Bound<'_, PyAny>> {
    merged.map_or_else(|| give::nothing(py, ()), |merged| merge::merged(py, merged))
}

#[pymethods]
impl AsyncMerge {
    #[new]
    #[pyo3(signature = (ours: "AsyncScope", theirs: "AsyncScope"))]
    fn py_new(ours: &Bound<'_, AsyncScope>, theirs: &Bound<'_, AsyncScope>) -> Self {
        Self { ours: ours.get().handle().clone(), theirs: theirs.get().handle().clone(), progress: Arc::default() }
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
        let (theirs, progress) = (self.theirs.clone(), Arc::clone(&self.progress));
        let attempt = move |ours: &core::Scope| {
            // Not locked meanwhile: the loop may have given this up and want the lock.
            let answers = std::mem::take(&mut lock(&progress).answers);
            let merge = ours.merge_answered(&theirs, &answers);
            let mut progress = lock(&progress);
            progress.answers = answers;
            Ok(match merge? {
                Merge::Done(merged) => Some(merged),
                Merge::Open(conflicts) => {
                    progress.open = conflicts.into();
                    None
                }
            })
        };
        later(to, future, Ok(self.ours.call(attempt)), give_merged)
    }

    /// The next conflict that has no answer, or `None`.
    #[pyo3(signature = () -> "typing.Any")]
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = lock(&self.progress).open.front().cloned();
        next.map(|next| merge::conflict(py, &next)).transpose()
    }

    /// Answers that conflict.
    #[pyo3(signature = (answer: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn answer(&self, answer: &Bound<'_, PyAny>, default: Option<Hook>) -> PyResult<()> {
        let resolution = merge::resolution(answer, default.as_ref(), self.ours.max_value_bytes())?;
        let mut progress = lock(&self.progress);
        if let Some(conflict) = progress.open.pop_front() {
            progress.answers.push((conflict, resolution));
        }
        Ok(())
    }
}

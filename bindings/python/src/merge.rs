//! Merging: conflicts on their way to `llmspell_state.MergeConflict`, and what becomes of them on the way back.

use crate::argument::Hook;
use crate::change::{missing, optional};
use crate::value;
use llmspell_state_persistence::{MergeConflict, Merged, Resolution};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// What users see: the class of conflicts, and the answers that are no values.
struct Names {
    conflict: Py<PyAny>,
    ours: Py<PyAny>,
    theirs: Py<PyAny>,
    delete: Py<PyAny>,
    leave: Py<PyAny>,
}

fn names(py: Python<'_>) -> PyResult<&Names> {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_try_init(py, || {
        let module = py.import("llmspell_state.merge")?;
        let name = |name: &str| module.getattr(name).map(Bound::unbind);
        Ok(Names {
            conflict: name("MergeConflict")?,
            ours: name("OURS")?,
            theirs: name("THEIRS")?,
            delete: name("DELETE")?,
            leave: name("LEAVE")?,
        })
    })
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    names(py).map(drop)
}

/// A `MergeConflict`, with values of its own.
pub(crate) fn conflict<'py>(py: Python<'py>, conflict: &MergeConflict) -> PyResult<Bound<'py, PyAny>> {
    let side = |value| optional(py, value);
    names(py)?.conflict.bind(py).call1((
        PyTuple::new(py, &conflict.path)?,
        &conflict.key,
        side(conflict.base.as_ref())?,
        side(conflict.ours.as_ref())?,
        side(conflict.theirs.as_ref())?,
    ))
}

/// What becomes of a conflict; nothing leaves it alone. `MISSING` is how a conflict tells a side that is not there, so to answer
/// it is to delete.
pub(crate) fn resolution(
    answer: &Bound<'_, PyAny>,
    hook: Option<&Hook>,
    max_bytes: usize,
) -> PyResult<Option<Resolution>> {
    let py = answer.py();
    let names = names(py)?;
    if answer.is(&names.leave) {
        return Ok(None);
    }
    Ok(Some(if answer.is(&names.ours) {
        Resolution::Ours
    } else if answer.is(&names.theirs) {
        Resolution::Theirs
    } else if answer.is(&names.delete) || answer.is(&missing(py)?) {
        Resolution::Delete
    } else {
        Resolution::Value(value::document(answer, hook.map(|hook| hook.0.bind(py)), max_bytes)?)
    }))
}

/// What `Merged` is made of.
pub(crate) fn merged(py: Python<'_>, merged: Merged) -> PyResult<Bound<'_, PyAny>> {
    (merged.version, merged.keys, places(py, merged.conflicts)?).into_bound_py_any(py)
}

/// Keys with the names of the scopes that lead to each.
pub(crate) fn places(py: Python<'_>, places: Vec<(Vec<String>, String)>) -> PyResult<Bound<'_, PyTuple>> {
    let places = places.into_iter().map(|(scopes, key)| Ok((PyTuple::new(py, scopes)?, key)));
    PyTuple::new(py, places.collect::<PyResult<Vec<_>>>()?)
}

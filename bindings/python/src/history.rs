//! What is told of the past, as instances of the classes of `llmspell_state.history`.

use crate::change::optional;
use llmspell_state_persistence::{Difference, Revision, Undone};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// What makes objects of the classes.
struct Classes {
    revision: Py<PyAny>,
    difference: Py<PyAny>,
    undone: Py<PyAny>,
}

fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let module = py.import("llmspell_state.history")?;
        Ok(Classes {
            revision: module.getattr("Revision")?.getattr("_from_store")?.unbind(),
            difference: module.getattr("Difference")?.unbind(),
            undone: module.getattr("Undone")?.unbind(),
        })
    })
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    classes(py).map(drop)
}

/// A revision with a value of its own. The time goes as milliseconds; the class makes a date of it.
pub(crate) fn revision<'py>(py: Python<'py>, revision: &Revision) -> PyResult<Bound<'py, PyAny>> {
    classes(py)?.revision.bind(py).call1((
        revision.version,
        revision.operation.name(),
        optional(py, revision.value.as_ref())?,
        revision.time_ms,
        &revision.origin.actor,
        &revision.origin.run,
        &revision.origin.reason,
    ))
}

/// A difference with values of its own.
pub(crate) fn difference<'py>(py: Python<'py>, difference: &Difference) -> PyResult<Bound<'py, PyAny>> {
    classes(py)?.difference.bind(py).call1((
        &difference.key,
        optional(py, difference.from.as_ref())?,
        optional(py, difference.to.as_ref())?,
    ))
}

/// What came of taking changes back.
pub(crate) fn undone(py: Python<'_>, undone: Undone) -> PyResult<Bound<'_, PyAny>> {
    let refused = undone.refused.into_iter().map(|(scopes, key)| Ok((PyTuple::new(py, scopes)?, key)));
    let refused = PyTuple::new(py, refused.collect::<PyResult<Vec<_>>>()?)?;
    classes(py)?.undone.bind(py).call1((undone.version, undone.keys, refused))
}

//! Changes on their way to `llmspell_state.Change`.

use crate::value;
use llmspell_state_persistence::{Change, Document};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What stands for a value that is not there.
pub(crate) fn missing(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static MISSING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let missing =
        MISSING.get_or_try_init(py, || py.import("llmspell_state.change")?.getattr("MISSING").map(Bound::unbind));
    Ok(missing?.bind(py).clone())
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    missing(py).map(drop)
}

/// A new object of a value, or what stands for one that is not there.
pub(crate) fn optional<'py>(py: Python<'py>, value: Option<&Document>) -> PyResult<Bound<'py, PyAny>> {
    value.map_or_else(|| missing(py), |value| value::read(py, value))
}

/// What `Change` is made of, with values of its own. The time goes as milliseconds; the class makes a date of it.
pub(crate) fn fields<'py>(py: Python<'py>, change: &Change) -> PyResult<Bound<'py, PyAny>> {
    (
        &change.key,
        change.operation.name(),
        optional(py, change.value.as_ref())?,
        optional(py, change.old.as_ref())?,
        change.version,
        change.time_ms,
        &change.origin.actor,
        &change.origin.run,
        &change.origin.reason,
        change.ends_commit,
    )
        .into_bound_py_any(py)
}

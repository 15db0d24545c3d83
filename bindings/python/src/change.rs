//! Changes as instances of `llmspell_state.Change`.

use crate::value;
use llmspell_state_persistence::{Change, Document};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What makes changes of the class, and what stands for a value that is not there.
struct Classes {
    from_store: Py<PyAny>,
    missing: Py<PyAny>,
}

fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let module = py.import("llmspell_state.change")?;
        Ok(Classes {
            from_store: module.getattr("Change")?.getattr("_from_store")?.unbind(),
            missing: module.getattr("MISSING")?.unbind(),
        })
    })
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    classes(py).map(drop)
}

/// What stands for a value that is not there.
pub(crate) fn missing(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Ok(classes(py)?.missing.bind(py).clone())
}

/// A new object of a value, or what stands for one that is not there.
pub(crate) fn optional<'py>(py: Python<'py>, value: Option<&Document>) -> PyResult<Bound<'py, PyAny>> {
    value.map_or_else(|| missing(py), |value| value::read(py, value))
}

/// A change with values of its own. The time goes as milliseconds; the class makes a date of it.
pub(crate) fn to_py<'py>(py: Python<'py>, change: &Change) -> PyResult<Bound<'py, PyAny>> {
    classes(py)?.from_store.bind(py).call1((
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
    ))
}

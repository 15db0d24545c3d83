//! Entries as instances of `llmspell_state.Entry`.

use crate::value;
use llmspell_state_persistence::Entry;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What makes entries of the class.
fn from_store(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FROM_STORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_store = FROM_STORE.get_or_try_init(py, || {
        py.import("llmspell_state.entry")?.getattr("Entry")?.getattr("_from_store").map(Bound::unbind)
    })?;
    Ok(from_store.bind(py))
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    from_store(py).map(drop)
}

/// An entry with a value of its own. Times go as milliseconds; the class makes dates of them.
pub(crate) fn to_py<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyAny>> {
    from_store(py)?.call1((
        value::read_entry(py, entry)?,
        entry.version(),
        entry.created_ms(),
        entry.updated_ms(),
        entry.expires_ms(),
    ))
}

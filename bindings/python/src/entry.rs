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

fn milliseconds_of(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static MILLISECONDS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MILLISECONDS.import(py, "llmspell_state.entry", "milliseconds")
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    from_store(py)?;
    milliseconds_of(py).map(drop)
}

/// A date as the milliseconds since 1970 that the store keeps, those that are not whole left out.
pub(crate) fn milliseconds(date: &Bound<'_, PyAny>) -> PyResult<i64> {
    milliseconds_of(date.py())?.call1((date,))?.extract()
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

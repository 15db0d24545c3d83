//! Entries on their way to `llmspell_state.Entry`.

use crate::value;
use llmspell_state_persistence::Entry;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// What `Entry` is made of, with a value of its own. Times go as milliseconds; the class makes dates of them.
pub(crate) fn fields<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyAny>> {
    let times = (entry.created_ms(), entry.updated_ms(), entry.expires_ms());
    (value::read_entry(py, entry)?, entry.version(), times.0, times.1, times.2).into_bound_py_any(py)
}

//! What a scope takes and what cleaning up has done, on their way to the classes of `llmspell_state.usage`.

use llmspell_state_persistence::{Cleanup, Usage};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

/// What `Usage` is made of.
pub(crate) fn fields(py: Python<'_>, usage: Usage) -> PyResult<Bound<'_, PyAny>> {
    (usage.keys, usage.live_bytes, usage.history_bytes, usage.changes).into_bound_py_any(py)
}

/// What `Cleanup` is made of.
pub(crate) fn cleanup(py: Python<'_>, done: Cleanup) -> PyResult<Bound<'_, PyAny>> {
    (done.expired, done.trimmed).into_bound_py_any(py)
}

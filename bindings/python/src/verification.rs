//! What `verify` found, on its way to `llmspell_state.Verification`.

use llmspell_state_persistence::Verification;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What `Verification` is made of.
pub(crate) fn fields(py: Python<'_>, found: Verification) -> PyResult<Bound<'_, PyAny>> {
    let problems = PyTuple::new(py, found.problems)?;
    (found.version, found.changes, found.keys, found.scopes, problems).into_bound_py_any(py)
}

//! What `verify` found, as an instance of `llmspell_state.Verification`.

use llmspell_state_persistence::Verification;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(crate) fn to_py(py: Python<'_>, found: Verification) -> PyResult<Bound<'_, PyAny>> {
    let problems = PyTuple::new(py, found.problems)?;
    py.import("llmspell_state.verification")?.getattr("Verification")?.call1((
        found.version,
        found.changes,
        found.keys,
        found.scopes,
        problems,
    ))
}

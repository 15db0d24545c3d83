//! What is told of the past, on its way to the classes of `llmspell_state.history`.

use crate::change::optional;
use crate::merge::places;
use llmspell_state_persistence::{Difference, Revision, Undone};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

type Fields<'py> = PyResult<Bound<'py, PyAny>>;

/// A list of what each `Revision` is made of, with values of its own. Times go as milliseconds; the class makes dates of them.
pub(crate) fn revisions(py: Python<'_>, revisions: Vec<Revision>) -> Fields<'_> {
    let revisions = revisions.iter().map(|revision| self::revision(py, revision));
    revisions.collect::<PyResult<Vec<_>>>()?.into_bound_py_any(py)
}

fn revision<'py>(py: Python<'py>, revision: &Revision) -> Fields<'py> {
    (
        revision.version,
        revision.operation.name(),
        optional(py, revision.value.as_ref())?,
        revision.time_ms,
        &revision.origin.actor,
        &revision.origin.run,
        &revision.origin.reason,
    )
        .into_bound_py_any(py)
}

/// What a `Difference` is made of, with values of its own.
pub(crate) fn difference<'py>(py: Python<'py>, difference: &Difference) -> Fields<'py> {
    let (old, new) = (optional(py, difference.from.as_ref())?, optional(py, difference.to.as_ref())?);
    (&difference.key, old, new).into_bound_py_any(py)
}

/// What `Undone` is made of.
pub(crate) fn undone(py: Python<'_>, undone: Undone) -> Fields<'_> {
    (undone.version, undone.keys, places(py, undone.refused)?).into_bound_py_any(py)
}

//! What calls give: objects that the loop's thread makes of what a thread of the core has found.

use crate::{change, entry, value};
use llmspell_state_persistence::{Document, Entry, NamedWatch, Number};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use std::sync::Arc;

type Given<'py> = PyResult<Bound<'py, PyAny>>;
type Found = Option<Arc<Entry>>;

#[allow(clippy::unnecessary_wraps)] // one of several
pub(super) fn nothing<T>(py: Python<'_>, _: T) -> Given<'_> {
    Ok(py.None().into_bound(py))
}

pub(super) fn truth(py: Python<'_>, truth: bool) -> Given<'_> {
    truth.into_bound_py_any(py)
}

pub(super) fn count(py: Python<'_>, count: u64) -> Given<'_> {
    count.into_bound_py_any(py)
}

pub(super) fn names(py: Python<'_>, names: Vec<String>) -> Given<'_> {
    names.into_bound_py_any(py)
}

pub(super) fn number(py: Python<'_>, number: Number) -> Given<'_> {
    value::number(py, number)
}

pub(super) fn document(py: Python<'_>, document: Document) -> Given<'_> {
    value::read(py, &document)
}

/// The value of an entry that was written just now.
pub(super) fn written(py: Python<'_>, entry: Arc<Entry>) -> Given<'_> {
    value::read_passing(py, &entry)
}

/// The value of a key, or `MISSING`.
pub(super) fn found(py: Python<'_>, found: Found) -> Given<'_> {
    found.map_or_else(|| change::missing(py), |entry| value::read_entry(py, &entry))
}

pub(super) fn entry(py: Python<'_>, found: Found) -> Given<'_> {
    found.map_or_else(|| nothing(py, ()), |found| entry::fields(py, &found))
}

pub(super) fn existence(py: Python<'_>, found: Found) -> Given<'_> {
    truth(py, found.is_some())
}

/// The values that were found, under the keys that were asked for.
pub(super) fn members(py: Python<'_>, (keys, entries): (Vec<String>, Vec<Found>)) -> Given<'_> {
    let dict = PyDict::new(py);
    for (key, entry) in keys.iter().zip(entries) {
        if let Some(entry) = entry {
            dict.set_item(key, value::read_entry(py, &entry)?)?;
        }
    }
    Ok(dict.into_any())
}

pub(super) fn watches(py: Python<'_>, watches: Vec<NamedWatch>) -> Given<'_> {
    let versions = watches.into_iter().map(|watch| (watch.name, watch.version));
    Ok(versions.into_py_dict(py)?.into_any())
}

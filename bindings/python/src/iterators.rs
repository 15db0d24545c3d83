//! Listings: each holds the core's lazily paged iterator and no lock between pages.

use crate::error::to_py;
use crate::value;
use llmspell_state_persistence as core;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The next result, with the interpreter let go unless it is already in memory.
///
/// A thread that waits for the lock lets go too: whoever holds it may need the interpreter to come back.
fn next<I, T>(py: Python<'_>, iterator: &Mutex<I>, is_buffered: fn(&I) -> bool) -> PyResult<Option<T>>
where
    I: Iterator<Item = core::Result<T>> + Send,
    T: Send,
{
    if let Ok(mut buffered) = iterator.try_lock()
        && is_buffered(&buffered)
    {
        return buffered.next().transpose().map_err(to_py);
    }
    py.detach(|| locked(iterator).next()).transpose().map_err(to_py)
}

fn locked<I>(iterator: &Mutex<I>) -> MutexGuard<'_, I> {
    iterator.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An iterator over keys.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Keys(Mutex<core::Keys>);

impl From<core::Keys> for Keys {
    fn from(listing: core::Keys) -> Self {
        Self(Mutex::new(listing))
    }
}

#[pymethods]
impl Keys {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        next(py, &self.0, core::Keys::is_buffered)
    }
}

/// An iterator over keys and values.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Items(Mutex<core::Items>);

impl From<core::Items> for Items {
    fn from(listing: core::Items) -> Self {
        Self(Mutex::new(listing))
    }
}

#[pymethods]
impl Items {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(String, Bound<'py, PyAny>)>> {
        let item = next(py, &self.0, core::Items::is_buffered)?;
        item.map(|(key, entry)| Ok((key, value::read_passing(py, &entry)?))).transpose()
    }
}

/// An iterator over values.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Values(Mutex<core::Items>);

impl From<core::Items> for Values {
    fn from(listing: core::Items) -> Self {
        Self(Mutex::new(listing))
    }
}

#[pymethods]
impl Values {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let item = next(py, &self.0, core::Items::is_buffered)?;
        item.map(|(_, entry)| value::read_passing(py, &entry)).transpose()
    }
}

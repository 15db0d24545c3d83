//! Listings: each holds the core's lazily paged iterator and no lock between pages.

use crate::call::detached;
use crate::error::to_py;
use crate::{history, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::Error;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError, TryLockError};

/// A listing that threads may share.
struct Shared<I> {
    listing: Mutex<I>,
    /// The process that made it.
    process: u32,
}

impl<I> From<I> for Shared<I> {
    fn from(listing: I) -> Self {
        Self { listing: Mutex::new(listing), process: std::process::id() }
    }
}

impl<I: Send> Shared<I> {
    /// The next result, with the interpreter let go unless it is already in memory.
    ///
    /// A thread that waits for the lock lets go too: whoever holds it may need the interpreter to come back.
    fn next<T: Send>(&self, py: Python<'_>, is_buffered: fn(&I) -> bool) -> PyResult<Option<T>>
    where
        I: Iterator<Item = core::Result<T>>,
    {
        match self.listing.try_lock() {
            Ok(mut buffered) if is_buffered(&buffered) => return buffered.next().transpose().map_err(to_py),
            // After a fork, whoever holds the lock is not there to give it back.
            Err(TryLockError::WouldBlock) if self.process != std::process::id() => return Err(to_py(Error::forked())),
            _ => {}
        }
        detached(py, || self.listing.lock().unwrap_or_else(PoisonError::into_inner).next().transpose())
    }
}

/// An iterator over what differences are made of.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Differences(Shared<core::Differences>);

impl From<core::Differences> for Differences {
    fn from(differences: core::Differences) -> Self {
        Self(differences.into())
    }
}

#[pymethods]
impl Differences {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let difference = self.0.next(py, |_| false)?;
        difference.map(|difference| history::difference(py, &difference)).transpose()
    }
}

/// An iterator over keys.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Keys(Shared<core::Keys>);

impl From<core::Keys> for Keys {
    fn from(listing: core::Keys) -> Self {
        Self(listing.into())
    }
}

#[pymethods]
impl Keys {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.0.next(py, core::Keys::is_buffered)
    }
}

/// An iterator over keys and values.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Items(Shared<core::Items>);

impl From<core::Items> for Items {
    fn from(listing: core::Items) -> Self {
        Self(listing.into())
    }
}

#[pymethods]
impl Items {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(String, Bound<'py, PyAny>)>> {
        let item = self.0.next(py, core::Items::is_buffered)?;
        item.map(|(key, entry)| Ok((key, value::read_passing(py, &entry)?))).transpose()
    }
}

/// An iterator over values.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Values(Shared<core::Items>);

impl From<core::Items> for Values {
    fn from(listing: core::Items) -> Self {
        Self(listing.into())
    }
}

#[pymethods]
impl Values {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let item = self.0.next(py, core::Items::is_buffered)?;
        item.map(|(_, entry)| value::read_passing(py, &entry)).transpose()
    }
}

//! Member names that were read before, so that documents of one shape share the `str` objects of their keys.

use super::{own, text_of};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use xxhash_rust::xxh3::xxh3_64;

/// Longer names are made anew: they repeat less, and a table of them would hold memory for nothing.
const LONGEST: usize = 48;
/// Names remembered by each thread; a power of two.
const SLOTS: usize = 1024;

type Slot = Option<(u64, Py<PyAny>)>;

thread_local! {
    static NAMES: Cell<Vec<Slot>> = const { Cell::new(Vec::new()) };
}

/// The thread's table, taken out for one reading. A reading inside it (a finalizer that runs in between may read, too)
/// finds none and makes its own; the last one to end stays.
pub(super) struct Names(Vec<Slot>);

impl Names {
    pub(super) fn borrow() -> Self {
        Self(NAMES.take())
    }

    /// The `str` of a member's name.
    pub(super) fn name<'py>(&mut self, py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if text.len() > LONGEST {
            return make(py, text);
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        let hash = xxh3_64(text);
        #[allow(clippy::cast_possible_truncation)] // the low bits choose the slot
        let slot = &mut self.0[hash as usize & (SLOTS - 1)];
        if let Some((known, name)) = slot
            && *known == hash
            && matches!(text_of(name.bind_borrowed(py)), Some(Ok(known)) if known.as_bytes() == text)
        {
            return Ok(name.bind(py).clone());
        }
        let name = make(py, text)?;
        *slot = Some((hash, name.clone().unbind()));
        Ok(name)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        NAMES.set(std::mem::take(&mut self.0));
    }
}

fn make<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the bytes are there for the call; a new reference to a str, or null with an exception, comes back.
    unsafe { own(py, ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed())) }
}

//! Member names that were read before, so that documents of one shape share the `str` objects of their keys.

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};
use std::cell::RefCell;
use xxhash_rust::xxh3::xxh3_64;

/// Longer names are made anew: they repeat less, and a table of them would hold memory for nothing.
const LONGEST: usize = 48;
/// Names remembered by each thread; a power of two.
const SLOTS: usize = 1024;

type Slot = Option<(u64, Py<PyString>)>;

thread_local! {
    static NAMES: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// The `str` of a member's name.
pub(super) fn name<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    if text.len() > LONGEST {
        return make(py, text);
    }
    // Nothing below runs Python code (making and dropping a str does not), so the table cannot be entered twice.
    NAMES.with_borrow_mut(|names| {
        if names.is_empty() {
            names.resize_with(SLOTS, || None);
        }
        let hash = xxh3_64(text);
        #[allow(clippy::cast_possible_truncation)] // the low bits choose the slot
        let slot = &mut names[hash as usize & (SLOTS - 1)];
        if let Some((known, name)) = slot
            && *known == hash
            && is(name.bind_borrowed(py), text)
        {
            return Ok(name.bind(py).clone());
        }
        let name = make(py, text)?;
        *slot = Some((hash, name.clone().unbind()));
        Ok(name)
    })
}

fn is(name: Borrowed<'_, '_, PyString>, text: &[u8]) -> bool {
    matches!(super::text_of(name.as_any().as_borrowed()), Some(Ok(known)) if known.as_bytes() == text)
}

fn make<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: the bytes are there for the call; a new reference to a str, or null with an exception, comes back.
    unsafe {
        let made = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed());
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

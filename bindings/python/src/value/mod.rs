//! Python's objects and stored values, converted straight into each other: no tree of Rust values in between.
//!
//! This folder alone knows both worlds, and alone calls the interpreter's C functions: through safe wrappers a walk
//! costs about twice as much under the stable ABI.
#![allow(unsafe_code)]

mod kinds;
mod names;
mod read;
mod template;
mod write;

pub(crate) use read::{number, read};
pub(crate) use write::document;

use llmspell_state_persistence::Entry;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use pyo3::{Borrowed, ffi};
use template::Template;

/// A `str` that holds a lone surrogate.
pub(crate) struct LoneSurrogate;

/// The text of a `str` or of a subclass of it; of another object, nothing.
///
/// The interpreter keeps the UTF-8 form with the object (for ASCII it is the object), so nothing is allocated here.
pub(crate) fn text_of<'a>(object: Borrowed<'a, '_, PyAny>) -> Option<Result<&'a str, LoneSurrogate>> {
    let mut len = 0;
    // SAFETY: the object is a str, which is immutable and outlives 'a; what the interpreter returns is its UTF-8, of `len`
    // bytes, and lives as long. On failure it returns null and leaves an exception, which is taken away again.
    unsafe {
        if ffi::PyUnicode_Check(object.as_ptr()) == 0 {
            return None;
        }
        let start = ffi::PyUnicode_AsUTF8AndSize(object.as_ptr(), &raw mut len);
        if start.is_null() {
            ffi::PyErr_Clear();
            return Some(Err(LoneSurrogate));
        }
        let bytes = std::slice::from_raw_parts(start.cast(), len.cast_unsigned());
        Some(Ok(std::str::from_utf8_unchecked(bytes)))
    }
}

/// The value of an entry that is read by its key: a second read makes a template, which later reads copy.
pub(crate) fn read_entry<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyAny>> {
    if let Some(template) = template(entry) {
        return template.copy(py);
    }
    let value = read(py, entry.document())?;
    if entry.note_read() == 0 {
        return Ok(value);
    }
    let template = Template::of(value)?;
    let copy = template.copy(py);
    let bytes = template.footprint(py);
    entry.attach(Box::new(template), bytes);
    copy
}

/// The value of an entry that a listing passes by: a template is used where there is one, and not made.
pub(crate) fn read_passing<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyAny>> {
    template(entry).map_or_else(|| read(py, entry.document()), |template| template.copy(py))
}

fn template(entry: &Entry) -> Option<&Template> {
    entry.attachment()?.downcast_ref()
}

/// The members of a mapping as they are now. An `items()` that gives anything but pairs raises.
pub(crate) fn pairs<'py>(mapping: &Bound<'py, PyAny>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    items(mapping.call_method0("items")?.try_iter()?)?.into_iter().map(|pair| pair.extract()).collect()
}

/// What an iterator gives. To `collect` it would also ask for its length, and an exception in there would get lost.
pub(crate) fn items(iterator: Bound<'_, PyIterator>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let mut items = Vec::new();
    for item in iterator {
        items.push(item?);
    }
    Ok(items)
}

/// Whether an object is a mapping by `collections.abc`.
pub(crate) fn is_mapping(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.is_instance(kinds::of(object.py())?.mapping.bind(object.py()))
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    kinds::unrun(py).map(drop)
}

/// Whether an object is what an async function or an async generator returns.
pub(crate) fn is_async(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let [coroutine, generator, _] = kinds::unrun(object.py())?;
    Ok(object.is_instance(coroutine.bind(object.py()))? || object.is_instance(generator.bind(object.py()))?)
}

/// Whether an object is what a generator function returns.
pub(crate) fn is_generator(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let [_, _, generator] = kinds::unrun(object.py())?;
    object.is_instance(generator.bind(object.py()))
}

/// # Safety
/// `object` is a new reference, or null with an exception set.
unsafe fn own(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as the caller promises.
    unsafe { Bound::from_owned_ptr_or_err(py, object) }
}

fn check(py: Python<'_>, status: std::ffi::c_int) -> PyResult<()> {
    if status == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}

//! Builds Python's objects from the flat form of a stored value.

use super::names::Names;
use super::{check, own};
use crate::error::to_py;
use llmspell_state_persistence::value::{Node, Tape};
use llmspell_state_persistence::{Document, Number};
use pyo3::ffi;
use pyo3::prelude::*;

/// A new object of a document's value; nobody else holds any part of it that can change.
pub(crate) fn read<'py>(py: Python<'py>, document: &Document) -> PyResult<Bound<'py, PyAny>> {
    let tape = document.to_tape().map_err(to_py)?;
    Reader { py, tape: &tape, nodes: tape.nodes().iter(), names: Names::borrow() }.value()
}

/// An `int` or a `float`.
pub(crate) fn number(py: Python<'_>, number: Number) -> PyResult<Bound<'_, PyAny>> {
    Ok(match number {
        Number::Int(value) => value.into_pyobject(py)?.into_any(),
        Number::Float(value) => value.into_pyobject(py)?.into_any(),
    })
}

struct Reader<'t, 'py> {
    py: Python<'py>,
    tape: &'t Tape,
    nodes: std::slice::Iter<'t, Node>,
    names: Names,
}

impl<'py> Reader<'_, 'py> {
    /// The next value with all its parts.
    fn value(&mut self) -> PyResult<Bound<'py, PyAny>> {
        let node = self.nodes.next().copied().unwrap_or(Node::Null);
        // SAFETY: every call makes a new object from plain data that is there for the call, or returns null with an
        // exception, which `own` turns into an error.
        unsafe {
            match node {
                Node::Null => Ok(self.py.None().into_bound(self.py)),
                Node::Bool(value) => own(self.py, ffi::PyBool_FromLong(value.into())),
                Node::Int(value) => own(self.py, ffi::PyLong_FromLongLong(value)),
                Node::Float(value) => own(self.py, ffi::PyFloat_FromDouble(value)),
                Node::Str(span) => {
                    let text = self.tape.bytes(span);
                    own(self.py, ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed()))
                }
                Node::Binary(span) => {
                    let bytes = self.tape.bytes(span);
                    own(self.py, ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len().cast_signed()))
                }
                Node::Array { len } => self.array(len as usize),
                Node::Object { len } => self.object(len),
            }
        }
    }

    fn array(&mut self, len: usize) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the list is new, each of its places is filled once, and `PyList_SetItem` takes over the reference. Places
        // that an error leaves empty are null, which the interpreter allows in a list that it frees or traverses.
        unsafe {
            let list = own(self.py, ffi::PyList_New(len.cast_signed()))?;
            for index in 0..len {
                let item = self.value()?;
                check(self.py, ffi::PyList_SetItem(list.as_ptr(), index.cast_signed(), item.into_ptr()))?;
            }
            Ok(list)
        }
    }

    fn object(&mut self, len: u32) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the dict is new and both objects are owned for the call.
        unsafe {
            let dict = own(self.py, ffi::PyDict_New())?;
            for _ in 0..len {
                let name = match self.nodes.next() {
                    Some(Node::Str(span)) => self.names.name(self.py, self.tape.bytes(*span))?,
                    _ => self.names.name(self.py, &[])?,
                };
                let value = self.value()?;
                check(self.py, ffi::PyDict_SetItem(dict.as_ptr(), name.as_ptr(), value.as_ptr()))?;
            }
            Ok(dict)
        }
    }
}

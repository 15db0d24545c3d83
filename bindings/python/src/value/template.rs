//! A ready object beside a cached entry: a hot read copies its containers and shares its leaves, which is two to four
//! times faster than parsing.

use super::{check, own};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

/// An object that no reader ever gets, only copies of it.
///
/// A container holds its leaves; where it holds other containers, `None` keeps the place and `parts` has them.
pub(super) enum Template {
    /// Immutable, so that it is its own copy.
    Leaf(Py<PyAny>),
    List {
        object: Py<PyList>,
        parts: Box<[(ffi::Py_ssize_t, Template)]>,
    },
    Dict {
        object: Py<PyDict>,
        parts: Box<[(Py<PyAny>, Template)]>,
    },
}

impl Template {
    /// Takes apart a value that nobody else holds.
    pub(super) fn of(value: Bound<'_, PyAny>) -> PyResult<Self> {
        let none = value.py().None();
        let value = match value.cast_into::<PyDict>() {
            Ok(dict) => {
                let mut parts = Vec::new();
                for (name, member) in dict.iter().filter(|(_, member)| is_container(member)) {
                    parts.push((name.unbind(), Self::of(member)?));
                }
                for (name, _) in &parts {
                    dict.set_item(name, &none)?;
                }
                return Ok(Self::Dict { object: dict.unbind(), parts: parts.into() });
            }
            Err(other) => other.into_inner(),
        };
        let value = match value.cast_into::<PyList>() {
            Ok(list) => {
                let mut parts = Vec::new();
                for (index, item) in list.iter().enumerate().filter(|(_, item)| is_container(item)) {
                    list.set_item(index, &none)?;
                    parts.push((index.cast_signed(), Self::of(item)?));
                }
                return Ok(Self::List { object: list.unbind(), parts: parts.into() });
            }
            Err(other) => other.into_inner(),
        };
        Ok(Self::Leaf(value.unbind()))
    }

    /// A new object that shares nothing that can change.
    pub(super) fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the templates own what they point at, and only copies of their containers are ever handed out, so each has
        // the type and the length it was made with. The copies are new; `PyList_SetItem` takes over the reference that it
        // gets, `PyDict_SetItem` makes its own. Even one that was found through the `gc` module and changed is no danger: the
        // calls check bounds.
        unsafe {
            match self {
                Self::Leaf(object) => Ok(object.bind(py).clone()),
                Self::List { object, parts } => {
                    let copy = own(py, ffi::PyList_GetSlice(object.as_ptr(), 0, ffi::PY_SSIZE_T_MAX))?;
                    for (index, part) in parts {
                        check(py, ffi::PyList_SetItem(copy.as_ptr(), *index, part.copy(py)?.into_ptr()))?;
                    }
                    Ok(copy)
                }
                Self::Dict { object, parts } => {
                    let copy = own(py, ffi::PyDict_Copy(object.as_ptr()))?;
                    for (name, part) in parts {
                        check(py, ffi::PyDict_SetItem(copy.as_ptr(), name.as_ptr(), part.copy(py)?.as_ptr()))?;
                    }
                    Ok(copy)
                }
            }
        }
    }

    /// Bytes of memory it holds, roughly: what `CPython` takes for these objects. Names and small integers are shared, but
    /// counted, so that the cache's budget is rather kept than passed.
    pub(super) fn footprint(&self, py: Python<'_>) -> usize {
        const PER_PART: usize = size_of::<(Py<PyAny>, Template)>();
        match self {
            Self::Leaf(object) => leaf_bytes(object.bind(py)),
            Self::List { object, parts } => {
                let list = object.bind(py);
                let items: usize = list.iter().map(|item| size_of::<usize>() + leaf_bytes(&item)).sum();
                56 + items + parts.iter().map(|(_, part)| PER_PART + part.footprint(py)).sum::<usize>()
            }
            Self::Dict { object, parts } => {
                let dict = object.bind(py);
                let members: usize =
                    dict.iter().map(|(name, member)| 40 + leaf_bytes(&name) + leaf_bytes(&member)).sum();
                64 + members + parts.iter().map(|(_, part)| PER_PART + part.footprint(py)).sum::<usize>()
            }
        }
    }
}

fn is_container(object: &Bound<'_, PyAny>) -> bool {
    object.is_exact_instance_of::<PyDict>() || object.is_exact_instance_of::<PyList>()
}

/// A str of n bytes takes 49 + n, bytes 33 + n, an int 28 to 36, a float 24.
fn leaf_bytes(object: &Bound<'_, PyAny>) -> usize {
    match (object.cast::<PyString>(), object.cast::<PyBytes>()) {
        (Ok(text), _) => 49 + text.len().unwrap_or_default(),
        (_, Ok(bytes)) => 33 + bytes.len().unwrap_or_default(),
        _ => 32,
    }
}

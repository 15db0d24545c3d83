//! Writes Python's objects as canonical text.

use super::{LoneSurrogate, kinds, text_of};
use crate::error::to_py;
use llmspell_state_persistence::value::{Step, ValueError, Writer};
use llmspell_state_persistence::{Document, limits};
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyTuple, PyType};
use pyo3::{Borrowed, ffi};
use std::collections::HashSet;

/// The stored form of an object. `hook` turns what cannot be stored into something that can.
pub(crate) fn document(
    object: &Bound<'_, PyAny>,
    hook: Option<&Bound<'_, PyAny>>,
    max_bytes: usize,
) -> PyResult<Document> {
    let mut walk = Walk { py: object.py(), writer: Writer::new(max_bytes), hook, hooked: 0 };
    match walk.value(object) {
        Ok(()) => Ok(walk.writer.finish()),
        Err(Failure::Value(error)) => Err(to_py(error.into())),
        Err(Failure::Python(error)) => Err(error),
    }
}

/// What stops a walk: a value that cannot be stored, with its path, or what Python code on the way raised.
enum Failure {
    Value(ValueError),
    Python(PyErr),
}

impl Failure {
    fn at(self, step: impl FnOnce() -> Step) -> Self {
        match self {
            Self::Value(error) => Self::Value(error.at(step())),
            python @ Self::Python(_) => python,
        }
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    ValueError::invalid(message).into()
}

fn changed() -> Failure {
    invalid("changed while it was being written; nothing was stored")
}

struct Walk<'w, 'py> {
    py: Python<'py>,
    writer: Writer,
    hook: Option<&'w Bound<'py, PyAny>>,
    /// Calls of the hook that the current object is inside of.
    hooked: usize,
}

impl<'py> Walk<'_, 'py> {
    fn value(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Failure> {
        if self.leaf(object.as_borrowed())? { Ok(()) } else { self.branch(object) }
    }

    /// Writes an object that is exactly of a plain immutable type, and says whether it was one.
    fn leaf(&mut self, object: Borrowed<'_, 'py, PyAny>) -> Result<bool, Failure> {
        let of = object.get_type_ptr();
        // Only addresses of these statics are taken; the order is that of frequency.
        if of == &raw mut ffi::PyUnicode_Type {
            self.str(object)?;
        } else if of == &raw mut ffi::PyLong_Type {
            self.int(object)?;
        } else if of == &raw mut ffi::PyFloat_Type {
            self.float(object)?;
        } else if of == &raw mut ffi::PyBool_Type {
            // SAFETY: there are two objects of this type, and one is True.
            self.writer.bool(object.as_ptr() == unsafe { ffi::Py_True() });
        } else if object.is_none() {
            self.writer.null();
        } else if of == &raw mut ffi::PyBytes_Type {
            self.bytes(object)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn branch(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Failure> {
        let of = object.get_type_ptr();
        // SAFETY: an object is of the type that its type pointer says.
        unsafe {
            if of == &raw mut ffi::PyDict_Type {
                self.dict(object.cast_unchecked())
            } else if of == &raw mut ffi::PyList_Type {
                self.list(object.cast_unchecked())
            } else if of == &raw mut ffi::PyTuple_Type {
                self.tuple(object.cast_unchecked())
            } else {
                self.other(object)
            }
        }
    }

    fn str(&mut self, object: Borrowed<'_, 'py, PyAny>) -> Result<(), Failure> {
        match text_of(object) {
            Some(Ok(text)) => Ok(self.writer.str(text)?),
            _ => Err(invalid("this str has a lone surrogate, which UTF-8 cannot hold")),
        }
    }

    fn int(&mut self, object: Borrowed<'_, 'py, PyAny>) -> Result<(), Failure> {
        let mut overflow = 0;
        // SAFETY: the object is an int, so the call cannot raise.
        let int = unsafe { ffi::PyLong_AsLongLongAndOverflow(object.as_ptr(), &raw mut overflow) };
        if overflow != 0 {
            return Err(invalid("this int is outside the signed 64-bit range; store it as a str"));
        }
        self.writer.int(int);
        Ok(())
    }

    fn float(&mut self, object: Borrowed<'_, 'py, PyAny>) -> Result<(), Failure> {
        // SAFETY: the object is a float, so the call cannot raise.
        Ok(self.writer.float(unsafe { ffi::PyFloat_AsDouble(object.as_ptr()) })?)
    }

    fn bytes(&mut self, object: Borrowed<'_, 'py, PyAny>) -> Result<(), Failure> {
        // SAFETY: the object is bytes, which are immutable; pointer and size describe its memory.
        let bytes = unsafe {
            let start = ffi::PyBytes_AsString(object.as_ptr());
            std::slice::from_raw_parts(start.cast(), ffi::PyBytes_Size(object.as_ptr()).cast_unsigned())
        };
        Ok(self.writer.binary(bytes)?)
    }

    /// Other threads may change a dict whenever Python code runs below; every change that the walk could trip over is an
    /// error. The critical section is for interpreters without a global lock.
    fn dict(&mut self, dict: &Bound<'py, PyDict>) -> Result<(), Failure> {
        with_critical_section(dict, || {
            self.writer.begin_object()?;
            let size = dict.len();
            let mut seen = 0;
            let mut only_exact_names = true;
            let mut position: ffi::Py_ssize_t = 0;
            let (mut name, mut member) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the dict is alive; `PyDict_Next` checks `position` against the dict as it is now, and sets both pointers
            // when it answers 1.
            while unsafe { ffi::PyDict_Next(dict.as_ptr(), &raw mut position, &raw mut name, &raw mut member) } == 1 {
                // SAFETY: the dict owns both until Python code runs, and before that references are taken here.
                let (name, member): (Bound<'py, PyAny>, Bound<'py, PyAny>) =
                    unsafe { (Bound::from_borrowed_ptr(self.py, name), Bound::from_borrowed_ptr(self.py, member)) };
                only_exact_names &= name.get_type_ptr() == &raw mut ffi::PyUnicode_Type;
                self.writer.key(member_name(name.as_borrowed())?)?;
                self.value(&member).map_err(|e| e.at(|| step(&name)))?;
                seen += 1;
                if dict.len() != size || seen > size {
                    return Err(changed());
                }
            }
            if seen != size {
                return Err(changed());
            }
            if !only_exact_names {
                check_unique(dict.keys().iter())?;
            }
            self.writer.end_object();
            Ok(())
        })
    }

    /// A subclass of `dict` or another mapping, as its `items()` tells it.
    fn mapping(&mut self, mapping: &Bound<'py, PyAny>) -> Result<(), Failure> {
        let pairs = super::pairs(mapping)?;
        self.writer.begin_object()?;
        let mut names = Vec::with_capacity(pairs.len());
        for (name, member) in pairs {
            self.writer.key(member_name(name.as_borrowed())?)?;
            self.value(&member).map_err(|e| e.at(|| step(&name)))?;
            names.push(name);
        }
        check_unique(names.into_iter())?;
        self.writer.end_object();
        Ok(())
    }

    fn list(&mut self, list: &Bound<'py, PyList>) -> Result<(), Failure> {
        with_critical_section(list, || {
            self.writer.begin_array()?;
            let len = list.len();
            for index in 0..len {
                // SAFETY: the call checks the index against the list as it is now, and gives null and an exception when it is
                // past the end; else the list owns the item until Python code runs, and before that a reference is taken.
                let item = unsafe {
                    Bound::from_borrowed_ptr_or_err(self.py, ffi::PyList_GetItem(list.as_ptr(), index.cast_signed()))
                };
                self.item(index, &item.map_err(|_| changed())?)?;
            }
            if list.len() != len {
                return Err(changed());
            }
            self.writer.end_array();
            Ok(())
        })
    }

    fn tuple(&mut self, tuple: &Bound<'py, PyTuple>) -> Result<(), Failure> {
        self.writer.begin_array()?;
        for (index, item) in tuple.iter().enumerate() {
            self.item(index, &item)?;
        }
        self.writer.end_array();
        Ok(())
    }

    fn item(&mut self, index: usize, item: &Bound<'py, PyAny>) -> Result<(), Failure> {
        self.value(item).map_err(|e| e.at(|| Step::Index(index)))
    }

    /// Everything that is not exactly of a plain type.
    fn other(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Failure> {
        let py = self.py;
        let kinds = kinds::of(py)?;
        if object.is_instance(kinds.enumeration.bind(py))? {
            return self.value(&object.getattr("value")?);
        }
        // SAFETY: the check asks for the type or a subclass of it.
        if unsafe { ffi::PyUnicode_Check(object.as_ptr()) } != 0 {
            return self.str(object.as_borrowed());
        }
        if object.is_instance_of::<PyInt>() {
            return self.int(object.as_borrowed());
        }
        if object.is_instance_of::<PyFloat>() {
            return self.float(object.as_borrowed());
        }
        if object.is_instance_of::<PyBytes>() {
            return self.bytes(object.as_borrowed());
        }
        if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            return self.buffer(object);
        }
        if object.is_instance_of::<PyDict>() {
            return self.mapping(object);
        }
        if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
            let items = super::items(object.try_iter()?)?;
            return self.list(&PyList::new(py, items)?);
        }
        if object.is_instance(kinds.day.bind(py))? || object.is_instance(kinds.time.bind(py))? {
            return self.value(&object.call_method0("isoformat")?);
        }
        if object.is_instance(kinds.uuid.bind(py))? {
            return self.value(object.str()?.as_any());
        }
        if !object.is_instance_of::<PyType>() {
            if object.hasattr("__dataclass_fields__")? {
                return self.dataclass(object, kinds);
            }
            if object.hasattr("model_dump")? {
                let json = PyDict::new(py);
                json.set_item("mode", "json")?;
                return self.value(&object.call_method("model_dump", (), Some(&json))?);
            }
            if object.is_instance(kinds.mapping.bind(py))? {
                return self.mapping(object);
            }
        }
        self.hooked(object)
    }

    /// Bytes that can change or need not lie side by side: checked for their size first, then copied.
    fn buffer(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Failure> {
        let size = if object.is_instance_of::<PyMemoryView>() {
            object.getattr("nbytes")?.extract()?
        } else {
            object.len()?
        };
        self.writer.check_room(size)?;
        // SAFETY: the object gives its bytes; a new bytes object comes back, or null with an exception.
        let bytes = unsafe { super::own(self.py, ffi::PyBytes_FromObject(object.as_ptr()))? };
        self.bytes(bytes.as_borrowed())
    }

    fn dataclass(&mut self, object: &Bound<'py, PyAny>, kinds: &kinds::Kinds) -> Result<(), Failure> {
        self.writer.begin_object()?;
        for field in kinds.fields.bind(self.py).call1((object,))?.try_iter()? {
            let name = field?.getattr("name")?;
            self.writer.key(member_name(name.as_borrowed())?)?;
            let member = object.getattr(name.cast().map_err(PyErr::from)?)?;
            self.value(&member).map_err(|e| e.at(|| step(&name)))?;
        }
        self.writer.end_object();
        Ok(())
    }

    fn hooked(&mut self, object: &Bound<'py, PyAny>) -> Result<(), Failure> {
        let of =
            || object.get_type().fully_qualified_name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
        let Some(hook) = self.hook else {
            return Err(invalid(format!(
                "{} cannot be stored; store None, bool, int, float, str, bytes, a list, a dict, a dataclass or a pydantic \
                 model, or give a default= function that turns it into one of these",
                of()
            )));
        };
        if self.hooked == limits::VALUE_DEPTH {
            return Err(invalid(format!(
                "the default= function keeps returning what cannot be stored, at last {}",
                of()
            )));
        }
        self.hooked += 1;
        self.value(&hook.call1((object,))?)?;
        self.hooked -= 1;
        Ok(())
    }
}

fn member_name<'a>(name: Borrowed<'a, '_, PyAny>) -> Result<&'a str, Failure> {
    match text_of(name) {
        Some(Ok(text)) => Ok(text),
        Some(Err(LoneSurrogate)) => Err(invalid("a member's name has a lone surrogate, which UTF-8 cannot hold")),
        None => Err(invalid(format!(
            "a member's name must be a str, not {}",
            name.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string())
        ))),
    }
}

fn step(name: &Bound<'_, PyAny>) -> Step {
    Step::Key(member_name(name.as_borrowed()).unwrap_or_default().to_owned())
}

/// Objects that differ can be one name as text: `"red"` beside an `Enum` member that is also the str `"red"`.
fn check_unique<'py>(names: impl Iterator<Item = Bound<'py, PyAny>>) -> Result<(), Failure> {
    let mut known = HashSet::new();
    for name in names {
        let text = member_name(name.as_borrowed())?.to_owned();
        if known.contains(&text) {
            return Err(invalid(format!("two members have the name {text:?}")));
        }
        known.insert(text);
    }
    Ok(())
}

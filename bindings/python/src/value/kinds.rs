//! Classes of Python's library that an object may be an instance of.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

pub(super) struct Kinds {
    pub(super) enumeration: Py<PyAny>,
    /// `date`, of which `datetime` is a subclass.
    pub(super) day: Py<PyAny>,
    pub(super) time: Py<PyAny>,
    pub(super) uuid: Py<PyAny>,
    pub(super) mapping: Py<PyAny>,
    /// The function `dataclasses.fields`.
    pub(super) fields: Py<PyAny>,
}

/// The classes, imported once.
pub(super) fn of(py: Python<'_>) -> PyResult<&'static Kinds> {
    static KINDS: PyOnceLock<Kinds> = PyOnceLock::new();
    KINDS.get_or_try_init(py, || {
        let import = |module: &str, name: &str| py.import(module)?.getattr(name).map(Bound::unbind);
        Ok(Kinds {
            enumeration: import("enum", "Enum")?,
            day: import("datetime", "date")?,
            time: import("datetime", "time")?,
            uuid: import("uuid", "UUID")?,
            mapping: import("collections.abc", "Mapping")?,
            fields: import("dataclasses", "fields")?,
        })
    })
}

/// What functions return that have not run when they are called: async functions, async generators and generators. Apart: nothing has
/// to be imported for these.
pub(super) fn unrun(py: Python<'_>) -> PyResult<&'static [Py<PyAny>; 3]> {
    static UNRUN: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
    UNRUN.get_or_try_init(py, || {
        let types = py.import("types")?;
        let kind = |name: &str| types.getattr(name).map(Bound::unbind);
        Ok([kind("CoroutineType")?, kind("AsyncGeneratorType")?, kind("GeneratorType")?])
    })
}

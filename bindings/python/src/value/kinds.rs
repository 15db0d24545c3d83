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
    pub(super) coroutine: Py<PyAny>,
    pub(super) async_generator: Py<PyAny>,
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
            coroutine: import("collections.abc", "Coroutine")?,
            async_generator: import("collections.abc", "AsyncGenerator")?,
            fields: import("dataclasses", "fields")?,
        })
    })
}

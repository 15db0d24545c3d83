//! Python functions that the core calls back, in the thread that made the call and without any lock of the core.

use crate::argument::{Function, Hook};
use crate::error::Failure;
use crate::value;
use llmspell_state_persistence::{Document, Entry};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The function of `modify`.
pub(crate) struct Update {
    function: Function,
    /// What the function gets when the key is missing; nothing means `None`.
    default: Option<Py<PyAny>>,
    hook: Option<Hook>,
    max_bytes: usize,
}

impl Update {
    pub(crate) fn new(
        function: Function,
        default: Option<Bound<'_, PyAny>>,
        hook: Option<Hook>,
        max_bytes: usize,
    ) -> Self {
        Self { function, default: default.map(Bound::unbind), hook, max_bytes }
    }

    /// The new value for a current entry.
    pub(crate) fn call(&self, current: Option<&Entry>) -> Result<Document, Failure> {
        Python::attach(|py| {
            let current = current.map_or_else(|| self.fresh_default(py), |entry| value::read_passing(py, entry))?;
            let new = self.function.call(current)?;
            Ok(value::document(&new, self.hook.as_ref().map(|hook| hook.0.bind(py)), self.max_bytes)?)
        })
    }

    /// The function may run again on a conflict: what it did to a list or dict the first time must not count twice.
    fn fresh_default<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(default) = self.default.as_ref().map(|default| default.bind(py)) else {
            return Ok(py.None().into_bound(py));
        };
        if default.is_instance_of::<PyList>() || default.is_instance_of::<PyDict>() {
            return py.import("copy")?.call_method1("deepcopy", (default,));
        }
        Ok(default.clone())
    }
}

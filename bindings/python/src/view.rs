//! `View`: a scope as it was at a moment of the past, with the verbs that read.

use crate::argument::{self, After, Key, Keys, Limit, Name};
use crate::call::detached;
use crate::verbs::{found, missing, reading_verbs};
use crate::{entry, iterators, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::Entry;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// The verbs of a view; `llmspell_state.View` adds Python's mapping protocol.
#[pyclass(frozen, subclass, weakref, module = "llmspell_state._native")]
pub(crate) struct View {
    handle: core::View,
}

impl View {
    pub(crate) fn new(handle: core::View) -> Self {
        Self { handle }
    }

    fn find(&self, py: Python<'_>, key: &Key<'_>) -> PyResult<Option<Arc<Entry>>> {
        detached(py, || self.handle.entry(key.0))
    }
}

reading_verbs! { View {
    /// Another handle of the same view.
    #[new]
    #[pyo3(signature = (of: "View"))]
    fn py_new(of: &Bound<'_, Self>) -> Self {
        Self::new(of.get().handle.clone())
    }

    /// Whether a key was there.
    #[pyo3(signature = (key: "str") -> "bool")]
    fn exists(&self, py: Python<'_>, key: Key<'_>) -> PyResult<bool> {
        detached(py, || self.handle.exists(key.0))
    }

    /// The scope of this name inside this one, as it was at the same moment.
    #[pyo3(signature = (name: "str") -> "View")]
    fn scope(&self, py: Python<'_>, name: Name<'_>) -> PyResult<Self> {
        detached(py, || self.handle.scope(name.0)).map(Self::new)
    }

    /// The version of the newest commit that it shows.
    #[getter]
    fn version(&self) -> u64 {
        self.handle.version()
    }
} }

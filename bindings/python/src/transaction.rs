//! `Transaction`: the verbs of a scope over one snapshot, committed together or not at all.

use crate::argument::{self, After, Amount, Function, Hook, Key, Keys, Limit, Members, Name, Version};
use crate::call::detached;
use crate::callback::Update;
use crate::error::unless_forked;
use crate::ttl::ToLive;
use crate::verbs::{found, missing, reading_verbs, verbs};
use crate::{entry, iterators, ttl, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Document, Entry};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::sync::Arc;

/// The verbs of a transaction; `llmspell_state.Transaction` adds Python's mapping protocol.
#[pyclass(frozen, subclass, weakref, module = "llmspell_state._native")]
pub(crate) struct Transaction {
    handle: core::Transaction,
    hook: Option<Hook>,
}

impl Transaction {
    pub(crate) fn new(handle: core::Transaction, hook: Option<Hook>) -> Self {
        Self { handle, hook }
    }

    /// As an instance of `llmspell_state.Transaction`, which is what users see.
    pub(crate) fn into_public(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        public(py)?.call1((self,))
    }

    fn find(&self, py: Python<'_>, key: &Key<'_>) -> PyResult<Option<Arc<Entry>>> {
        detached(py, || self.handle.entry(key.0))
    }
}

/// The class that users see.
fn public(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static PUBLIC: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let public = PUBLIC
        .get_or_try_init(py, || py.import("llmspell_state.transaction")?.getattr("Transaction").map(Bound::unbind))?;
    Ok(public.bind(py))
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    public(py).map(drop)
}

/// Deletes a key and gives what was there.
pub(crate) fn take(transaction: &core::Transaction, key: &str) -> core::Result<Option<Arc<Entry>>> {
    let found = transaction.entry(key)?;
    if found.is_some() {
        transaction.delete(key)?;
    }
    Ok(found)
}

/// Gives what is there, or sets it.
pub(crate) fn set_default(
    transaction: &core::Transaction,
    key: &str,
    default: &Document,
) -> core::Result<Option<Arc<Entry>>> {
    let found = transaction.entry(key)?;
    if found.is_none() {
        transaction.set(key, default.clone())?;
    }
    Ok(found)
}

verbs! { Transaction {
    /// Another handle of the same transaction.
    #[new]
    #[pyo3(signature = (of: "Transaction"))]
    fn py_new(of: &Bound<'_, Self>) -> Self {
        Self::new(of.get().handle.clone(), of.get().hook(of.py()))
    }

    /// Commits; after an exception, rolls back. A transaction that was ended inside the block stays as it is.
    fn __exit__(
        &self,
        py: Python<'_>,
        error: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if self.handle.has_ended() {
            return Ok(());
        }
        if error.is_none() {
            self.commit(py).map(drop)
        } else {
            unless_forked(py.detach(|| self.handle.rollback()))
        }
    }

    /// Whether a key is there.
    #[pyo3(signature = (key: "str") -> "bool")]
    fn exists(&self, py: Python<'_>, key: Key<'_>) -> PyResult<bool> {
        detached(py, || self.handle.exists(key.0))
    }

    /// Stores a value, for the commit; with `ttl` for so many seconds from then on.
    ///
    /// With `if_version`, only when the key's version is still that one (0: when the key is missing); `ConflictError`
    /// otherwise. `default` turns objects that cannot be stored into ones that can, for this call.
    #[pyo3(signature = (key: "str", value: "object", *, ttl: "float | datetime.timedelta | None" = None, if_version: "int | None" = None, default: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "None")]
    fn set(
        &self,
        py: Python<'_>,
        key: Key<'_>,
        value: &Bound<'_, PyAny>,
        ttl: Option<ToLive>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        let options = ttl::options(ttl, if_version);
        detached(py, || self.handle.set_with(key.0, document, options))
    }

    /// Stores all members of a mapping, for the commit; with `ttl` for so many seconds from then on.
    #[pyo3(signature = (mapping: "collections.abc.Mapping[str, typing.Any]", *, ttl: "float | datetime.timedelta | None" = None) -> "None")]
    fn set_many(&self, py: Python<'_>, mapping: &Bound<'_, PyAny>, ttl: Option<ToLive>) -> PyResult<()> {
        let (mut members, ttl) = (self.members(mapping)?, ttl::told(ttl));
        detached(py, || self.handle.set_many_with(members.take(), ttl))
    }

    /// Removes all keys that match and returns how many there were.
    #[pyo3(signature = (pattern: "str" = "*") -> "int")]
    fn clear(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> PyResult<u64> {
        detached(py, || self.handle.clear(pattern))
    }

    /// Replaces a value by what `fn` makes of the current one, and returns the new value.
    ///
    /// `fn` gets `default` when the key is missing.
    #[pyo3(signature = (key: "str", r#fn: "collections.abc.Callable[[typing.Any], object]", default: "object" = None) -> "typing.Any")]
    fn modify<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        r#fn: Function,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let update = Update::new(r#fn, default, self.hook(py), self.handle.max_value_bytes());
        let entry =
            detached(py, || self.handle.modify(key.0, |current| update.call(current.map(|entry| &**entry))))?;
        value::read_passing(py, &entry)
    }

    /// Adds to a number and returns the sum; a missing key counts as 0.
    #[pyo3(signature = (key: "str", by: "float" = Amount::ONE) -> "typing.Any", text_signature = "($self, key, by=1)")]
    fn increment<'py>(&self, py: Python<'py>, key: Key<'_>, by: Amount) -> PyResult<Bound<'py, PyAny>> {
        let sum = detached(py, || self.handle.increment(key.0, by.0))?;
        value::number(py, sum)
    }

    /// The value of a key; when it is missing, `default` is stored first.
    #[pyo3(signature = (key: "str", default: "object" = None) -> "typing.Any")]
    fn setdefault<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let document = self.document(&default.unwrap_or_else(|| py.None().into_bound(py)), None)?;
        let found = detached(py, || set_default(&self.handle, key.0, &document))?;
        value::read(py, found.as_ref().map_or(&document, |entry| entry.document()))
    }

    /// Removes a key and returns its value, or `missing` when it is not there.
    #[pyo3(signature = (key: "str", missing: "object") -> "typing.Any")]
    fn take<'py>(&self, py: Python<'py>, key: Key<'_>, missing: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let taken = detached(py, || take(&self.handle, key.0))?;
        taken.map_or(Ok(missing), |entry| value::read_passing(py, &entry))
    }

    /// The same transaction, seen from the scope of this name.
    #[pyo3(signature = (name: "str") -> "Transaction")]
    fn scope(&self, py: Python<'_>, name: Name<'_>) -> PyResult<Self> {
        let scope = detached(py, || self.handle.scope(name.0))?;
        Ok(Self::new(scope, self.hook(py)))
    }

    /// Commits and returns the version of the commit. `ConflictError` when another writer changed what was read here.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || self.handle.commit())
    }

    /// Forgets every change.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.handle.rollback())
    }

    /// Whether it was neither committed nor rolled back.
    #[getter]
    fn active(&self) -> bool {
        self.handle.is_active()
    }
} }

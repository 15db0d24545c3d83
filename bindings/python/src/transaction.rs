//! `Transaction`: the verbs of a scope over one snapshot, committed together or not at all.

use crate::argument::{self, After, Amount, Key, Keys, Limit, Members, Name, Version};
use crate::callback::Update;
use crate::error::to_py;
use crate::scope::{found, missing};
use crate::{entry, iterators, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Document, Entry};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// The verbs of a transaction; `llmspell_state.Transaction` adds Python's mapping protocol.
#[pyclass(frozen, subclass, weakref, module = "llmspell_state._native")]
pub(crate) struct Transaction {
    transaction: core::Transaction,
    hook: Option<Py<PyAny>>,
}

impl Transaction {
    pub(crate) fn new(transaction: core::Transaction, hook: Option<Py<PyAny>>) -> Self {
        Self { transaction, hook }
    }

    fn document(&self, object: &Bound<'_, PyAny>, hook: Option<&Bound<'_, PyAny>>) -> PyResult<Document> {
        let own = self.hook.as_ref().map(|hook| hook.bind(object.py()));
        value::document(object, hook.or(own), self.transaction.max_value_bytes())
    }

    fn hook(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.hook.as_ref().map(|hook| hook.clone_ref(py))
    }

    fn find(&self, py: Python<'_>, key: &Key<'_>) -> PyResult<Option<Arc<Entry>>> {
        py.detach(|| self.transaction.entry(key.0)).map_err(to_py)
    }
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

#[pymethods]
impl Transaction {
    /// Another handle of the same transaction.
    #[new]
    #[pyo3(signature = (of: "Transaction"))]
    fn py_new(of: &Bound<'_, Self>) -> Self {
        Self::new(of.get().transaction.clone(), of.get().hook(of.py()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hook)
    }

    /// Commits; after an exception, rolls back. A transaction that was ended inside the block stays as it is.
    fn __exit__(
        &self,
        py: Python<'_>,
        error: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if self.transaction.has_ended() {
            return Ok(());
        }
        if error.is_none() { self.commit(py).map(drop) } else { self.rollback(py) }
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: Key<'_>) -> PyResult<Bound<'py, PyAny>> {
        let entry = self.find(py, &key)?.ok_or_else(|| missing(&key))?;
        value::read_entry(py, &entry)
    }

    fn __setitem__(&self, py: Python<'_>, key: Key<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let document = self.document(value, None)?;
        py.detach(|| self.transaction.set(key.0, document)).map_err(to_py)
    }

    fn __delitem__(&self, py: Python<'_>, key: Key<'_>) -> PyResult<()> {
        if self.delete(py, Key(key.0), None)? { Ok(()) } else { Err(missing(&key)) }
    }

    fn __contains__(&self, py: Python<'_>, key: Key<'_>) -> PyResult<bool> {
        self.exists(py, key)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(usize::try_from(self.count(py, "*")?)?)
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<iterators::Keys> {
        self.iter_keys(py, "*", None, None, false)
    }

    /// The value of a key, or `default` when it is missing. Every call gives an object of its own.
    #[pyo3(signature = (key: "str", default: "object" = None) -> "typing.Any")]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.find(py, &key)? {
            Some(entry) => value::read_entry(py, &entry),
            None => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    /// The value of a key with its version and times, or `None` when it is missing.
    #[pyo3(signature = (key: "str") -> "typing.Any")]
    fn entry<'py>(&self, py: Python<'py>, key: Key<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.find(py, &key)?.map(|found| entry::to_py(py, &found)).transpose()
    }

    /// The values of those keys that are there, read at one moment.
    #[pyo3(signature = (keys: "collections.abc.Iterable[str]") -> "dict[str, typing.Any]")]
    fn get_many<'py>(&self, py: Python<'py>, keys: Keys) -> PyResult<Bound<'py, PyDict>> {
        let entries = py.detach(|| self.transaction.get_many(&keys.0)).map_err(to_py)?;
        found(py, &keys, &entries)
    }

    /// Whether a key is there.
    #[pyo3(signature = (key: "str") -> "bool")]
    fn exists(&self, py: Python<'_>, key: Key<'_>) -> PyResult<bool> {
        py.detach(|| self.transaction.exists(key.0)).map_err(to_py)
    }

    /// Stores a value, for the commit.
    ///
    /// With `if_version`, only when the key's version is still that one (0: when the key is missing); `ConflictError`
    /// otherwise. `default` turns objects that cannot be stored into ones that can, for this call.
    #[pyo3(signature = (key: "str", value: "object", *, if_version: "int | None" = None, default: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "None")]
    fn set(
        &self,
        py: Python<'_>,
        key: Key<'_>,
        value: &Bound<'_, PyAny>,
        if_version: Option<Version>,
        default: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let document = self.document(value, default)?;
        py.detach(|| match if_version {
            None => self.transaction.set(key.0, document),
            Some(version) => self.transaction.set_if(key.0, document, version.0),
        })
        .map_err(to_py)
    }

    /// Stores all members of a mapping, for the commit.
    #[pyo3(signature = (mapping: "collections.abc.Mapping[str, typing.Any]") -> "None")]
    fn set_many(&self, py: Python<'_>, mapping: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut members =
            Members::of(mapping, self.hook.as_ref().map(|hook| hook.bind(py)), self.transaction.max_value_bytes())?;
        py.detach(|| self.transaction.set_many(members.take())).map_err(to_py)
    }

    /// Removes a key and says whether it was there; with `if_version`, only when that is still its version.
    #[pyo3(signature = (key: "str", *, if_version: "int | None" = None) -> "bool")]
    fn delete(&self, py: Python<'_>, key: Key<'_>, if_version: Option<Version>) -> PyResult<bool> {
        py.detach(|| match if_version {
            None => self.transaction.delete(key.0),
            Some(version) => self.transaction.delete_if(key.0, version.0),
        })
        .map_err(to_py)
    }

    /// Removes all keys that match and returns how many there were.
    #[pyo3(signature = (pattern: "str" = "*") -> "int")]
    fn clear(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> PyResult<u64> {
        py.detach(|| self.transaction.clear(pattern)).map_err(to_py)
    }

    /// How many keys match.
    #[pyo3(signature = (pattern: "str" = "*") -> "int")]
    fn count(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> PyResult<u64> {
        py.detach(|| self.transaction.count(pattern)).map_err(to_py)
    }

    /// Iterates over the keys that match, in the order of their bytes.
    #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Keys")]
    fn iter_keys(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        reverse: bool,
    ) -> PyResult<iterators::Keys> {
        let select = argument::select(pattern, after, limit, reverse);
        py.detach(|| self.transaction.keys(select)).map(iterators::Keys::from).map_err(to_py)
    }

    /// Iterates over the keys that match and their values.
    #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Items")]
    fn iter_items(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        reverse: bool,
    ) -> PyResult<iterators::Items> {
        let select = argument::select(pattern, after, limit, reverse);
        py.detach(|| self.transaction.items(select)).map(iterators::Items::from).map_err(to_py)
    }

    /// Iterates over the values of the keys that match.
    #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Values")]
    fn iter_values(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        reverse: bool,
    ) -> PyResult<iterators::Values> {
        let select = argument::select(pattern, after, limit, reverse);
        py.detach(|| self.transaction.items(select)).map(iterators::Values::from).map_err(to_py)
    }

    /// Replaces a value by what `fn` makes of the current one, and returns the new value.
    ///
    /// `fn` gets `default` when the key is missing.
    #[pyo3(signature = (key: "str", r#fn: "collections.abc.Callable[[typing.Any], object]", default: "object" = None) -> "typing.Any")]
    fn modify<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        r#fn: Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let update = Update::new(r#fn, default, self.hook(py), self.transaction.max_value_bytes());
        let entry =
            py.detach(|| self.transaction.modify(key.0, |current| update.call(current.map(|entry| &**entry))))?;
        value::read_passing(py, &entry)
    }

    /// Adds to a number and returns the sum; a missing key counts as 0.
    #[pyo3(signature = (key: "str", by: "float" = Amount::ONE) -> "typing.Any", text_signature = "($self, key, by=1)")]
    fn increment<'py>(&self, py: Python<'py>, key: Key<'_>, by: Amount) -> PyResult<Bound<'py, PyAny>> {
        let sum = py.detach(|| self.transaction.increment(key.0, by.0)).map_err(to_py)?;
        value::number(py, sum)
    }

    /// Adds an item to the end of a list and returns the new length; a missing key counts as an empty list.
    #[pyo3(signature = (key: "str", item: "object") -> "int")]
    fn append(&self, py: Python<'_>, key: Key<'_>, item: &Bound<'_, PyAny>) -> PyResult<u64> {
        let document = self.document(item, None)?;
        py.detach(|| self.transaction.append(key.0, document)).map_err(to_py)
    }

    /// Merges a patch into a value (JSON Merge Patch, RFC 7386: `None` removes a member) and returns the result.
    #[pyo3(signature = (key: "str", patch: "object") -> "typing.Any")]
    fn merge<'py>(&self, py: Python<'py>, key: Key<'_>, patch: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let document = self.document(patch, None)?;
        value::read(py, &py.detach(|| self.transaction.merge(key.0, document)).map_err(to_py)?)
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
        let found = py.detach(|| set_default(&self.transaction, key.0, &document)).map_err(to_py)?;
        value::read(py, found.as_ref().map_or(&document, |entry| entry.document()))
    }

    /// Removes a key and returns its value, or `missing` when it is not there.
    #[pyo3(signature = (key: "str", missing: "object") -> "typing.Any")]
    fn take<'py>(&self, py: Python<'py>, key: Key<'_>, missing: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let taken = py.detach(|| take(&self.transaction, key.0)).map_err(to_py)?;
        taken.map_or(Ok(missing), |entry| value::read_passing(py, &entry))
    }

    /// The same transaction, seen from the scope of this name.
    #[pyo3(signature = (name: "str") -> "Transaction")]
    fn scope(&self, py: Python<'_>, name: Name<'_>) -> PyResult<Self> {
        let scope = py.detach(|| self.transaction.scope(name.0)).map_err(to_py)?;
        Ok(Self::new(scope, self.hook(py)))
    }

    /// Commits and returns the version of the commit. `ConflictError` when another writer changed what was read here.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.transaction.commit()).map_err(to_py)
    }

    /// Forgets every change.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.transaction.rollback()).map_err(to_py)
    }

    /// Whether it was neither committed nor rolled back.
    #[getter]
    fn active(&self) -> bool {
        self.transaction.is_active()
    }
}

//! The verbs that read the same in a scope, in a transaction and in a view of the past, and those that write the same in the
//! first two. What differs is told by each of them.

use crate::argument::{Key, Keys};
use crate::value;
use llmspell_state_persistence::Entry;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// The entries that were found, under the keys that were asked for.
pub(crate) fn found<'py>(py: Python<'py>, keys: &Keys, entries: &[Option<Arc<Entry>>]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, entry) in keys.0.iter().zip(entries) {
        if let Some(entry) = entry {
            dict.set_item(key, value::read_entry(py, entry)?)?;
        }
    }
    Ok(dict)
}

/// What `[]` and `del` raise for a key that is not there.
pub(crate) fn missing(key: &Key<'_>) -> PyErr {
    PyKeyError::new_err(key.0.to_owned())
}

/// The methods for Python of a class whose `handle` has the core's verbs that read: the shared ones, and then its own.
///
/// The class brings `find`, which looks for an entry, and among its own methods `exists`.
macro_rules! reading_verbs {
    ($class:ident { $($own:tt)* }) => {
        #[pymethods]
        impl $class {
            fn __getitem__<'py>(&self, py: Python<'py>, key: Key<'_>) -> PyResult<Bound<'py, PyAny>> {
                let entry = self.find(py, &key)?.ok_or_else(|| missing(&key))?;
                value::read_entry(py, &entry)
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

            /// What the `Entry` of a key is made of, or `None` when it is missing.
            #[pyo3(signature = (key: "str") -> "typing.Any")]
            fn entry<'py>(&self, py: Python<'py>, key: Key<'_>) -> PyResult<Option<Bound<'py, PyAny>>> {
                self.find(py, &key)?.map(|found| entry::fields(py, &found)).transpose()
            }

            /// The values of those keys that are there, read at one moment.
            #[pyo3(signature = (keys: "collections.abc.Iterable[str]") -> "dict[str, typing.Any]")]
            fn get_many<'py>(&self, py: Python<'py>, keys: Keys) -> PyResult<Bound<'py, PyDict>> {
                let entries = detached(py, || self.handle.get_many(&keys.0))?;
                found(py, &keys, &entries)
            }

            /// How many keys match.
            #[pyo3(signature = (pattern: "str" = "*") -> "int")]
            fn count(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> PyResult<u64> {
                detached(py, || self.handle.count(pattern))
            }

            /// Iterates over the keys that match, in the order of their bytes.
            #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Keys")]
            fn iter_keys(
                &self,
                py: Python<'_>,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> PyResult<iterators::Keys> {
                let select = argument::select(pattern, after, limit, reverse);
                detached(py, || self.handle.keys(select)).map(iterators::Keys::from)
            }

            /// Iterates over the keys that match and their values.
            #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Items")]
            fn iter_items(
                &self,
                py: Python<'_>,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> PyResult<iterators::Items> {
                let select = argument::select(pattern, after, limit, reverse);
                detached(py, || self.handle.items(select)).map(iterators::Items::from)
            }

            /// Iterates over the values of the keys that match.
            #[pyo3(signature = (pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = false) -> "Values")]
            fn iter_values(
                &self,
                py: Python<'_>,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> PyResult<iterators::Values> {
                let select = argument::select(pattern, after, limit, reverse);
                detached(py, || self.handle.items(select)).map(iterators::Values::from)
            }

            $($own)*
        }
    };
}
pub(crate) use reading_verbs;

/// The same with the verbs that write. The class also brings its own `set`.
macro_rules! verbs {
    ($class:ident { $($own:tt)* }) => {
        impl $class {
            fn document(&self, object: &Bound<'_, PyAny>, hook: Option<&Hook>) -> PyResult<Document> {
                let hook = hook.or(self.hook.as_ref()).map(|hook| hook.0.bind(object.py()));
                value::document(object, hook, self.handle.max_value_bytes())
            }

            fn members(&self, mapping: &Bound<'_, PyAny>) -> PyResult<Members> {
                let hook = self.hook.as_ref().map(|hook| hook.0.bind(mapping.py()));
                Members::of(mapping, hook, self.handle.max_value_bytes())
            }

            fn hook(&self, py: Python<'_>) -> Option<Hook> {
                self.hook.as_ref().map(|hook| hook.clone_ref(py))
            }
        }

        reading_verbs! { $class {
            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(self.hook.as_ref().map(|hook| &hook.0))
            }

            fn __setitem__(&self, py: Python<'_>, key: Key<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
                self.set(py, key, value, None, None, None).map(drop)
            }

            fn __delitem__(&self, py: Python<'_>, key: Key<'_>) -> PyResult<()> {
                if self.delete(py, Key(key.0), None)? { Ok(()) } else { Err(missing(&key)) }
            }

            /// Gives a key another time to live from now on and leaves its value; says whether it was there.
            ///
            /// `ttl` is in seconds, infinity is for ever, and `None` is as the scope's `default_ttl` says. In a transaction it
            /// counts from the commit on.
            #[pyo3(signature = (key: "str", ttl: "float | datetime.timedelta | None" = None) -> "bool")]
            fn touch(&self, py: Python<'_>, key: Key<'_>, ttl: Option<ToLive>) -> PyResult<bool> {
                let ttl = ttl::told(ttl);
                detached(py, || self.handle.touch(key.0, ttl))
            }

            /// Removes a key and says whether it was there; with `if_version`, only when that is still its version.
            #[pyo3(signature = (key: "str", *, if_version: "int | None" = None) -> "bool")]
            fn delete(&self, py: Python<'_>, key: Key<'_>, if_version: Option<Version>) -> PyResult<bool> {
                detached(py, || match if_version {
                    None => self.handle.delete(key.0),
                    Some(version) => self.handle.delete_if(key.0, version.0),
                })
            }

            /// Adds an item to the end of a list and returns the new length; a missing key counts as an empty list.
            #[pyo3(signature = (key: "str", item: "object") -> "int")]
            fn append(&self, py: Python<'_>, key: Key<'_>, item: &Bound<'_, PyAny>) -> PyResult<u64> {
                let document = self.document(item, None)?;
                detached(py, || self.handle.append(key.0, document))
            }

            /// Merges a patch into a value (JSON Merge Patch, RFC 7386: `None` removes a member) and returns the result.
            #[pyo3(signature = (key: "str", patch: "object") -> "typing.Any")]
            fn merge<'py>(&self, py: Python<'py>, key: Key<'_>, patch: &Bound<'_, PyAny>) -> PyResult<Bound<'py, PyAny>> {
                let document = self.document(patch, None)?;
                value::read(py, &detached(py, || self.handle.merge(key.0, document))?)
            }

            $($own)*
        } }
    };
}
pub(crate) use verbs;

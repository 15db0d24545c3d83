//! The verbs that read the same in a scope, in a transaction and in a view of the past, and those that write the same in the
//! first two. How each makes its calls is told there.

/// The methods for Python of a class whose `handle` has the core's verbs that read: the shared ones, and then its own.
///
/// The class brings `find`, the call that looks for an entry.
macro_rules! reading_verbs {
    ($class:ident { $($own:tt)* }) => {
        #[pymethods]
        impl $class {
            /// The value of a key, or `MISSING`.
            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
            fn get<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
                later(to, future, self.find(key.0), give::found)
            }

            /// The value of a key with its version and times, or `None`.
            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
            fn entry<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
                later(to, future, self.find(key.0), give::entry)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None")]
            fn exists<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
                later(to, future, self.find(key.0), give::existence)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None")]
            fn get_many<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, keys: Keys) -> PyResult<()> {
                let keys = keys.into_strings();
                let call = self.handle.call(move |handle| handle.get_many(&keys).map(|found| (keys, found)));
                later(to, future, Ok(call), give::members)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None")]
            fn count<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
            ) -> PyResult<()> {
                let pattern = pattern.to_owned();
                later(to, future, Ok(self.handle.call(move |handle| handle.count(&pattern))), give::count)
            }

            #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys")]
            fn keys(
                &self,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> AsyncKeys {
                let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
                AsyncKeys::new(Source::from(&self.handle), move || handle.keys(select))
            }

            #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems")]
            fn items(
                &self,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> AsyncItems {
                let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
                AsyncItems::new(Source::from(&self.handle), move || handle.items(select))
            }

            #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues")]
            fn values(
                &self,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
                after: Option<After<'_>>,
                limit: Option<Limit>,
                #[pyo3(from_py_with = argument::reverse)] reverse: bool,
            ) -> AsyncValues {
                let (handle, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
                AsyncValues::new(Source::from(&self.handle), move || handle.items(select))
            }

            $($own)*
        }
    };
}
pub(super) use reading_verbs;

/// The same with the verbs that write. The class brings `calls`, with those of them that the core has, `set_default` and `taken`.
macro_rules! verbs {
    ($class:ident { $($own:tt)* }) => {
        impl $class {
            fn document(&self, object: &Bound<'_, PyAny>, hook: Option<&Hook>) -> PyResult<Document> {
                value::document(object, hook.map(|hook| hook.0.bind(object.py())), self.handle.max_value_bytes())
            }
        }

        reading_verbs! { $class {
            /// The value of a key, or `default` when it is missing; `unknown` when only the database could tell.
            #[pyo3(signature = (key: "str", default: "object", unknown: "object") -> "typing.Any")]
            fn peek<'py>(
                &self,
                py: Python<'py>,
                key: Key<'_>,
                default: Bound<'py, PyAny>,
                unknown: Bound<'py, PyAny>,
            ) -> PyResult<Bound<'py, PyAny>> {
                match self.handle.peek(key.0).map_err(to_py)? {
                    Some(Some(entry)) => value::read_entry(py, &entry),
                    Some(None) => Ok(default),
                    None => Ok(unknown),
                }
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str", ttl: "float | datetime.timedelta | None") -> "None")]
            fn touch<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                ttl: Option<ToLive>,
            ) -> PyResult<()> {
                later(to, future, self.calls().touch(key.0, ttl::told(ttl)), give::truth)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", key: "str", if_version: "int | None") -> "None")]
            fn delete<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                if_version: Option<Version>,
            ) -> PyResult<()> {
                let call = match if_version {
                    None => self.calls().delete(key.0),
                    Some(version) => self.calls().delete_if(key.0, version.0),
                };
                later(to, future, call, give::truth)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None")]
            fn clear<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                #[pyo3(from_py_with = argument::pattern)] pattern: &str,
            ) -> PyResult<()> {
                later(to, future, self.calls().clear(pattern), give::count)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", by: "float") -> "None")]
            fn increment<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                by: Amount,
            ) -> PyResult<()> {
                later(to, future, self.calls().increment(key.0, by.0), give::number)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", key: "str", item: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
            fn append<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                item: &Bound<'py, PyAny>,
                default: Option<Hook>,
            ) -> PyResult<()> {
                let document = self.document(item, default.as_ref())?;
                later(to, future, self.calls().append(key.0, document), give::count)
            }

            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", patch: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
            fn merge<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                patch: &Bound<'py, PyAny>,
                default: Option<Hook>,
            ) -> PyResult<()> {
                let document = self.document(patch, default.as_ref())?;
                later(to, future, self.calls().merge(key.0, document), give::document)
            }

            /// The value of a key, which is `value` when it was missing.
            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
            fn setdefault<'py>(
                &self,
                to: &Bound<'py, Completions>,
                future: Bound<'py, PyAny>,
                key: Key<'_>,
                value: &Bound<'py, PyAny>,
                default: Option<Hook>,
            ) -> PyResult<()> {
                let document = self.document(value, default.as_ref())?;
                later(to, future, self.set_default(key.0, document), give::document)
            }

            /// Removes a key and gives its value, or `MISSING`.
            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None")]
            fn take<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, key: Key<'_>) -> PyResult<()> {
                later(to, future, self.taken(key.0), give::found)
            }

            $($own)*
        } }
    };
}
pub(super) use verbs;

//! `AsyncScope`: the verbs of a scope for an event loop.

use super::completions::{Give, later};
use super::give;
use super::listing::{AsyncDifferences, AsyncItems, AsyncKeys, AsyncValues, Gathered, Source};
use super::transaction::AsyncTransaction;
use super::view::AsyncView;
use super::watch::AsyncWatch;
use crate::argument::{
    self, Actor, After, Amount, From, Hook, Key, Keys, Limit, Members, Name, Reason, Run, Since, Until, Version, When,
};
use crate::error::to_py;
use crate::{history, transaction, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::Document;
use pyo3::prelude::*;

type Future<'py> = PyResult<Bound<'py, PyAny>>;

/// A scope; `llmspell_state.aio.Scope` is what users see.
#[pyclass(frozen, subclass, module = "llmspell_state._native")]
pub(crate) struct AsyncScope {
    handle: core::Scope,
}

impl AsyncScope {
    pub(super) fn new(handle: core::Scope) -> Self {
        Self { handle }
    }

    fn document(&self, object: &Bound<'_, PyAny>, hook: Option<&Hook>) -> PyResult<Document> {
        value::document(object, hook.map(|hook| hook.0.bind(object.py())), self.handle.max_value_bytes())
    }

    /// Does what asks the database in a thread of the core.
    fn ask<'py, T: Send + 'static>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(&core::Scope) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> Future<'py> {
        later(py, Ok(self.handle.call(work)), give)
    }
}

fn give_scope(py: Python<'_>, scope: core::Scope) -> Future<'_> {
    Ok(Bound::new(py, AsyncScope::new(scope))?.into_any())
}

#[pymethods]
impl AsyncScope {
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

    /// The value of a key, or `MISSING`.
    #[pyo3(signature = (key: "str") -> "asyncio.Future[typing.Any]")]
    fn get<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        later(py, self.handle.calls().entry(key.0), give::found)
    }

    /// The value of a key with its version and times, or `None`.
    #[pyo3(signature = (key: "str") -> "asyncio.Future[typing.Any]")]
    fn entry<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        later(py, self.handle.calls().entry(key.0), give::entry)
    }

    #[pyo3(signature = (key: "str") -> "asyncio.Future[bool]")]
    fn exists<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        later(py, self.handle.calls().entry(key.0), give::existence)
    }

    #[pyo3(signature = (keys: "collections.abc.Iterable[str]") -> "asyncio.Future[dict[str, typing.Any]]")]
    fn get_many<'py>(&self, py: Python<'py>, keys: Keys) -> Future<'py> {
        let keys = keys.into_strings();
        self.ask(py, move |scope| scope.get_many(&keys).map(|found| (keys, found)), give::members)
    }

    #[pyo3(signature = (key: "str", value: "object", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[int]")]
    fn set<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> Future<'py> {
        let document = self.document(value, default.as_ref())?;
        let call = match if_version {
            None => self.handle.calls().set(key.0, document),
            Some(version) => self.handle.calls().set_if(key.0, document, version.0),
        };
        later(py, call, give::count)
    }

    /// Sets a key if it has that version still, and gives the new value.
    #[pyo3(signature = (key: "str", value: "object", if_version: "int", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[typing.Any]")]
    fn swap<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        if_version: Version,
        default: Option<Hook>,
    ) -> Future<'py> {
        let document = self.document(value, default.as_ref())?;
        later(py, self.handle.calls().swap(key.0, document, if_version.0), give::written)
    }

    #[pyo3(signature = (mapping: "collections.abc.Mapping[str, typing.Any]", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[int]")]
    fn set_many<'py>(&self, py: Python<'py>, mapping: &Bound<'py, PyAny>, default: Option<Hook>) -> Future<'py> {
        let hook = default.as_ref().map(|hook| hook.0.bind(py));
        let mut members = Members::of(mapping, hook, self.handle.max_value_bytes())?;
        later(py, self.handle.calls().set_many(members.take()), give::count)
    }

    #[pyo3(signature = (key: "str", if_version: "int | None") -> "asyncio.Future[bool]")]
    fn delete<'py>(&self, py: Python<'py>, key: Key<'_>, if_version: Option<Version>) -> Future<'py> {
        let call = match if_version {
            None => self.handle.calls().delete(key.0),
            Some(version) => self.handle.calls().delete_if(key.0, version.0),
        };
        later(py, call, give::truth)
    }

    #[pyo3(signature = (pattern: "str") -> "asyncio.Future[int]")]
    fn clear<'py>(&self, py: Python<'py>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> Future<'py> {
        later(py, self.handle.calls().clear(pattern), give::count)
    }

    #[pyo3(signature = (pattern: "str") -> "asyncio.Future[int]")]
    fn count<'py>(&self, py: Python<'py>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> Future<'py> {
        let pattern = pattern.to_owned();
        self.ask(py, move |scope| scope.count(&pattern), give::count)
    }

    #[pyo3(signature = (key: "str", by: "float") -> "asyncio.Future[typing.Any]")]
    fn increment<'py>(&self, py: Python<'py>, key: Key<'_>, by: Amount) -> Future<'py> {
        later(py, self.handle.calls().increment(key.0, by.0), give::number)
    }

    #[pyo3(signature = (key: "str", item: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[int]")]
    fn append<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        item: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> Future<'py> {
        let document = self.document(item, default.as_ref())?;
        later(py, self.handle.calls().append(key.0, document), give::count)
    }

    #[pyo3(signature = (key: "str", patch: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[typing.Any]")]
    fn merge<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        patch: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> Future<'py> {
        let document = self.document(patch, default.as_ref())?;
        later(py, self.handle.calls().merge(key.0, document), give::document)
    }

    /// The value of a key, which is `value` when it was missing.
    #[pyo3(signature = (key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "asyncio.Future[typing.Any]")]
    fn setdefault<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        default: Option<Hook>,
    ) -> Future<'py> {
        let (key, document) = (key.0.to_owned(), self.document(value, default.as_ref())?);
        self.ask(
            py,
            move |scope| {
                let found = scope.transact(|tx| transaction::set_default(tx, &key, &document))?;
                Ok(found.map_or(document, |entry| entry.document().clone()))
            },
            give::document,
        )
    }

    /// Removes a key and gives its value, or `MISSING`.
    #[pyo3(signature = (key: "str") -> "asyncio.Future[typing.Any]")]
    fn take<'py>(&self, py: Python<'py>, key: Key<'_>) -> Future<'py> {
        let key = key.0.to_owned();
        self.ask(py, move |scope| scope.transact(|tx| transaction::take(tx, &key)), give::found)
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys")]
    fn keys(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncKeys {
        let (scope, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncKeys::new(Source::Scope(self.handle.clone()), move || scope.keys(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems")]
    fn items(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncItems {
        let (scope, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncItems::new(Source::Scope(self.handle.clone()), move || scope.items(select))
    }

    #[pyo3(signature = (pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues")]
    fn values(
        &self,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        after: Option<After<'_>>,
        limit: Option<Limit>,
        #[pyo3(from_py_with = argument::reverse)] reverse: bool,
    ) -> AsyncValues {
        let (scope, select) = (self.handle.clone(), argument::select(pattern, after, limit, reverse));
        AsyncValues::new(Source::Scope(self.handle.clone()), move || scope.items(select))
    }

    #[pyo3(signature = (name: "str") -> "asyncio.Future[AsyncScope]")]
    fn scope<'py>(&self, py: Python<'py>, name: Name<'_>) -> Future<'py> {
        let name = name.0.to_owned();
        self.ask(py, move |scope| scope.scope(&name), give_scope)
    }

    #[pyo3(signature = () -> "asyncio.Future[list[str]]")]
    fn scopes<'py>(&self, py: Python<'py>) -> Future<'py> {
        self.ask(py, core::Scope::scopes, give::names)
    }

    #[pyo3(signature = () -> "asyncio.Future[AsyncTransaction]")]
    fn transaction<'py>(&self, py: Python<'py>) -> Future<'py> {
        later(py, self.handle.calls().transaction(), AsyncTransaction::give)
    }

    #[pyo3(signature = (pattern: "str", since: "int | None", name: "str | None") -> "asyncio.Future[AsyncWatch]")]
    fn watch<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        since: Option<Since>,
        name: Option<Name<'_>>,
    ) -> Future<'py> {
        let options = argument::watched(pattern, since, name);
        later(py, self.handle.calls().watch(options), AsyncWatch::give)
    }

    #[pyo3(signature = () -> "asyncio.Future[dict[str, int]]")]
    fn named_watches<'py>(&self, py: Python<'py>) -> Future<'py> {
        self.ask(py, core::Scope::named_watches, give::watches)
    }

    #[pyo3(signature = (name: "str") -> "asyncio.Future[bool]")]
    fn forget_watch<'py>(&self, py: Python<'py>, name: Name<'_>) -> Future<'py> {
        let name = name.0.to_owned();
        self.ask(py, move |scope| scope.forget_watch(&name), give::truth)
    }

    /// The same scope, whose changes are told to be of this actor and run, and for this reason.
    #[pyo3(signature = (actor: "str | None", run: "str | None", reason: "str | None") -> "AsyncScope")]
    fn as_run(&self, actor: Option<Actor<'_>>, run: Option<Run<'_>>, reason: Option<Reason<'_>>) -> PyResult<Self> {
        self.handle.as_run(argument::origin(actor, run, reason)).map(Self::new).map_err(to_py)
    }

    #[pyo3(signature = (key: "str", limit: "int | None") -> "asyncio.Future[list[typing.Any]]")]
    fn history<'py>(&self, py: Python<'py>, key: Key<'_>, limit: Option<Limit>) -> Future<'py> {
        let (key, limit) = (key.0.to_owned(), argument::most(limit));
        self.ask(py, move |scope| scope.history(&key, limit), give::revisions)
    }

    #[pyo3(signature = (when: "int | datetime.datetime") -> "asyncio.Future[AsyncView]")]
    fn at<'py>(&self, py: Python<'py>, when: When) -> Future<'py> {
        self.ask(py, move |scope| Ok((scope.clone(), scope.at(when.0)?)), AsyncView::give)
    }

    #[pyo3(signature = (since: "int | datetime.datetime", until: "int | datetime.datetime | None", pattern: "str") -> "AsyncDifferences")]
    fn diff(
        &self,
        since: From,
        until: Option<Until>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> AsyncDifferences {
        let (scope, pattern) = (self.handle.clone(), pattern.to_owned());
        let until = until.map(|until| until.0);
        AsyncDifferences::new(Source::Scope(self.handle.clone()), move || {
            scope.diff(since.0, until, &pattern).map(Gathered::from)
        })
    }

    #[pyo3(signature = (key: "str", when: "int | datetime.datetime") -> "asyncio.Future[int]")]
    fn revert<'py>(&self, py: Python<'py>, key: Key<'_>, when: When) -> Future<'py> {
        let key = key.0.to_owned();
        self.ask(py, move |scope| scope.revert(&key, when.0), give::count)
    }

    #[pyo3(signature = (when: "int | datetime.datetime", pattern: "str") -> "asyncio.Future[int]")]
    fn revert_to<'py>(
        &self,
        py: Python<'py>,
        when: When,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> Future<'py> {
        let pattern = pattern.to_owned();
        self.ask(py, move |scope| scope.revert_to(when.0, &pattern), give::count)
    }

    #[pyo3(signature = (actor: "str | None", run: "str | None", since: "int") -> "asyncio.Future[typing.Any]")]
    fn undo<'py>(&self, py: Python<'py>, actor: Option<Actor<'_>>, run: Option<Run<'_>>, since: Since) -> Future<'py> {
        let what = argument::undo(actor, run, since);
        self.ask(py, move |scope| scope.undo(what), history::undone)
    }

    /// The scope's own name; empty for the root.
    #[getter]
    fn name(&self) -> &str {
        self.handle.name()
    }

    /// Whether the store was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.is_closed()
    }
}

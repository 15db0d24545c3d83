//! `AsyncScope`: the verbs of a scope for an event loop.

use super::completions::{Completions, Give, later};
use super::give;
use super::listing::{AsyncDifferences, AsyncItems, AsyncKeys, AsyncValues, Gathered, Source};
use super::transaction::AsyncTransaction;
use super::verbs::{reading_verbs, verbs};
use super::view::AsyncView;
use super::watch::AsyncWatch;
use crate::argument::{
    self, Actor, After, Amount, Child, From, Hook, Key, Keys, Limit, Members, Name, Reason, Run, Since, Until, Version,
    When,
};
use crate::error::to_py;
use crate::retention::Policy;
use crate::ttl::ToLive;
use crate::{history, retention, transaction, ttl, usage, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Call, Calls, Document, Entry};
use pyo3::prelude::*;
use std::sync::Arc;

/// A scope; `llmspell_state.aio.Scope` is what users see.
#[pyclass(frozen, subclass, module = "llmspell_state._native")]
pub(crate) struct AsyncScope {
    handle: core::Scope,
}

impl AsyncScope {
    pub(super) fn new(handle: core::Scope) -> Self {
        Self { handle }
    }

    pub(super) fn handle(&self) -> &core::Scope {
        &self.handle
    }

    fn calls(&self) -> Calls<'_> {
        self.handle.calls()
    }

    fn find(&self, key: &str) -> core::Result<Call<Option<Arc<Entry>>>> {
        self.calls().entry(key)
    }

    #[allow(clippy::unnecessary_wraps)] // as for a transaction
    fn set_default(&self, key: &str, document: Document) -> core::Result<Call<Document>> {
        let key = key.to_owned();
        Ok(self.handle.call(move |scope| {
            let found = scope.transact(|tx| transaction::set_default(tx, &key, &document))?;
            Ok(found.map_or(document, |entry| entry.document().clone()))
        }))
    }

    #[allow(clippy::unnecessary_wraps)] // as for a transaction
    fn taken(&self, key: &str) -> core::Result<Call<Option<Arc<Entry>>>> {
        let key = key.to_owned();
        Ok(self.handle.call(move |scope| scope.transact(|tx| transaction::take(tx, &key))))
    }

    /// Does what asks the database in a thread of the core.
    fn ask<'py, T: Send + 'static>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        work: impl FnOnce(&core::Scope) -> core::Result<T> + Send + 'static,
        give: Give<T>,
    ) -> PyResult<()> {
        later(to, future, Ok(self.handle.call(work)), give)
    }
}

fn give_scope(py: Python<'_>, scope: core::Scope) -> PyResult<Bound<'_, PyAny>> {
    Ok(Bound::new(py, AsyncScope::new(scope))?.into_any())
}

verbs! { AsyncScope {
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", key: "str", value: "object", ttl: "float | datetime.timedelta | None", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    #[allow(clippy::too_many_arguments)] // as users give them
    fn set<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        ttl: Option<ToLive>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        let options = ttl::options(ttl, if_version);
        later(to, future, self.calls().set_with(key.0, document, options), give::count)
    }

    /// Sets a key if it has that version still, and gives the new value.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", if_version: "int", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn swap<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        value: &Bound<'py, PyAny>,
        if_version: Version,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let document = self.document(value, default.as_ref())?;
        later(to, future, self.handle.calls().swap(key.0, document, if_version.0), give::written)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", mapping: "collections.abc.Mapping[str, typing.Any]", ttl: "float | datetime.timedelta | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None")]
    fn set_many<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        mapping: &Bound<'py, PyAny>,
        ttl: Option<ToLive>,
        default: Option<Hook>,
    ) -> PyResult<()> {
        let hook = default.as_ref().map(|hook| hook.0.bind(to.py()));
        let mut members = Members::of(mapping, hook, self.handle.max_value_bytes())?;
        let call = self.handle.calls().set_many_with(members.take(), ttl::told(ttl));
        later(to, future, call, give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncScope]", name: "str") -> "None")]
    fn scope<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, name: Name<'_>) -> PyResult<()> {
        let name = name.0.to_owned();
        self.ask(to, future, move |scope| scope.scope(&name), give_scope)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[list[str]]") -> "None")]
    fn scopes<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.ask(to, future, core::Scope::scopes, give::names)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncTransaction]") -> "None")]
    fn transaction<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        later(to, future, self.handle.calls().transaction(), AsyncTransaction::give)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncWatch]", pattern: "str", since: "int | None", name: "str | None") -> "None")]
    fn watch<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        since: Option<Since>,
        name: Option<Name<'_>>,
    ) -> PyResult<()> {
        let options = argument::watched(pattern, since, name);
        later(to, future, self.handle.calls().watch(options), AsyncWatch::give)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[dict[str, int]]") -> "None")]
    fn named_watches<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.ask(to, future, core::Scope::named_watches, give::watches)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[bool]", name: "str") -> "None")]
    fn forget_watch<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        name: Name<'_>,
    ) -> PyResult<()> {
        let name = name.0.to_owned();
        self.ask(to, future, move |scope| scope.forget_watch(&name), give::truth)
    }

    /// The same scope, whose changes are told to be of this actor and run, and for this reason.
    #[pyo3(signature = (actor: "str | None", run: "str | None", reason: "str | None") -> "AsyncScope")]
    fn as_run(&self, actor: Option<Actor<'_>>, run: Option<Run<'_>>, reason: Option<Reason<'_>>) -> PyResult<Self> {
        self.handle.as_run(argument::origin(actor, run, reason)).map(Self::new).map_err(to_py)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[list[typing.Any]]", key: "str", limit: "int | None") -> "None")]
    fn history<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        limit: Option<Limit>,
    ) -> PyResult<()> {
        let (key, limit) = (key.0.to_owned(), argument::most(limit));
        self.ask(to, future, move |scope| scope.history(&key, limit), history::revisions)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncView]", when: "int | datetime.datetime") -> "None")]
    fn at<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>, when: When) -> PyResult<()> {
        self.ask(to, future, move |scope| scope.at(when.0), AsyncView::give)
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
        AsyncDifferences::new(Source::from(&self.handle), move || {
            scope.diff(since.0, until, &pattern).map(Gathered::from)
        })
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", key: "str", when: "int | datetime.datetime") -> "None")]
    fn revert<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        key: Key<'_>,
        when: When,
    ) -> PyResult<()> {
        let key = key.0.to_owned();
        self.ask(to, future, move |scope| scope.revert(&key, when.0), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", when: "int | datetime.datetime", pattern: "str") -> "None")]
    fn revert_to<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        when: When,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<()> {
        let pattern = pattern.to_owned();
        self.ask(to, future, move |scope| scope.revert_to(when.0, &pattern), give::count)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]", actor: "str | None", run: "str | None", since: "int") -> "None")]
    fn undo<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        actor: Option<Actor<'_>>,
        run: Option<Run<'_>>,
        since: Since,
    ) -> PyResult<()> {
        let what = argument::undo(actor, run, since);
        self.ask(to, future, move |scope| scope.undo(what), history::undone)
    }

    /// How many seconds keys live that are set without a time to live; `None` is for ever.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[float | None]") -> "None")]
    fn default_ttl<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.ask(to, future, core::Scope::default_ttl, ttl::seconds)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", ttl: "float | datetime.timedelta | None") -> "None")]
    fn set_default_ttl<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        ttl: Option<ToLive>,
    ) -> PyResult<()> {
        let ttl = ttl::told(ttl);
        self.ask(to, future, move |scope| scope.set_default_ttl(ttl), give::count)
    }

    /// What the `RetentionPolicy` in force is made of.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn retention<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.ask(to, future, core::Scope::retention, retention::fields)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[int]", policy: "typing.Any") -> "None")]
    fn set_retention<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        policy: Option<Policy>,
    ) -> PyResult<()> {
        let policy = retention::told(policy);
        self.ask(to, future, move |scope| scope.set_retention(policy.as_ref()), give::count)
    }

    /// What `Usage` is made of.
    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[typing.Any]") -> "None")]
    fn usage<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        self.ask(to, future, core::Scope::usage, usage::fields)
    }

    #[pyo3(signature = (to: "Completions", future: "asyncio.Future[AsyncScope]", scope: "str", name: "str") -> "None")]
    fn fork<'py>(
        &self,
        to: &Bound<'py, Completions>,
        future: Bound<'py, PyAny>,
        scope: Child<'_>,
        name: Name<'_>,
    ) -> PyResult<()> {
        let (origin, name) = (scope.0.to_owned(), name.0.to_owned());
        self.ask(to, future, move |scope| scope.fork(&origin, &name), give_scope)
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
} }

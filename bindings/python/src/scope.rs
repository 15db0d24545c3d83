//! `Scope`: every verb on data. A method takes its arguments, lets the interpreter go, calls the core, gives an object back.

use crate::argument::{
    self, Actor, After, Amount, Attempts, Child, From, Function, Hook, Key, Keys, Limit, Members, Name, Reason,
    Resolver, Run, Since, Until, Version, When,
};
use crate::call::detached;
use crate::callback::Update;
use crate::error::{Failure, to_py, wrong_type};
use crate::retention::Policy;
use crate::transaction::{self, Transaction};
use crate::ttl::ToLive;
use crate::verbs::{found, missing, reading_verbs, verbs};
use crate::view::View;
use crate::watch::Watch;
use crate::{entry, history, iterators, merge, retention, ttl, usage, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Document, Entry};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use std::sync::Arc;

/// The verbs of a scope; `llmspell_state.Scope` adds Python's mapping protocol.
#[pyclass(frozen, subclass, weakref, module = "llmspell_state._native")]
pub(crate) struct Scope {
    handle: core::Scope,
    hook: Option<Hook>,
}

impl Scope {
    pub(crate) fn new(handle: core::Scope, hook: Option<Hook>) -> Self {
        Self { handle, hook }
    }

    /// From the cache while the interpreter is held, else from the file while it is not.
    fn find(&self, py: Python<'_>, key: &Key<'_>) -> PyResult<Option<Arc<Entry>>> {
        match self.handle.peek(key.0).map_err(to_py)? {
            Some(cached) => Ok(cached),
            None => detached(py, || self.handle.entry(key.0)),
        }
    }
}

/// The argument `fork`: a handle of a scope.
struct Fork(core::Scope);

impl FromPyObject<'_, '_> for Fork {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let scope = object.cast::<Scope>().map_err(|_| wrong_type("fork", "a Scope", &object))?;
        Ok(Self(scope.get().handle.clone()))
    }
}

verbs! { Scope {
    /// Another handle of the same scope.
    #[new]
    #[pyo3(signature = (of: "Scope"))]
    fn py_new(of: &Bound<'_, Self>) -> Self {
        Self::new(of.get().handle.clone(), of.get().hook(of.py()))
    }

    /// Whether a key is there.
    #[pyo3(signature = (key: "str") -> "bool")]
    fn exists(&self, py: Python<'_>, key: Key<'_>) -> PyResult<bool> {
        match self.handle.peek(key.0).map_err(to_py)? {
            Some(cached) => Ok(cached.is_some()),
            None => detached(py, || self.handle.exists(key.0)),
        }
    }

    /// Stores a value and returns the version of its commit.
    ///
    /// With `ttl`, for so many seconds (infinity is for ever); without, as long as `default_ttl` says. With `if_version`,
    /// only when the key's version is still that one (0: when the key is missing); `ConflictError` otherwise. `default`
    /// turns objects that cannot be stored into ones that can, for this call.
    #[pyo3(signature = (key: "str", value: "object", *, ttl: "float | datetime.timedelta | None" = None, if_version: "int | None" = None, default: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "int")]
    fn set(
        &self,
        py: Python<'_>,
        key: Key<'_>,
        value: &Bound<'_, PyAny>,
        ttl: Option<ToLive>,
        if_version: Option<Version>,
        default: Option<Hook>,
    ) -> PyResult<u64> {
        let document = self.document(value, default.as_ref())?;
        let options = ttl::options(ttl, if_version);
        detached(py, || self.handle.set_with(key.0, document, options))
    }

    /// Stores all members of a mapping in one commit, with `ttl` for so many seconds, and returns its version.
    #[pyo3(signature = (mapping: "collections.abc.Mapping[str, typing.Any]", *, ttl: "float | datetime.timedelta | None" = None) -> "int")]
    fn set_many(&self, py: Python<'_>, mapping: &Bound<'_, PyAny>, ttl: Option<ToLive>) -> PyResult<u64> {
        let (mut members, ttl) = (self.members(mapping)?, ttl::told(ttl));
        detached(py, || self.handle.set_many_with(members.take(), ttl))
    }

    /// Removes all keys that match, in one commit, and returns how many there were.
    #[pyo3(signature = (pattern: "str" = "*") -> "int")]
    fn clear(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pattern)] pattern: &str) -> PyResult<u64> {
        detached(py, || self.handle.clear(pattern))
    }

    /// Replaces a value by what `fn` makes of the current one, and returns the new value.
    ///
    /// `fn` gets `default` when the key is missing, and runs again when another writer was faster.
    #[pyo3(signature = (key: "str", r#fn: "collections.abc.Callable[[typing.Any], object]", default: "object" = None) -> "typing.Any")]
    fn modify<'py>(
        &self,
        py: Python<'py>,
        key: Key<'_>,
        r#fn: Function,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let update = Update::new(r#fn, default, self.hook(py), self.handle.max_value_bytes());
        let entry = detached(py, || self.handle.modify(key.0, |current| update.call(current.map(|entry| &**entry))))?;
        value::read_passing(py, &entry)
    }

    /// Adds to a number, exactly, and returns the sum; a missing key counts as 0.
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
        if let Some(entry) = self.find(py, &key)? {
            return value::read_entry(py, &entry);
        }
        let document = self.document(&default.unwrap_or_else(|| py.None().into_bound(py)), None)?;
        let found =
            detached(py, || self.handle.transact(|tx| transaction::set_default(tx, key.0, &document)))?;
        value::read(py, found.as_ref().map_or(&document, |entry| entry.document()))
    }

    /// Removes a key and returns its value, or `missing` when it is not there.
    #[pyo3(signature = (key: "str", missing: "object") -> "typing.Any")]
    fn take<'py>(&self, py: Python<'py>, key: Key<'_>, missing: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let taken = detached(py, || self.handle.transact(|tx| transaction::take(tx, key.0)))?;
        taken.map_or(Ok(missing), |entry| value::read_passing(py, &entry))
    }

    /// The scope of this name inside this one.
    #[pyo3(signature = (name: "str") -> "Scope")]
    fn scope(&self, py: Python<'_>, name: Name<'_>) -> PyResult<Self> {
        let scope = detached(py, || self.handle.scope(name.0))?;
        Ok(Self::new(scope, self.hook(py)))
    }

    /// The names of the scopes inside this one, sorted.
    fn scopes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        detached(py, || self.handle.scopes())
    }

    /// The scope's own name; empty for the root.
    #[getter]
    fn name(&self) -> &str {
        self.handle.name()
    }

    /// Begins a transaction.
    fn transaction(&self, py: Python<'_>) -> PyResult<Transaction> {
        let transaction = detached(py, || self.handle.transaction())?;
        Ok(Transaction::new(transaction, self.hook(py)))
    }

    /// Runs `fn` with a transaction and commits; runs it again, up to `attempts` times, when another writer was faster.
    #[pyo3(signature = (r#fn: "collections.abc.Callable[[typing.Any], typing.Any]", *, attempts: "int | None" = None) -> "typing.Any")]
    fn transact(&self, py: Python<'_>, r#fn: Function, attempts: Option<Attempts>) -> PyResult<Py<PyAny>> {
        let hook = self.hook(py);
        let attempts = attempts.map_or(core::limits::ATTEMPTS, |attempts| attempts.0);
        detached(py, || {
            self.handle.transact_with(attempts, Failure::is_conflict, |transaction| {
                Python::attach(|py| {
                    let hook = hook.as_ref().map(|hook| hook.clone_ref(py));
                    let transaction = Transaction::new(transaction.clone(), hook).into_public(py)?;
                    Ok::<_, Failure>(r#fn.run(transaction)?.unbind())
                })
            })
        })
    }

    /// Watches the keys that match.
    #[pyo3(signature = (pattern: "str" = "*", since: "int | None" = None, name: "str | None" = None) -> "Watch")]
    fn watch(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
        since: Option<Since>,
        name: Option<Name<'_>>,
    ) -> PyResult<Watch> {
        let options = argument::watched(pattern, since, name);
        detached(py, || self.handle.watch(options)).map(Watch::new)
    }

    /// The names of the watches that the store keeps, and the versions that they are done with.
    #[pyo3(signature = () -> "dict[str, int]")]
    fn named_watches<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let watches = detached(py, || self.handle.named_watches())?;
        watches.into_iter().map(|watch| (watch.name, watch.version)).into_py_dict(py)
    }

    /// Forgets how far a named watch has come, and says whether there was one of this name.
    #[pyo3(signature = (name: "str") -> "bool")]
    fn forget_watch(&self, py: Python<'_>, name: Name<'_>) -> PyResult<bool> {
        detached(py, || self.handle.forget_watch(name.0))
    }

    /// The same scope, whose changes are told to be of this actor and run, and for this reason.
    #[pyo3(signature = (*, actor: "str | None" = None, run: "str | None" = None, reason: "str | None" = None) -> "Scope")]
    fn as_run(
        &self,
        py: Python<'_>,
        actor: Option<Actor<'_>>,
        run: Option<Run<'_>>,
        reason: Option<Reason<'_>>,
    ) -> PyResult<Self> {
        let origin = argument::origin(actor, run, reason);
        let scope = detached(py, || self.handle.as_run(origin))?;
        Ok(Self::new(scope, self.hook(py)))
    }

    /// What each `Revision` of a key is made of, the newest first.
    #[pyo3(signature = (key: "str", limit: "int | None" = None) -> "list[typing.Any]")]
    fn history<'py>(&self, py: Python<'py>, key: Key<'_>, limit: Option<Limit>) -> PyResult<Bound<'py, PyAny>> {
        history::revisions(py, detached(py, || self.handle.history(key.0, argument::most(limit)))?)
    }

    /// The scope as it was at a moment.
    #[pyo3(signature = (when: "int | datetime.datetime") -> "View")]
    fn at(&self, py: Python<'_>, when: When) -> PyResult<View> {
        detached(py, || self.handle.at(when.0)).map(View::new)
    }

    /// Iterates over what each `Difference` is made of.
    #[pyo3(signature = (since: "int | datetime.datetime", until: "int | datetime.datetime | None" = None, pattern: "str" = "*") -> "collections.abc.Iterator[typing.Any]")]
    fn diff(
        &self,
        py: Python<'_>,
        since: From,
        until: Option<Until>,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<iterators::Differences> {
        let until = until.map(|until| until.0);
        detached(py, || self.handle.diff(since.0, until, pattern)).map(iterators::Differences::from)
    }

    /// Gives a key the value that it had at a moment, or deletes it if it was not there then, and returns the version of the
    /// commit.
    #[pyo3(signature = (key: "str", when: "int | datetime.datetime") -> "int")]
    fn revert(&self, py: Python<'_>, key: Key<'_>, when: When) -> PyResult<u64> {
        detached(py, || self.handle.revert(key.0, when.0))
    }

    /// Makes every key that matches as it was at a moment, in one commit, and returns how many that has changed.
    #[pyo3(signature = (when: "int | datetime.datetime", pattern: "str" = "*") -> "int")]
    fn revert_to(
        &self,
        py: Python<'_>,
        when: When,
        #[pyo3(from_py_with = argument::pattern)] pattern: &str,
    ) -> PyResult<u64> {
        detached(py, || self.handle.revert_to(when.0, pattern))
    }

    /// Takes back everything that an actor or a run has changed, and returns what `Undone` is made of.
    #[pyo3(signature = (*, actor: "str | None" = None, run: "str | None" = None, since: "int" = Since(0)) -> "typing.Any", text_signature = "($self, *, actor=None, run=None, since=0)")]
    fn undo<'py>(
        &self,
        py: Python<'py>,
        actor: Option<Actor<'_>>,
        run: Option<Run<'_>>,
        since: Since,
    ) -> PyResult<Bound<'py, PyAny>> {
        let what = argument::undo(actor, run, since);
        history::undone(py, detached(py, || self.handle.undo(what))?)
    }

    /// How many seconds keys live that are set without a time to live; `None` is for ever.
    #[pyo3(signature = () -> "float | None")]
    fn default_ttl<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        ttl::seconds(py, detached(py, || self.handle.default_ttl())?)
    }

    /// Says how long keys live that are set from now on without a time to live; `None` takes that back.
    #[pyo3(signature = (ttl: "float | datetime.timedelta | None" = None) -> "int")]
    fn set_default_ttl(&self, py: Python<'_>, ttl: Option<ToLive>) -> PyResult<u64> {
        let ttl = ttl::told(ttl);
        detached(py, || self.handle.set_default_ttl(ttl))
    }

    /// What the `RetentionPolicy` in force is made of.
    #[pyo3(signature = () -> "typing.Any")]
    fn retention<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        retention::fields(py, detached(py, || self.handle.retention())?)
    }

    /// Says how much of the past is kept; `None` takes that back.
    #[pyo3(signature = (policy: "typing.Any" = None) -> "int")]
    fn set_retention(&self, py: Python<'_>, policy: Option<Policy>) -> PyResult<u64> {
        let policy = retention::told(policy);
        detached(py, || self.handle.set_retention(policy.as_ref()))
    }

    /// What `Usage` is made of.
    #[pyo3(signature = () -> "typing.Any")]
    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        usage::fields(py, detached(py, || self.handle.usage())?)
    }

    /// Copies a scope inside this one under another name, and returns the copy.
    #[pyo3(signature = (scope: "str", name: "str") -> "Scope")]
    fn fork(&self, py: Python<'_>, scope: Child<'_>, name: Name<'_>) -> PyResult<Self> {
        let fork = detached(py, || self.handle.fork(scope.0, name.0))?;
        Ok(Self::new(fork, self.hook(py)))
    }

    /// Merges what a fork has changed, in one commit, and returns what `Merged` is made of.
    #[pyo3(signature = (fork: "typing.Any", resolve: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "typing.Any")]
    fn merge_from<'py>(
        &self,
        py: Python<'py>,
        fork: Fork,
        resolve: Option<Resolver>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(resolve) = resolve else {
            return merge::merged(py, detached(py, || self.handle.merge_from(&fork.0))?);
        };
        let mut merging = self.handle.merging(&fork.0);
        loop {
            if let Some(merged) = detached(py, || merging.attempt())? {
                return merge::merged(py, merged);
            }
            while let Some(conflict) = merging.open() {
                let answer = resolve.call(merge::conflict(py, conflict)?)?;
                merging.answer(merge::resolution(&answer, self.hook.as_ref(), self.handle.max_value_bytes())?);
            }
        }
    }

    /// Whether the store was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.handle.is_closed()
    }
} }

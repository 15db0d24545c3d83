//! The verbs as calls that can be made without waiting for them: bindings to event loops, and the async API, are made of these.

use crate::engine::ScopeId;
use crate::key::{Key, Pattern};
use crate::scope::{Budget, unexpected, written};
use crate::session::{self, Session};
use crate::store::request::{Action, Applied, Change, Life, Request, Response};
use crate::value::{Update, array_len};
use crate::{
    Document, Entry, Error, IntoDocument, Number, Result, Scope, SetOptions, Transaction, Ttl, Watch, WatchOptions,
};
use std::sync::Arc;

/// A call whose arguments were checked and that was not made yet.
///
/// [`wait`](Call::wait) makes it in this thread; [`then`](Call::then) has it made elsewhere and tells how it went. Calls of
/// `then` come together in commit groups like those of many threads. Dropping a call does nothing.
///
/// ```
/// # use llmspell_state_persistence::State;
/// # let state = State::in_memory()?;
/// let (tell, told) = std::sync::mpsc::channel();
/// for n in 0..100 {
///     let tell = tell.clone();
///     state.calls().set(&format!("n{n}"), n)?.then(move |version| tell.send(version).unwrap());
/// }
/// drop(tell);
/// assert_eq!(told.iter().filter(Result::is_ok).count(), 100);
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
#[must_use = "a call does nothing until it is made"]
pub struct Call<T> {
    session: Arc<Session>,
    step: Step<T>,
}

/// Runs with the session open.
type Work<T> = Box<dyn FnOnce() -> Result<T> + Send>;

enum Step<T> {
    /// The answer is there already.
    Known(T),
    /// A commit, and what its response means.
    Commit(Request, fn(Response) -> Result<T>),
    /// Anything that may ask the database.
    Work(Work<T>),
}

impl<T: Send + 'static> Call<T> {
    fn new(session: &Arc<Session>, step: Step<T>) -> Self {
        Self { session: Arc::clone(session), step }
    }

    pub(crate) fn commit(scope: &Scope, mut request: Request, meaning: fn(Response) -> Result<T>) -> Self {
        request.origin = scope.origin().cloned();
        Self::new(scope.session(), Step::Commit(request, meaning))
    }

    pub(crate) fn work(session: &Arc<Session>, work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self::new(session, Step::Work(Box::new(work)))
    }

    pub(crate) fn known(session: &Arc<Session>, answer: T) -> Self {
        Self::new(session, Step::Known(answer))
    }

    /// The answer where it is there already, and an error where there can be none; otherwise the call again.
    pub fn now(self) -> Result<Result<T>, Self> {
        match (self.session.store(), self.step) {
            (Err(error), _) => Ok(Err(error)),
            (Ok(_), Step::Known(answer)) => Ok(Ok(answer)),
            (Ok(_), step) => Err(Self { session: Arc::clone(&self.session), step }),
        }
    }

    /// Makes it and waits for the answer.
    ///
    /// # Errors
    /// Those of the verb.
    pub fn wait(self) -> Result<T> {
        let store = self.session.store()?;
        match self.step {
            Step::Known(answer) => Ok(answer),
            Step::Commit(request, meaning) => meaning(store.submit(request)?),
            Step::Work(work) => work(),
        }
    }

    /// Makes it without waiting, and tells `then`, in another thread or at once. What `then` does should be quick: commits of
    /// others wait for it. It may make calls of its own, but must not close the state, since closing waits for it.
    pub fn then(self, then: impl FnOnce(Result<T>) + Send + 'static) {
        let store = match self.session.store() {
            Ok(store) => store,
            Err(error) => return then(Err(error)),
        };
        match self.step {
            Step::Known(answer) => then(Ok(answer)),
            Step::Commit(request, meaning) => {
                // The session stays until the answer is there.
                let session = Arc::clone(&self.session);
                store.post(request, move |response| {
                    then(response.and_then(meaning));
                    session::let_go(session);
                });
            }
            Step::Work(work) => {
                store.defer(Box::new(move |_| then(guarded(work))));
            }
        }
    }
}

/// A panic of work must not leave anybody waiting.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(crate::ErrorKind::Io, "a bug in llmspell_state, please report it: a call failed unexpectedly"))
    })
}

/// The verbs of a [`Scope`] as [`Call`]s; made by [`Scope::calls`]. Each is documented where it is a plain method.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'s>(&'s Scope);

impl Scope {
    /// The verbs as calls that need not be waited for.
    pub fn calls(&self) -> Calls<'_> {
        Calls(self)
    }

    /// Anything else that may ask the database, as a [`Call`]: `scope.call(|scope| scope.count("*"))`.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce(&Scope) -> Result<T> + Send + 'static) -> Call<T> {
        let scope = self.clone();
        Call::work(self.session(), move || work(&scope))
    }
}

impl Calls<'_> {
    fn id(self) -> ScopeId {
        self.0.id()
    }

    fn document(self, value: impl IntoDocument) -> Result<Document> {
        value.into_document(self.0.max_value_bytes())
    }

    fn one<T: Send + 'static>(
        self,
        key: &str,
        action: Action,
        if_version: Option<u64>,
        meaning: fn(Response) -> Result<T>,
    ) -> Result<Call<T>> {
        let request = Request::one(self.id(), Key::parse(key)?.as_str(), action, if_version);
        Ok(Call::commit(self.0, request, meaning))
    }

    /// [`Scope::entry`]; known at once when the cache has it.
    pub fn entry(self, key: &str) -> Result<Call<Option<Arc<Entry>>>> {
        if let Some(entry) = self.0.peek(key)? {
            return Ok(Call::known(self.0.session(), entry));
        }
        let key = key.to_owned();
        Ok(self.0.call(move |scope| scope.entry(&key)))
    }

    /// [`Scope::set`].
    pub fn set(self, key: &str, value: impl IntoDocument) -> Result<Call<u64>> {
        self.set_with(key, value, SetOptions::default())
    }

    /// [`Scope::set_if`].
    pub fn set_if(self, key: &str, value: impl IntoDocument, if_version: u64) -> Result<Call<u64>> {
        self.set_with(key, value, SetOptions { if_version: Some(if_version), ..SetOptions::default() })
    }

    /// [`Scope::set_with`].
    pub fn set_with(self, key: &str, value: impl IntoDocument, options: impl Into<SetOptions>) -> Result<Call<u64>> {
        let (store, options) = (self.0.store()?, options.into());
        Key::parse(key)?;
        let action = store.set_action(self.id(), key, self.document(value)?, Life::of(options.ttl)?);
        self.one(key, action, options.if_version, version)
    }

    /// [`Scope::touch`].
    pub fn touch(self, key: &str, ttl: impl Into<Ttl>) -> Result<Call<bool>> {
        self.one(key, Action::Touch(Life::of(ttl.into())?), None, |response| match response.only()? {
            Applied::Touched(existed) => Ok(existed),
            other => Err(unexpected(&other)),
        })
    }

    /// [`Scope::set_many`].
    pub fn set_many<K: AsRef<str>, V: IntoDocument>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Call<u64>> {
        self.set_many_with(pairs, Ttl::Default)
    }

    /// [`Scope::set_many_with`].
    pub fn set_many_with<K: AsRef<str>, V: IntoDocument>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Ttl>,
    ) -> Result<Call<u64>> {
        let life = Life::of(ttl.into())?;
        let store = self.0.store()?;
        let mut request = Request::default();
        let mut budget = Budget::default();
        for (key, value) in pairs {
            let key = Key::parse(key.as_ref())?;
            let document = self.document(value)?;
            budget.spend(key.as_str().len() + document.text().len())?;
            let action = store.set_action(self.id(), key.as_str(), document, life);
            request.changes.push(Change::One { scope: self.id(), key: key.as_str().into(), action, if_version: None });
        }
        if request.changes.is_empty() {
            return Ok(self.0.call(|scope| Ok(scope.store()?.head()?.version.cast_unsigned())));
        }
        Ok(Call::commit(self.0, request, version))
    }

    /// [`Scope::delete`].
    pub fn delete(self, key: &str) -> Result<Call<bool>> {
        self.one(key, Action::Delete, None, deleted)
    }

    /// [`Scope::delete_if`].
    pub fn delete_if(self, key: &str, if_version: u64) -> Result<Call<bool>> {
        self.one(key, Action::Delete, Some(if_version), deleted)
    }

    /// [`Scope::clear`].
    pub fn clear(self, pattern: &str) -> Result<Call<u64>> {
        let change = Change::Clear { scope: self.id(), pattern: Pattern::parse(pattern)? };
        let request = Request { changes: vec![change], ..Request::default() };
        Ok(Call::commit(self.0, request, |response| match response.only()? {
            Applied::Cleared(count) => Ok(count),
            other => Err(unexpected(&other)),
        }))
    }

    /// [`Scope::transaction`]; known at once unless another process has committed.
    pub fn transaction(self) -> Result<Call<Transaction>> {
        if let Some(head) = self.0.store()?.peek_head() {
            return Ok(Call::known(self.0.session(), Transaction::at(self.0, head)));
        }
        Ok(self.0.call(Scope::transaction))
    }

    /// [`Scope::watch`]; known at once where it begins now, has no name, and no other process has committed.
    pub fn watch(self, options: impl Into<WatchOptions>) -> Result<Call<Watch>> {
        let options = options.into().checked()?;
        if let Some(watch) = Watch::from_now(self.0, &options)? {
            return Ok(Call::known(self.0.session(), watch));
        }
        Ok(self.0.call(move |scope| scope.watch(options)))
    }

    /// Sets a key as [`Scope::modify`] does once its function has made a new value: only if it still has that version.
    pub fn swap(self, key: &str, new: Document, if_version: u64) -> Result<Call<Arc<Entry>>> {
        let action = self.0.store()?.set_action(self.id(), key, self.document(new)?, Life::Keep);
        self.one(key, action, Some(if_version), |response| written(response.only()?))
    }

    /// [`Scope::increment`].
    pub fn increment(self, key: &str, by: impl Into<Number>) -> Result<Call<Number>> {
        self.one(key, Action::Update(Update::Increment(by.into().checked()?)), None, |response| {
            Number::of(written(response.only()?)?.document()).ok_or_else(|| Error::corrupt("a sum is not a number"))
        })
    }

    /// [`Scope::append`].
    pub fn append(self, key: &str, item: impl IntoDocument) -> Result<Call<u64>> {
        let item = self.document(item)?;
        self.one(key, Action::Update(Update::Append(item)), None, |response| {
            Ok(array_len(written(response.only()?)?.document().text()))
        })
    }

    /// [`Scope::merge`].
    pub fn merge(self, key: &str, patch: impl IntoDocument) -> Result<Call<Document>> {
        let patch = self.document(patch)?;
        self.one(key, Action::Update(Update::Merge(patch)), None, |response| {
            Ok(written(response.only()?)?.document().clone())
        })
    }
}

#[allow(clippy::unnecessary_wraps, clippy::needless_pass_by_value)] // what a response means
pub(crate) fn version(response: Response) -> Result<u64> {
    Ok(response.version.cast_unsigned())
}

fn deleted(response: Response) -> Result<bool> {
    match response.only()? {
        Applied::Deleted(existed) => Ok(existed),
        other => Err(unexpected(&other)),
    }
}

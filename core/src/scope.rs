//! `Scope`, a namespace of keys: every data operation, and nothing of the store's own affairs.

use crate::calls::{self, Call};
use crate::engine::{SETTINGS, ScopeId};
use crate::key::{Key, Pattern, ScopeName};
use crate::listing::{Listed, Select};
use crate::retry::Retry;
use crate::session::Session;
use crate::store::Store;
use crate::store::request::{Applied, Life, Request};
use crate::store::settings::Setting;
use crate::{
    Document, Entry, Error, IntoDocument, Items, Keys, Number, Origin, Result, RetentionPolicy, SetOptions,
    Transaction, Ttl, limits,
};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A namespace of keys within a store, isolated from its parent, its children and every other scope.
///
/// Cheap to clone and safe to share between threads. Each call is atomic, and acknowledged only when it is committed as
/// [`SyncMode`](crate::SyncMode) says. Every call may fail with `Closed`, `Forked`, `Corrupt`, `Io`, and every write with
/// `Busy`, `DiskFull`, `CommitUnknown`; other kinds are told where they occur.
#[derive(Clone)]
pub struct Scope {
    session: Arc<Session>,
    id: ScopeId,
    name: Arc<str>,
    depth: usize,
    /// Who makes its changes; nothing where that is the session's affair.
    origin: Option<Arc<Origin>>,
}

impl Scope {
    pub(crate) fn new(session: Arc<Session>, id: ScopeId, name: &str, depth: usize) -> Self {
        Self { session, id, name: name.into(), depth, origin: None }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn origin(&self) -> Option<&Arc<Origin>> {
        self.origin.as_ref().or_else(|| self.session.origin())
    }

    pub(crate) fn with_origin(&self, origin: Arc<Origin>) -> Self {
        Self { origin: Some(origin), ..self.clone() }
    }

    pub(crate) fn store(&self) -> Result<&Arc<Store>> {
        self.session.store()
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.id
    }

    /// The value of a key.
    ///
    /// # Errors
    /// `Invalid` for a key that breaks the rules of [`Key`].
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        self.entry(key)?.map(|entry| entry.document().parse()).transpose()
    }

    /// The value of a key with its version and times.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        self.store()?.entry(self.id, Key::parse(key)?)
    }

    /// The entry of a key as far as it is known without asking the database; the outer `None` says that it is not.
    ///
    /// What it answers is as current as [`Scope::entry`]. A binding asks here before it lets its interpreter go.
    ///
    /// # Errors
    /// As [`Scope::get`].
    #[allow(clippy::option_option)] // whether it is known, and if so, whether it is there
    pub fn peek(&self, key: &str) -> Result<Option<Option<Arc<Entry>>>> {
        Ok(self.store()?.peek(self.id, Key::parse(key)?))
    }

    /// Whether a key exists; one that holds null does.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.entry(key)?.is_some())
    }

    /// The entries of several keys in their order, all of one moment.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<Entry>>>> {
        let keys: Vec<Key<'_>> = keys.iter().map(|key| Key::parse(key.as_ref())).collect::<Result<_>>()?;
        self.store()?.entries(self.id, &keys)
    }

    /// Sets a key; answers the version of the commit.
    ///
    /// # Errors
    /// `Invalid` for a key or value that cannot be stored, `QuotaExceeded` for a value that is too long.
    pub fn set(&self, key: &str, value: impl IntoDocument) -> Result<u64> {
        self.calls().set(key, value)?.wait()
    }

    /// Sets a key only if it has the version `if_version`; 0 means that it must not exist.
    ///
    /// # Errors
    /// As [`Scope::set`]; `Conflict` for another version.
    pub fn set_if(&self, key: &str, value: impl IntoDocument, if_version: u64) -> Result<u64> {
        self.calls().set_if(key, value, if_version)?.wait()
    }

    /// Sets a key for a time to live, or only if it has a certain version; see [`SetOptions`].
    ///
    /// # Errors
    /// As [`Scope::set_if`]; `Invalid` for what is no time.
    pub fn set_with(&self, key: &str, value: impl IntoDocument, options: impl Into<SetOptions>) -> Result<u64> {
        self.calls().set_with(key, value, options)?.wait()
    }

    /// Gives a key another time to live from now on, and leaves its value; says whether it was there. It is a change: the key gets
    /// a new version.
    ///
    /// # Errors
    /// As [`Scope::get`]; `Invalid` for what is no time.
    pub fn touch(&self, key: &str, ttl: impl Into<Ttl>) -> Result<bool> {
        self.calls().touch(key, ttl)?.wait()
    }

    /// How long keys of this scope live that are set without a time to live: as was set here, or for the nearest scope around it.
    pub fn default_ttl(&self) -> Result<Ttl> {
        self.store()?.default_ttl(self.id)
    }

    /// Says how long keys live that are set from now on without a time to live, in this scope and those inside it that have no
    /// such word of their own; [`Ttl::Default`] takes back what was said here. It is kept in the store. Answers the version of the
    /// commit.
    ///
    /// # Errors
    /// `Invalid` for what is no time.
    pub fn set_default_ttl(&self, ttl: impl Into<Ttl>) -> Result<u64> {
        let ttl = ttl.into();
        let ttl_ms = if ttl == Ttl::Default { None } else { Some(ttl.millis()?.unwrap_or(0)) };
        self.settle(|setting| setting.ttl_ms = ttl_ms)
    }

    /// How much of the past is kept of this scope: as was set here or for the nearest scope around it; where nothing was set, also not
    /// for the store itself, as this opening of the store says.
    pub fn retention(&self) -> Result<RetentionPolicy> {
        self.store()?.retention(self.id)
    }

    /// Says how much of the past is kept of this scope and those inside it that have no policy of their own; nothing takes back
    /// what was said here. It is kept in the store, and counts from the next time that the past is trimmed: within the cleanup
    /// interval, or at once with [`State::cleanup`](crate::State::cleanup). What is set for the store itself goes before the settings
    /// of every process that opens it. Answers the version of the commit.
    ///
    /// # Errors
    /// `Invalid` for a policy that cannot be kept.
    pub fn set_retention(&self, policy: Option<&RetentionPolicy>) -> Result<u64> {
        policy.map_or(Ok(()), RetentionPolicy::check)?;
        self.settle(|setting| setting.retention = policy.cloned())
    }

    /// Changes what is set for this scope, again whenever another writer was faster.
    fn settle(&self, change: impl Fn(&mut Setting)) -> Result<u64> {
        let store = self.store()?;
        let place = self.id.to_string();
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            let current = store.entry(SETTINGS, Key::parse(&place)?)?;
            let mut setting = match &current {
                Some(entry) => Setting::parse(&place, entry.document())?,
                None => Setting::default(),
            };
            change(&mut setting);
            let action = store.set_action(SETTINGS, &place, setting.document()?, Life::For(None));
            let expected = current.map_or(0, |entry| entry.version());
            let request = Request::one(SETTINGS, &place, action, Some(expected));
            match Call::commit(self, request, calls::version).wait() {
                Err(error) => retry.after(error)?,
                Ok(version) => return Ok(version),
            }
        }
    }

    /// Sets several keys in one commit; the last value of a repeated key stays. Answers the version of the commit.
    ///
    /// # Errors
    /// As [`Scope::set`]; `QuotaExceeded` also for more than [`limits::TRANSACTION_CHANGES`] pairs or
    /// [`limits::TRANSACTION_BYTES`] bytes. Nothing is set then.
    pub fn set_many<K: AsRef<str>, V: IntoDocument>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<u64> {
        self.calls().set_many(pairs)?.wait()
    }

    /// [`Scope::set_many`] with a time to live.
    ///
    /// # Errors
    /// As [`Scope::set_many`]; `Invalid` for what is no time.
    pub fn set_many_with<K: AsRef<str>, V: IntoDocument>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Ttl>,
    ) -> Result<u64> {
        self.calls().set_many_with(pairs, ttl)?.wait()
    }

    /// Deletes a key; says whether it was there.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.calls().delete(key)?.wait()
    }

    /// Deletes a key only if it has the version `if_version`; 0 means that it must not exist.
    ///
    /// # Errors
    /// As [`Scope::get`]; `Conflict` for another version.
    pub fn delete_if(&self, key: &str, if_version: u64) -> Result<bool> {
        self.calls().delete_if(key, if_version)?.wait()
    }

    /// Deletes every key that matches, in one commit; says how many.
    ///
    /// # Errors
    /// `Invalid` for a pattern that breaks the rules of [`Pattern`].
    pub fn clear(&self, pattern: &str) -> Result<u64> {
        self.calls().clear(pattern)?.wait()
    }

    /// The keys that match, sorted by bytes, fetched page by page from one snapshot.
    ///
    /// # Errors
    /// As [`Scope::clear`].
    pub fn keys(&self, select: impl Into<Select>) -> Result<Keys> {
        Keys::new(Listed::of_scope(&self.session, self.id)?, select.into())
    }

    /// The keys that match with their entries; see [`Scope::keys`].
    ///
    /// # Errors
    /// As [`Scope::keys`].
    pub fn items(&self, select: impl Into<Select>) -> Result<Items> {
        Items::new(Listed::of_scope(&self.session, self.id)?, select.into())
    }

    /// How many keys match.
    ///
    /// # Errors
    /// As [`Scope::clear`].
    pub fn count(&self, pattern: &str) -> Result<u64> {
        self.store()?.count(self.id, &Pattern::parse(pattern)?)
    }

    /// Replaces a value by what `f` makes of it, again whenever another writer was faster; answers the new entry.
    ///
    /// No lock is held while `f` runs.
    ///
    /// # Errors
    /// As [`Scope::set`], and whatever `f` fails with; `Conflict` after [`limits::ATTEMPTS`] attempts.
    pub fn modify<E: From<Error>>(
        &self,
        key: &str,
        mut f: impl FnMut(Option<&Arc<Entry>>) -> Result<Document, E>,
    ) -> Result<Arc<Entry>, E> {
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            let current = self.entry(key)?;
            let new = f(current.as_ref())?;
            let expected = current.map_or(0, |entry| entry.version());
            match self.calls().swap(key, new, expected).and_then(Call::wait) {
                Err(error) => retry.after(error)?,
                Ok(entry) => return Ok(entry),
            }
        }
    }

    /// Adds to a number, a missing one being 0; answers the sum. Integers stay integers.
    ///
    /// # Errors
    /// `Invalid` when the value is not a number or the sum is out of range; it is unchanged then.
    pub fn increment(&self, key: &str, by: impl Into<Number>) -> Result<Number> {
        self.calls().increment(key, by)?.wait()
    }

    /// Adds an item to the end of an array, a missing one being empty; answers the new length.
    ///
    /// # Errors
    /// As [`Scope::set`]; `Invalid` also when the value is not an array; it is unchanged then.
    pub fn append(&self, key: &str, item: impl IntoDocument) -> Result<u64> {
        self.calls().append(key, item)?.wait()
    }

    /// Applies a JSON Merge Patch (RFC 7386); answers the merged value.
    ///
    /// # Errors
    /// As [`Scope::set`].
    pub fn merge(&self, key: &str, patch: impl IntoDocument) -> Result<Document> {
        self.calls().merge(key, patch)?.wait()
    }

    /// The child scope of that name, which is made if need be.
    ///
    /// # Errors
    /// `Invalid` for a name that breaks the rules of [`ScopeName`]; `QuotaExceeded` below [`limits::SCOPE_DEPTH`] levels.
    pub fn scope(&self, name: &str) -> Result<Scope> {
        let store = self.store()?;
        let parsed = ScopeName::parse(name)?;
        if self.depth == limits::SCOPE_DEPTH {
            return Err(Error::new(
                crate::ErrorKind::QuotaExceeded,
                format!("scopes nest at most {} levels deep", limits::SCOPE_DEPTH),
            ));
        }
        Ok(self.child(store.scope(self.id, parsed)?, name))
    }

    /// A handle of a child scope that is there.
    pub(crate) fn child(&self, id: ScopeId, name: &str) -> Self {
        let child = Self::new(Arc::clone(&self.session), id, name, self.depth + 1);
        Self { origin: self.origin.clone(), ..child }
    }

    /// The names of the child scopes, sorted by bytes.
    pub fn scopes(&self) -> Result<Vec<String>> {
        self.store()?.scopes(self.id)
    }

    /// The scope's own name; empty for the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins a transaction over the state of this moment; see [`Transaction`].
    pub fn transaction(&self) -> Result<Transaction> {
        Transaction::begin(self)
    }

    /// Runs `f` in a transaction and commits it; rolls back when `f` fails; runs `f` again on a conflict.
    ///
    /// # Errors
    /// What `f` or the commit fails with; `Conflict` after [`limits::ATTEMPTS`] attempts.
    pub fn transact<T>(&self, f: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
        let is_conflict = |error: &Error| error.kind() == crate::ErrorKind::Conflict;
        self.transact_with(limits::ATTEMPTS, is_conflict, f)
    }

    /// [`Scope::transact`] with errors of the caller's own, at most `attempts` times.
    ///
    /// # Errors
    /// As [`Scope::transact`]; `Invalid` for 0 attempts.
    pub fn transact_with<T, E: From<Error>>(
        &self,
        attempts: u32,
        is_conflict: impl Fn(&E) -> bool,
        mut f: impl FnMut(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        if attempts == 0 {
            return Err(Error::invalid("attempts is 0; a transaction runs at least once").into());
        }
        let mut retry = Retry::new(attempts);
        loop {
            let transaction = self.transaction()?;
            let failed = match f(&transaction) {
                // An f that has committed or rolled back by itself has had its way.
                Ok(done) if transaction.has_ended() => return Ok(done),
                Ok(done) => match transaction.commit() {
                    Ok(_) => return Ok(done),
                    Err(error) => error.into(),
                },
                Err(error) => {
                    // f may have kept a clone, which must not go on.
                    transaction.abandon();
                    error
                }
            };
            if !is_conflict(&failed) || !retry.again() {
                return Err(failed);
            }
        }
    }

    /// The longest stored text of one value, in bytes, as configured.
    pub fn max_value_bytes(&self) -> usize {
        self.session.config().max_value_bytes
    }

    /// Whether the state that this scope belongs to was closed.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) fn written(applied: Applied) -> Result<Arc<Entry>> {
    match applied {
        Applied::Written(entry) => Ok(entry),
        other => Err(unexpected(&other)),
    }
}

/// The writer answered another change than the one that was asked for: a fault of this crate.
pub(crate) fn unexpected(applied: &Applied) -> Error {
    let what = match applied {
        Applied::Written(_) => "a write",
        Applied::Deleted(_) => "a deletion",
        Applied::Cleared(_) => "a clearing",
        Applied::Touched(_) => "a touch",
        Applied::Swept(_) | Applied::Trimmed(_) => "a sweep",
        Applied::Reverted(_) | Applied::Undone { .. } => "something taken back",
    };
    Error::corrupt(format!("the writer answered with {what}, which was not asked for"))
}

/// What one commit may still hold.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Budget {
    changes: usize,
    bytes: usize,
}

impl Budget {
    /// Counts one more change.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<()> {
        self.changes += 1;
        self.bytes += bytes;
        if self.changes > limits::TRANSACTION_CHANGES || self.bytes > limits::TRANSACTION_BYTES {
            return Err(Error::new(
                crate::ErrorKind::QuotaExceeded,
                format!(
                    "one commit holds at most {} changes and {} bytes; split it",
                    limits::TRANSACTION_CHANGES,
                    limits::TRANSACTION_BYTES
                ),
            ));
        }
        Ok(())
    }
}

//! `Transaction`: reads one snapshot, remembers what it read, buffers what it writes, and is validated when it commits.

mod work;

pub(crate) use self::work::too_old;

use self::work::{Told, Work};
use crate::calls::{self, Call};
use crate::engine::Head;
use crate::key::{Key, Pattern};
use crate::listing::{Listed, Select};
use crate::scope::Scope;
use crate::store::apply::version_conflict;
use crate::store::request::Life;
use crate::value::{Update, array_len};
use crate::{Document, Entry, Error, IntoDocument, Items, Keys, Number, Result, SetOptions, Ttl, clock};
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A serializable, optimistic transaction.
///
/// Reads see the store as it was when the transaction began, with the transaction's own writes on top. Nothing is locked
/// meanwhile, however long it takes. At [`commit`](Transaction::commit) everything that was read or listed must still be as
/// it was, otherwise the commit is a `Conflict` and nothing is written. A transaction that only read never conflicts.
/// Dropping one rolls it back. Clones are the same transaction; using a finished one is `Closed`.
///
/// Every read and write may fail as that of [`Scope`] does; only what differs is told.
#[derive(Clone)]
pub struct Transaction {
    scope: Scope,
    work: Arc<Mutex<Work>>,
}

impl Transaction {
    pub(crate) fn begin(scope: &Scope) -> Result<Self> {
        Ok(Self::at(scope, scope.store()?.head()?))
    }

    /// A transaction over the snapshot at which that commit was the newest.
    pub(crate) fn at(scope: &Scope, snapshot: Head) -> Self {
        let work = Work::new(snapshot);
        Self { scope: scope.clone(), work: Arc::new(Mutex::new(work)) }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work, if it is still going on.
    fn work(&self) -> Result<MutexGuard<'_, Work>> {
        self.scope.store()?;
        let work = self.lock();
        work.check()?;
        Ok(work)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        self.entry(key)?.map(|entry| entry.document().parse()).transpose()
    }

    /// The value of a key with its version and times. An own write has version 0, and expires as if it were committed when it was
    /// made; one that lives as the scope says tells no time before it is committed.
    pub fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        let mut work = self.work()?;
        self.read(&mut work, Key::parse(key)?)
    }

    /// Reads at the snapshot and remembers it.
    fn read(&self, work: &mut Work, key: Key<'_>) -> Result<Option<Arc<Entry>>> {
        let id = self.scope.id();
        if let Some(own) = work.writes.get(&id).and_then(|writes| writes.get(key.as_str())) {
            return Ok(own.clone());
        }
        let store = self.scope.store()?;
        let found = store.entry_at(id, key, store.as_of(work.snapshot)).map_err(too_old)?;
        work.soonest.note(found.as_ref().and_then(|entry| entry.expires_ms()));
        work.keys.insert((id, key.as_str().into()));
        Ok(found)
    }

    /// Whether a key exists.
    pub fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.entry(key)?.is_some())
    }

    /// The entries of several keys, in their order.
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<Entry>>>> {
        let mut work = self.work()?;
        keys.iter().map(|key| self.read(&mut work, Key::parse(key.as_ref())?)).collect()
    }

    /// Sets a key when the transaction commits.
    ///
    /// # Errors
    /// `QuotaExceeded` also for a transaction that grows beyond [`limits`](crate::limits).
    pub fn set(&self, key: &str, value: impl IntoDocument) -> Result<()> {
        self.set_with(key, value, SetOptions::default())
    }

    /// Sets a key if it has the version `if_version` in the snapshot; 0 means that it must not exist.
    ///
    /// # Errors
    /// `Conflict` for another version; the transaction goes on.
    pub fn set_if(&self, key: &str, value: impl IntoDocument, if_version: u64) -> Result<()> {
        self.set_with(key, value, SetOptions { if_version: Some(if_version), ..SetOptions::default() })
    }

    /// [`Transaction::set`] with a time to live, which counts from the commit on, or for one version only.
    ///
    /// # Errors
    /// As [`Transaction::set_if`]; `Invalid` for what is no time.
    pub fn set_with(&self, key: &str, value: impl IntoDocument, options: impl Into<SetOptions>) -> Result<()> {
        let options = options.into();
        let life = Life::of(options.ttl)?;
        let document = value.into_document(self.max_value_bytes())?;
        let mut work = self.work()?;
        let key = Key::parse(key)?;
        if let Some(expected) = options.if_version {
            self.expect_version(&mut work, key, expected)?;
        }
        self.write(&mut work, key, Some(document), life, None).map(drop)
    }

    /// Gives a key another time to live from the commit on, and leaves its value; says whether it is there now.
    ///
    /// # Errors
    /// `Invalid` for what is no time.
    pub fn touch(&self, key: &str, ttl: impl Into<Ttl>) -> Result<bool> {
        let life = Life::of(ttl.into())?;
        let mut work = self.work()?;
        let key = Key::parse(key)?;
        let id = self.scope.id();
        let is_own = work.writes.get(&id).is_some_and(|writes| writes.contains_key(key.as_str()));
        let found = self.read(&mut work, key)?;
        let Some(found) = found else { return Ok(false) };
        let touched = Arc::new(found.touched(life.expires_ms(clock::now_ms())));
        let place = (id, key.as_str().into());
        // What was only touched before is still not its own.
        let is_touch = !is_own || work.lives.get(&place).is_some_and(|told| told.is_touch);
        if !is_own {
            work.afford([key.as_str().len() + found.document().text().len()])?;
        }
        work.writes.entry(id).or_default().insert(key.as_str().into(), Some(touched));
        work.lives.insert(place, Told { life, is_touch });
        Ok(true)
    }

    /// Sets several keys; the last value of a repeated key stays.
    pub fn set_many<K: AsRef<str>, V: IntoDocument>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        self.set_many_with(pairs, Ttl::Default)
    }

    /// [`Transaction::set_many`] with a time to live, which counts from the commit on.
    ///
    /// # Errors
    /// `Invalid` for what is no time.
    pub fn set_many_with<K: AsRef<str>, V: IntoDocument>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
        ttl: impl Into<Ttl>,
    ) -> Result<()> {
        let life = Life::of(ttl.into())?;
        let max_bytes = self.max_value_bytes();
        let mut checked = Vec::new();
        for (key, value) in pairs {
            Key::parse(key.as_ref())?;
            checked.push((key, value.into_document(max_bytes)?));
        }
        let mut work = self.work()?;
        work.afford(checked.iter().map(|(key, document)| key.as_ref().len() + document.text().len()))?;
        for (key, document) in checked {
            self.note(&mut work, Key::parse(key.as_ref())?, Some(document), life, None);
        }
        Ok(())
    }

    /// Deletes a key when the transaction commits; says whether it is there now.
    pub fn delete(&self, key: &str) -> Result<bool> {
        let mut work = self.work()?;
        self.remove(&mut work, Key::parse(key)?)
    }

    /// Deletes a key if it has the version `if_version` in the snapshot; 0 means that it must not exist.
    ///
    /// # Errors
    /// `Conflict` for another version; the transaction goes on.
    pub fn delete_if(&self, key: &str, if_version: u64) -> Result<bool> {
        let mut work = self.work()?;
        let key = Key::parse(key)?;
        self.expect_version(&mut work, key, if_version)?;
        self.remove(&mut work, key)
    }

    fn remove(&self, work: &mut Work, key: Key<'_>) -> Result<bool> {
        let existed = self.read(work, key)?.is_some();
        if existed {
            self.write(work, key, None, Life::Default, None)?;
        }
        Ok(existed)
    }

    /// Deletes a key when the transaction commits, whether it is there or not.
    #[cfg(feature = "tokio")]
    pub(crate) fn delete_unread(&self, key: &str) -> Result<()> {
        self.write(&mut *self.work()?, Key::parse(key)?, None, Life::Default, None).map(drop)
    }

    fn expect_version(&self, work: &mut Work, key: Key<'_>, expected: u64) -> Result<()> {
        let found = self.read(work, key)?;
        let version = found.as_ref().map_or(0, |entry| entry.version());
        // An own write exists, but has no version yet: nothing can be expected of it but that it is there.
        if version == expected && (expected != 0 || found.is_none()) {
            return Ok(());
        }
        Err(version_conflict(key.as_str(), version, expected))
    }

    fn write(
        &self,
        work: &mut Work,
        key: Key<'_>,
        document: Option<Document>,
        life: Life,
        before: Option<&Arc<Entry>>,
    ) -> Result<Option<Arc<Entry>>> {
        work.afford([key.as_str().len() + document.as_ref().map_or(0, |document| document.text().len())])?;
        Ok(self.note(work, key, document, life, before))
    }

    /// Notes a write that the budget allows; `before` is what the key was when the transaction first read it, where that counts.
    fn note(
        &self,
        work: &mut Work,
        key: Key<'_>,
        document: Option<Document>,
        life: Life,
        before: Option<&Arc<Entry>>,
    ) -> Option<Arc<Entry>> {
        let place = (self.scope.id(), key.as_str().into());
        let own = work.writes.get(&place.0).and_then(|writes| writes.get(key.as_str()));
        let is_own = own.is_some();
        let now_ms = clock::now_ms();
        let expires_ms = match life {
            Life::Keep => own.map_or(before, Option::as_ref).and_then(|kept| kept.expires_ms()),
            life => life.expires_ms(now_ms),
        };
        // What was told before stays when the value is updated, also that it is to live as the scope says.
        match (life, work.lives.get_mut(&place)) {
            (Life::Default, None) => {}
            (Life::Keep, None) if is_own => {}
            (Life::Default, Some(_)) => drop(work.lives.remove(&place)),
            (Life::Keep, Some(told)) => told.is_touch = false,
            (life, _) => drop(work.lives.insert(place, Told { life, is_touch: false })),
        }
        let entry = document.map(|document| Arc::new(Entry::pending(document, now_ms, expires_ms)));
        work.writes.entry(self.scope.id()).or_default().insert(key.as_str().into(), entry.clone());
        entry
    }

    /// Deletes every key that matches when the transaction commits; says how many there are.
    pub fn clear(&self, pattern: &str) -> Result<u64> {
        let doomed: Vec<String> = self.keys(pattern)?.collect::<Result<_>>()?;
        let mut work = self.work()?;
        work.afford(doomed.iter().map(String::len))?;
        for key in &doomed {
            self.note(&mut work, Key::parse(key)?, None, Life::Default, None);
        }
        Ok(doomed.len() as u64)
    }

    /// The keys that match, own writes of this moment included; see [`Scope::keys`].
    pub fn keys(&self, select: impl Into<Select>) -> Result<Keys> {
        let select = select.into();
        Keys::new(self.list(&select)?, select)
    }

    /// The keys that match with their entries; see [`Transaction::keys`].
    pub fn items(&self, select: impl Into<Select>) -> Result<Items> {
        let select = select.into();
        Items::new(self.list(&select)?, select)
    }

    /// Remembers what is listed.
    fn list(&self, select: &Select) -> Result<Listed> {
        let mut work = self.work()?;
        let pattern = select.pattern.as_deref().map_or_else(|| Ok(Pattern::all()), Pattern::parse)?;
        let range = (self.scope.id(), pattern);
        if !work.ranges.contains(&range) {
            work.ranges.push(range);
        }
        let overlay = work.writes.get(&self.scope.id()).cloned().unwrap_or_default();
        let (session, id) = (self.scope.session(), self.scope.id());
        Ok(Listed::of_transaction(session, id, work.snapshot, overlay, &work.soonest))
    }

    /// How many keys match.
    pub fn count(&self, pattern: &str) -> Result<u64> {
        let mut count = 0;
        for key in self.keys(pattern)? {
            key?;
            count += 1;
        }
        Ok(count)
    }

    /// Replaces a value by what `f` makes of it; answers the pending entry.
    ///
    /// # Errors
    /// Whatever `f` fails with.
    pub fn modify<E: From<Error>>(
        &self,
        key: &str,
        f: impl FnOnce(Option<&Arc<Entry>>) -> Result<Document, E>,
    ) -> Result<Arc<Entry>, E> {
        // Not locked while `f` runs: it may use this transaction, too.
        let current = self.entry(key)?;
        let new = f(current.as_ref())?.into_document(self.max_value_bytes())?;
        Ok(self.replace(&mut *self.work()?, Key::parse(key)?, new, current.as_ref())?)
    }

    fn replace(
        &self,
        work: &mut Work,
        key: Key<'_>,
        new: Document,
        current: Option<&Arc<Entry>>,
    ) -> Result<Arc<Entry>> {
        let entry = self.write(work, key, Some(new), Life::Keep, current)?;
        entry.ok_or_else(|| Error::corrupt("a write of a value made a deletion"))
    }

    fn update(&self, key: &str, update: &Update) -> Result<Arc<Entry>> {
        let mut work = self.work()?;
        let key = Key::parse(key)?;
        let current = self.read(&mut work, key)?;
        let new = update.apply(current.as_ref().map(|entry| entry.document()), self.max_value_bytes())?;
        self.replace(&mut work, key, new, current.as_ref())
    }

    /// Adds to a number; see [`Scope::increment`].
    pub fn increment(&self, key: &str, by: impl Into<Number>) -> Result<Number> {
        let sum = self.update(key, &Update::Increment(by.into().checked()?))?;
        Number::of(sum.document()).ok_or_else(|| Error::corrupt("a sum is not a number"))
    }

    /// Adds an item to the end of an array; see [`Scope::append`].
    pub fn append(&self, key: &str, item: impl IntoDocument) -> Result<u64> {
        let item = item.into_document(self.max_value_bytes())?;
        Ok(array_len(self.update(key, &Update::Append(item))?.document().text()))
    }

    /// Applies a JSON Merge Patch; see [`Scope::merge`].
    pub fn merge(&self, key: &str, patch: impl IntoDocument) -> Result<Document> {
        let patch = patch.into_document(self.max_value_bytes())?;
        Ok(self.update(key, &Update::Merge(patch))?.document().clone())
    }

    /// The same transaction seen from a child scope; see [`Scope::scope`]. A new scope stays, even if this is rolled back.
    pub fn scope(&self, name: &str) -> Result<Transaction> {
        drop(self.work()?);
        Ok(Self { scope: self.scope.scope(name)?, work: Arc::clone(&self.work) })
    }

    /// Commits; answers the version of the commit, or of the snapshot when there was nothing to write.
    ///
    /// # Errors
    /// `Conflict` when something that was read or listed has changed since the transaction began.
    pub fn commit(&self) -> Result<u64> {
        self.commit_call()?.wait()
    }

    /// [`Transaction::commit`] as a call that need not be waited for. The transaction has ended from now on.
    pub fn commit_call(&self) -> Result<Call<u64>> {
        let (request, snapshot) = {
            let mut work = self.work()?;
            work.ended = Some("committed or has failed to");
            (work.take_request(self.scope.store()?), work.snapshot)
        };
        let session = self.scope.session();
        if request.changes.is_empty() {
            return Ok(Call::known(session, snapshot.version.cast_unsigned()));
        }
        Ok(Call::commit(&self.scope, request, calls::version))
    }

    /// Anything that may ask the database, as a [`Call`]: `transaction.call(|tx| tx.count("*"))`.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Call<T> {
        let transaction = self.clone();
        self.scope.call(move |_| work(&transaction))
    }

    /// Whether no other thread is reading for this transaction at this moment, so that a call which only notes a write
    /// does not wait.
    pub fn is_idle(&self) -> bool {
        self.scope.session().check_fork().is_err() || self.work.try_lock().is_ok()
    }

    /// The entry of a key as far as it is known without asking the database, and noted as read if so; the outer `None` says that
    /// it is not.
    ///
    /// # Errors
    /// As [`Transaction::entry`].
    #[allow(clippy::option_option)] // whether it is known, and if so, whether it is there
    pub fn peek(&self, key: &str) -> Result<Option<Option<Arc<Entry>>>> {
        let store = self.scope.store()?;
        let key = Key::parse(key)?;
        let Ok(mut work) = self.work.try_lock() else { return Ok(None) };
        work.check()?;
        let id = self.scope.id();
        if let Some(own) = work.writes.get(&id).and_then(|writes| writes.get(key.as_str())) {
            return Ok(Some(own.clone()));
        }
        let Some(known) = store.peek_at(id, key, work.snapshot) else { return Ok(None) };
        work.soonest.note(known.expires_ms());
        work.keys.insert((id, key.as_str().into()));
        Ok(Some(Some(known)))
    }

    /// Gives up; nothing is written. Works on a state that was closed, too.
    pub fn rollback(&self) -> Result<()> {
        self.scope.session().check_fork()?;
        let mut work = self.lock();
        work.check()?;
        work.end("rolled back");
        Ok(())
    }

    /// The same transaction seen from another scope of the same opening.
    pub(crate) fn on(&self, scope: &Scope) -> Self {
        Self { scope: scope.clone(), work: Arc::clone(&self.work) }
    }

    /// The scope that it is seen from.
    pub(crate) fn seen_from(&self) -> &Scope {
        &self.scope
    }

    /// From now on the transaction relies on every key of its scope.
    pub(crate) fn rely_on_all(&self) -> Result<()> {
        self.list(&Select::default()).map(drop)
    }

    /// Sets a key, or deletes it, when the transaction commits.
    pub(crate) fn put(&self, key: &str, document: Option<Document>, life: Life) -> Result<()> {
        self.write(&mut *self.work()?, Key::parse(key)?, document, life, None).map(drop)
    }

    /// Whether it is of the same opening as a scope.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_of(&self, scope: &Scope) -> bool {
        Arc::ptr_eq(self.scope.session(), scope.session())
    }

    /// Ends the transaction if it has not ended, whatever became of its state.
    pub(crate) fn abandon(&self) {
        if self.has_ended() {
            return;
        }
        // In a fork nobody can use it anyway.
        let _ = self.rollback();
    }

    /// Whether it was committed, rolled back, or failed to commit.
    pub fn has_ended(&self) -> bool {
        // In a fork the lock may be held by a thread of the parent, for ever.
        self.scope.session().check_fork().is_ok() && self.lock().ended.is_some()
    }

    /// Whether it was neither committed nor rolled back, and its state is open.
    pub fn is_active(&self) -> bool {
        self.work().is_ok()
    }

    /// The longest stored text of one value, in bytes, as configured.
    pub fn max_value_bytes(&self) -> usize {
        self.scope.max_value_bytes()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = self.lock();
        f.debug_struct("Transaction")
            .field("scope", &self.scope.name())
            .field("snapshot", &work.snapshot.version)
            .field("ended", &work.ended)
            .finish_non_exhaustive()
    }
}

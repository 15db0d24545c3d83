//! What keys were: their history, the store as of a moment of the past, what differs between two moments, and taking changes
//! back. Taking back is itself a commit, so it can be taken back.

use crate::calls::{self, Call};
use crate::engine::{Head, ScopeId, is_over};
use crate::key::{Key, Pattern, ScopeName};
use crate::listing::{Listed, Select};
use crate::scope::unexpected;
use crate::session::Session;
use crate::store::past::Deeds;
use crate::store::request::{Action, Applied, Change, Life, Request};
use crate::store::snapshot::AsOf;
use crate::{Document, Entry, Error, ErrorKind, Items, Keys, Operation, Origin, Result, Scope, limits};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A moment of the past: the state after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When this was the version of the newest commit.
    Version(u64),
    /// This time, in milliseconds since the Unix epoch, UTC.
    TimeMs(i64),
}

impl From<u64> for Moment {
    fn from(version: u64) -> Self {
        Self::Version(version)
    }
}

/// What has happened to a key at one moment.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The version of the commit.
    pub version: u64,
    /// What happened.
    pub operation: Operation,
    /// The value the key got; `None` for a deletion.
    pub value: Option<Document>,
    /// When, in milliseconds since the Unix epoch, UTC.
    pub time_ms: i64,
    /// Who did it, in the course of what, and why.
    pub origin: Origin,
}

/// A key that is not the same at two moments.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// Its value at the first moment; `None` when it was not there.
    pub from: Option<Document>,
    /// Its value at the second.
    pub to: Option<Document>,
}

/// What [`Scope::undo`] takes back: everything that an actor, or a run, or an actor in a run has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undo {
    /// Changes of this actor.
    pub actor: Option<String>,
    /// Changes of this run.
    pub run: Option<String>,
    /// Only what came after this version.
    pub since: u64,
}

/// What came of [`Scope::undo`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The version of the commit that took the changes back; of the newest one when there was nothing to take back.
    pub version: u64,
    /// How many keys are as they were.
    pub keys: u64,
    /// Keys that were left alone, since somebody else has changed them later: the names of the scopes that lead there, and
    /// the key.
    pub refused: Vec<(Vec<String>, String)>,
}

impl Scope {
    /// What has happened to a key, the newest first: at most `limit` changes, [`limits::HISTORY`] unless told.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub fn history(&self, key: &str, limit: Option<usize>) -> Result<Vec<Revision>> {
        self.store()?.revisions(self.id(), Key::parse(key)?, limit.unwrap_or(limits::HISTORY))
    }

    /// The scope as it was at a moment.
    ///
    /// # Errors
    /// `Invalid` for a version that is still to come.
    pub fn at(&self, when: impl Into<Moment>) -> Result<View> {
        let (head, clock_ms) = self.store()?.moment(when.into())?;
        Ok(View { session: Arc::clone(self.session()), id: self.id(), head, clock_ms })
    }

    /// The keys that match and are not the same at two moments, sorted by bytes; without `to`, the second is now.
    ///
    /// # Errors
    /// As [`Scope::at`]; `Invalid` for a bad pattern.
    pub fn diff(&self, from: impl Into<Moment>, to: Option<Moment>, pattern: &str) -> Result<Differences> {
        let store = self.store()?;
        let from = self.at(from)?;
        let (head, clock_ms) = to.map_or_else(|| Ok((store.head()?, store.clock_ms())), |to| store.moment(to))?;
        let to = View { head, clock_ms, ..from.clone() };
        let (one, other) = (from.as_of(), to.as_of());
        let (older, newer) = if one.seq <= other.seq { (one, other) } else { (other, one) };
        let keys = store.changed(self.id(), &Pattern::parse(pattern)?, older, newer)?;
        Ok(Differences { keys: keys.into_iter(), from, to })
    }

    /// Gives a key the value that it had at a moment with the time at which it expires, or deletes it if it was not there then or has
    /// expired since; answers the version of the commit, of the newest one when there was nothing to delete.
    ///
    /// # Errors
    /// As [`Scope::at`].
    pub fn revert(&self, key: &str, when: impl Into<Moment>) -> Result<u64> {
        let store = self.store()?;
        let then = self.at(when)?.entry(key)?;
        let then = then.filter(|entry| !is_over(entry.expires_ms(), store.clock_ms()));
        let action = then.map_or(Action::Delete, |entry| {
            store.set_action(self.id(), key, entry.document().clone(), Life::Until(entry.expires_ms()))
        });
        Call::commit(self, Request::one(self.id(), key, action, None), calls::version).wait()
    }

    /// Makes every key that matches as it was at a moment, in one commit; says how many that has changed. What has expired since
    /// stays away.
    ///
    /// # Errors
    /// As [`Scope::at`]; `Invalid` for a bad pattern; `QuotaExceeded` for more than one commit holds.
    pub fn revert_to(&self, when: impl Into<Moment>, pattern: &str) -> Result<u64> {
        let to = self.at(when)?.as_of();
        let change = Change::Revert { scope: self.id(), pattern: Pattern::parse(pattern)?, to };
        let request = Request { changes: vec![change], ..Request::default() };
        Call::commit(self, request, |response| match response.only()? {
            Applied::Reverted(count) => Ok(count),
            other => Err(unexpected(&other)),
        })
        .wait()
    }

    /// Takes back everything that an actor or a run has changed in this scope and those inside it, in one commit.
    ///
    /// A key that somebody else has changed later is left alone and told. Where they went on after somebody else's change, an
    /// earlier undoing included, the key gets the value of that change.
    ///
    /// # Errors
    /// `Invalid` when neither an actor nor a run is named, or for a version that is still to come; `QuotaExceeded` for more than
    /// one commit holds.
    pub fn undo(&self, what: Undo) -> Result<Undone> {
        let store = self.store()?;
        if what.actor.is_none() && what.run.is_none() {
            return Err(Error::invalid("undo takes an actor or a run: whose changes are to be taken back?"));
        }
        let scopes = store.below(self.id())?;
        let since = store.row_of(what.since)?;
        let mut deeds = Deeds::new(scopes.keys().copied().collect(), what.actor, what.run, since);
        // Most of the looking is done before other writers have to wait.
        store.look(&mut deeds)?;
        let request = Request { changes: vec![Change::Undo(Box::new(deeds))], ..Request::default() };
        let (version, keys, refused) = Call::commit(self, request, |response| {
            let version = response.version.cast_unsigned();
            match response.only()? {
                Applied::Undone { keys, refused } => Ok((version, keys, refused)),
                other => Err(unexpected(&other)),
            }
        })
        .wait()?;
        let path = |scope| scopes.get(&scope).cloned().unwrap_or_default();
        let refused = refused.into_iter().map(|(scope, key)| (path(scope), key.into())).collect();
        Ok(Undone { version, keys, refused })
    }
}

/// A scope as it was at a moment; made by [`Scope::at`]. Whatever is written meanwhile, it stays the same.
#[derive(Clone)]
pub struct View {
    session: Arc<Session>,
    id: ScopeId,
    head: Head,
    /// The time by which keys had expired.
    clock_ms: i64,
}

impl View {
    /// The version of the newest commit that it shows.
    pub fn version(&self) -> u64 {
        self.head.version.cast_unsigned()
    }

    /// The value of a key; see [`Scope::get`].
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        self.entry(key)?.map(|entry| entry.document().parse()).transpose()
    }

    /// The value of a key with its version and times.
    pub fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        self.session.store()?.entry_at(self.id, Key::parse(key)?, self.as_of())
    }

    /// Whether a key existed.
    pub fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.entry(key)?.is_some())
    }

    /// The entries of several keys, in their order.
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<Entry>>>> {
        keys.iter().map(|key| self.entry(key.as_ref())).collect()
    }

    /// The keys that match, sorted by bytes; see [`Scope::keys`].
    pub fn keys(&self, select: impl Into<Select>) -> Result<Keys> {
        Keys::new(self.listed()?, select.into())
    }

    /// The keys that match with their entries.
    pub fn items(&self, select: impl Into<Select>) -> Result<Items> {
        Items::new(self.listed()?, select.into())
    }

    /// Anything that may ask the database, as a [`Call`]; see [`Scope::call`].
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Call<T> {
        let view = self.clone();
        Call::work(&self.session, move || work(&view))
    }

    fn as_of(&self) -> AsOf {
        AsOf { seq: self.head.seq, clock_ms: self.clock_ms }
    }

    fn listed(&self) -> Result<Listed> {
        self.session.store()?;
        Ok(Listed::of_view(&self.session, self.id, self.head, self.clock_ms))
    }

    /// How many keys match.
    pub fn count(&self, pattern: &str) -> Result<u64> {
        self.keys(pattern)?.try_fold(0, |count, key| key.map(|_| count + 1))
    }

    /// A scope inside this one, as it was at the same moment.
    ///
    /// # Errors
    /// `NotFound` when there is none of this name; `Invalid` for a name that breaks the rules.
    pub fn scope(&self, name: &str) -> Result<View> {
        let found = self.session.store()?.find_scope(self.id, ScopeName::parse(name)?)?;
        let id = found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no scope {name:?}")))?;
        Ok(View { id, ..self.clone() })
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("version", &self.version()).finish_non_exhaustive()
    }
}

/// Keys that differ, in order; made by [`Scope::diff`].
#[derive(Debug)]
pub struct Differences {
    keys: std::vec::IntoIter<Box<str>>,
    from: View,
    to: View,
}

impl Iterator for Differences {
    type Item = Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = |view: &View, key: &str| Ok::<_, Error>(view.entry(key)?.map(|entry| entry.document().clone()));
        loop {
            let key = self.keys.next()?;
            let pair = value(&self.from, &key).and_then(|from| Ok((from, value(&self.to, &key)?)));
            match pair {
                Err(error) => return Some(Err(error)),
                Ok((from, to)) => {
                    // Changed to and fro.
                    if from.as_ref().map(Document::text) != to.as_ref().map(Document::text) {
                        return Some(Ok(Difference { key: key.into(), from, to }));
                    }
                }
            }
        }
    }
}

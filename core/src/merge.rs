//! Forks of scopes, for those who try something, and merging back what has come of it.

use crate::engine::Fork;
use crate::harness::{self, sabotaged};
use crate::key::ScopeName;
use crate::retry::Retry;
use crate::store::past::Value;
use crate::store::request::Life;
use crate::{Document, Entry, Error, Result, Scope, Transaction, limits};
use std::collections::HashMap;
use std::sync::Arc;

/// A key that is another in a fork and in what it was forked from, and was neither when they parted.
#[derive(Debug, Clone)]
pub struct MergeConflict {
    /// The names that lead to its scope, from the one that is merged into.
    pub path: Vec<String>,
    /// The key.
    pub key: String,
    /// Its value when they parted; `None` also where that is not kept any more.
    pub base: Option<Document>,
    /// Its value in the scope that is merged into; `None` where it is not there.
    pub ours: Option<Document>,
    /// Its value in the fork.
    pub theirs: Option<Document>,
}

/// What becomes of a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// It is left as it is in the scope that is merged into.
    Ours,
    /// It becomes what it is in the fork.
    Theirs,
    /// It gets this value.
    Value(Document),
    /// It is deleted.
    Delete,
}

/// What came of [`Scope::merge_from`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged {
    /// The version of the commit; of the newest one that was seen when there was nothing to change.
    pub version: u64,
    /// How many keys were changed.
    pub keys: u64,
    /// Keys that were left alone, since both sides have changed them: the names of the scopes that lead there, and the key.
    pub conflicts: Vec<(Vec<String>, String)>,
}

/// A conflict with what is to become of it; nothing leaves it alone.
pub type MergeAnswer = (MergeConflict, Option<Resolution>);

/// What came of [`Scope::merge_answered`].
#[derive(Debug, Clone)]
pub enum Merge {
    /// It is committed.
    Done(Merged),
    /// Nothing is committed: these conflicts have no answer yet.
    Open(Vec<MergeConflict>),
}

impl MergeConflict {
    /// Whether the answer to one is one to the other.
    fn is_same(&self, other: &Self) -> bool {
        let is_same = |one: &Option<Document>, other: &Option<Document>| {
            one.as_ref().map(Document::text) == other.as_ref().map(Document::text)
        };
        self.key == other.key
            && self.path == other.path
            && is_same(&self.base, &other.base)
            && is_same(&self.ours, &other.ours)
            && is_same(&self.theirs, &other.theirs)
    }
}

/// Two scopes on their way to one.
struct Pair {
    ours: Transaction,
    theirs: Transaction,
    /// When they parted; nothing where only the fork has it.
    parted: Option<Fork>,
    path: Vec<String>,
}

impl Scope {
    /// Makes a copy of a child scope under another name, with all scopes inside it, their keys, and their history up to now; from
    /// then on the two are independent. Values are shared until either side changes them, so a copy takes a small part of the space.
    ///
    /// What was set for the scope, its named watches and what is written meanwhile stay with the original.
    ///
    /// # Errors
    /// `NotFound` when there is no such child; `Conflict` when there is one of the new name already; `Invalid` for a name that
    /// breaks the rules.
    pub fn fork(&self, scope: &str, name: &str) -> Result<Scope> {
        // Nothing is read after the commit: that could fail, and the fork would be there.
        let made = self.store()?.fork_scope(self.id(), ScopeName::parse(scope)?, ScopeName::parse(name)?)?;
        Ok(self.child(made, name))
    }

    /// Merges what a fork of this scope has changed since they parted, with the scopes inside it, in one commit. A key that both
    /// have changed, to different values, is left alone and told.
    ///
    /// # Errors
    /// `Invalid` when `fork` was not made from this scope; `QuotaExceeded` for more than one commit holds; `Conflict` after
    /// [`limits::ATTEMPTS`] attempts.
    pub fn merge_from(&self, fork: &Scope) -> Result<Merged> {
        self.merge_with(fork, |_| Ok::<_, Error>(None))
    }

    /// [`Scope::merge_from`] with an answer to conflicts: `resolve` says what becomes of each, or nothing to leave it alone and
    /// have it told. It runs again when another writer was faster; no lock is held meanwhile.
    ///
    /// # Errors
    /// As [`Scope::merge_from`], and whatever `resolve` fails with; nothing is merged then.
    pub fn merge_with<E: From<Error>>(
        &self,
        fork: &Scope,
        mut resolve: impl FnMut(&MergeConflict) -> Result<Option<Resolution>, E>,
    ) -> Result<Merged, E> {
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            let transaction = self.transaction()?;
            let mut merged = Merged::default();
            self.merge_once(&transaction, fork, &mut merged, &mut resolve)?;
            match commit(&transaction) {
                Err(error) => retry.after(error)?,
                Ok(version) => return Ok(Merged { version, ..merged }),
            }
        }
    }

    /// [`Scope::merge_with`] for those who cannot be called back, such as an event loop: with the answers so far it merges, or tells
    /// which conflicts have none.
    ///
    /// # Errors
    /// As [`Scope::merge_from`].
    pub fn merge_answered(&self, fork: &Scope, answers: &[MergeAnswer]) -> Result<Merge> {
        let mut known: HashMap<&str, Vec<&MergeAnswer>> = HashMap::new();
        for answer in answers {
            known.entry(&answer.0.key).or_default().push(answer);
        }
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            let transaction = self.transaction()?;
            let (mut merged, mut open) = (Merged::default(), Vec::new());
            self.merge_once(&transaction, fork, &mut merged, &mut |conflict| {
                let of_key = known.get(&*conflict.key).into_iter().flatten();
                let answer = of_key.copied().find(|(answered, _)| answered.is_same(conflict));
                if answer.is_none() {
                    open.push(conflict.clone());
                }
                Ok::<_, Error>(answer.and_then(|(_, resolution)| resolution.clone()))
            })?;
            if !open.is_empty() {
                return Ok(Merge::Open(open));
            }
            match commit(&transaction) {
                Err(error) => retry.after(error)?,
                Ok(version) => return Ok(Merge::Done(Merged { version, ..merged })),
            }
        }
    }

    fn merge_once<E: From<Error>>(
        &self,
        transaction: &Transaction,
        fork: &Scope,
        merged: &mut Merged,
        resolve: &mut impl FnMut(&MergeConflict) -> Result<Option<Resolution>, E>,
    ) -> Result<(), E> {
        if !Arc::ptr_eq(self.session(), fork.session()) {
            return Err(
                Error::invalid("the fork is of another opening of a store; use a handle from the same one").into()
            );
        }
        let store = self.store()?;
        let parted = store.forked(fork.id())?.filter(|from| from.scope == self.id());
        if parted.is_none() {
            return Err(Error::invalid("the scope to merge is no fork of this one").into());
        }
        let theirs = transaction.on(fork);
        let mut open = vec![Pair { ours: transaction.clone(), theirs, parted, path: Vec::new() }];
        while let Some(pair) = open.pop() {
            // A key that is changed in the fork meanwhile belongs to the merge, too.
            pair.theirs.rely_on_all()?;
            let theirs = pair.theirs.seen_from();
            for name in theirs.scopes()? {
                let (ours, theirs) = (pair.ours.scope(&name)?, pair.theirs.scope(&name)?);
                let from = store.forked(theirs.seen_from().id())?;
                let parted = from.filter(|from| from.scope == ours.seen_from().id());
                let path = pair.path.iter().cloned().chain([name]).collect();
                open.push(Pair { ours, theirs, parted, path });
            }
            let keys = match pair.parted {
                Some(fork) => store.changed_in(theirs.id(), fork, transaction.snapshot()?)?,
                // It may have started from another scope of the fork.
                None => pair.theirs.keys("*")?.map(|key| key.map(Into::into)).collect::<Result<_>>()?,
            };
            for key in keys {
                merged.keys += u64::from(pair.merge(&key, merged, resolve)?);
            }
        }
        Ok(())
    }
}

/// Commits what a merge has found to change.
fn commit(transaction: &Transaction) -> Result<u64> {
    harness::point("merge.read");
    let committed = transaction.commit();
    harness::point("merge.done");
    committed
}

impl Pair {
    /// Merges one key; says whether it was changed.
    fn merge<E: From<Error>>(
        &self,
        key: &str,
        merged: &mut Merged,
        resolve: &mut impl FnMut(&MergeConflict) -> Result<Option<Resolution>, E>,
    ) -> Result<bool, E> {
        let document = |entry: &Option<Arc<Entry>>| entry.as_ref().map(|entry| entry.document().clone());
        let text = |document: &Option<Document>| document.as_ref().map(|document| document.text().to_owned());
        let found = self.theirs.entry(key)?;
        let own = self.ours.entry(key)?;
        let (ours, theirs) = (document(&own), document(&found));
        let store = self.ours.seen_from().store()?;
        let mut base = Some(None);
        if let Some(fork) = self.parted {
            // What one of the two has forgotten, the other may still know.
            base = store.document_at(self.theirs.seen_from().id(), key, fork.at)?;
            base = base.map_or_else(|| store.document_at(fork.scope, key, fork.at), |known| Ok(Some(known)))?;
        }
        // Also its time to expire: what was only touched has changed.
        let is_as_it_was = |side: &Option<Arc<Entry>>| {
            let side = side.as_ref().map(|entry| (entry.document().text(), entry.expires_ms()));
            let is_same = |base: &Option<Value>| base.as_ref().map(|b| (b.document.text(), b.expires_ms)) == side;
            base.as_ref().is_some_and(is_same)
        };
        let ours_changed = !is_as_it_was(&own);
        if is_as_it_was(&found) || ours_changed && text(&ours) == text(&theirs) {
            return Ok(false);
        }
        let resolution = if ours_changed && !sabotaged("merge-over") {
            let (path, base) = (self.path.clone(), base.flatten().map(|base| base.document));
            let conflict = MergeConflict { path, key: key.into(), base, ours, theirs: theirs.clone() };
            let Some(resolution) = resolve(&conflict)? else {
                merged.conflicts.push((conflict.path, conflict.key));
                return Ok(false);
            };
            resolution
        } else {
            Resolution::Theirs
        };
        let life = Life::Until(found.and_then(|entry| entry.expires_ms()));
        match resolution {
            Resolution::Ours => return Ok(false),
            Resolution::Theirs => self.ours.put(key, theirs, life)?,
            Resolution::Value(value) => self.ours.put(key, Some(value), Life::Keep)?,
            Resolution::Delete => self.ours.put(key, None, Life::Default)?,
        }
        Ok(true)
    }
}

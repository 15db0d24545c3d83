//! Forks of scopes, for those who try something, and merging back what has come of it.

use crate::engine::Fork;
use crate::harness::{self, sabotaged};
use crate::key::ScopeName;
use crate::retry::Retry;
use crate::store::past::Value;
use crate::store::request::Life;
use crate::{Document, Entry, Error, ErrorKind, Result, Scope, Transaction, limits};
use std::collections::{BTreeSet, HashMap, VecDeque};
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

/// A merge for those who cannot be called back, such as an event loop: between its attempts it asks about conflicts. Made by
/// [`Scope::merging`].
#[derive(Debug)]
pub struct Merging {
    ours: Scope,
    theirs: Scope,
    /// The newest answer for each key, by its name; scopes may share that.
    answers: HashMap<String, Vec<(MergeConflict, Option<Resolution>)>>,
    /// What has no answer yet.
    open: VecDeque<MergeConflict>,
    retry: Retry,
}

/// What is known of how a conflict is to be solved.
enum Known<'a> {
    Nothing,
    Left,
    Resolved(&'a Resolution),
}

/// Two scopes on their way to one.
struct Pair {
    ours: Transaction,
    theirs: Transaction,
    /// When they parted; nothing where only the fork has it.
    parted: Option<Fork>,
    path: Vec<String>,
}

/// A scope of the fork that the other side does not have: it is made when nothing else is in the way of merging, since it stays.
struct Missing {
    parent: Transaction,
    theirs: Transaction,
    path: Vec<String>,
}

/// One attempt to merge.
#[derive(Default)]
struct Attempt {
    merged: Merged,
    /// What has no answer.
    open: Vec<MergeConflict>,
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
    /// have changed, to different values, is left alone and told. Scopes that only the fork has are made before that, empty.
    ///
    /// # Errors
    /// `Invalid` when `fork` was not made from this scope; `QuotaExceeded` for more than one commit holds; `Conflict` after
    /// [`limits::ATTEMPTS`] attempts.
    pub fn merge_from(&self, fork: &Scope) -> Result<Merged> {
        let mut retry = Retry::new(limits::ATTEMPTS);
        loop {
            match self.merge_once(fork, &|_| Known::Left) {
                Err(error) => retry.after(error)?,
                Ok(attempt) => return Ok(attempt.merged),
            }
        }
    }

    /// [`Scope::merge_from`] with an answer to conflicts: `resolve` says what becomes of each, or nothing to leave it alone and
    /// have it told. It runs again for what another writer has changed meanwhile; no lock is held.
    ///
    /// # Errors
    /// As [`Scope::merge_from`], and whatever `resolve` fails with; nothing is merged then.
    pub fn merge_with<E: From<Error>>(
        &self,
        fork: &Scope,
        mut resolve: impl FnMut(&MergeConflict) -> Result<Option<Resolution>, E>,
    ) -> Result<Merged, E> {
        let mut merging = self.merging(fork);
        loop {
            if let Some(merged) = merging.attempt()? {
                return Ok(merged);
            }
            while let Some(conflict) = merging.open() {
                let resolution = resolve(conflict)?;
                merging.answer(resolution);
            }
        }
    }

    /// [`Scope::merge_with`] for those who cannot be called back.
    pub fn merging(&self, fork: &Scope) -> Merging {
        let (ours, theirs, retry) = (self.clone(), fork.clone(), Retry::new(limits::ATTEMPTS));
        Merging { ours, theirs, answers: HashMap::new(), open: VecDeque::new(), retry }
    }

    /// Merges and commits, unless something has no answer.
    fn merge_once<'a>(&self, fork: &Scope, known: &dyn Fn(&MergeConflict) -> Known<'a>) -> Result<Attempt> {
        if !Arc::ptr_eq(self.session(), fork.session()) {
            return Err(Error::invalid("the fork is of another opening of a store; use a handle from the same one"));
        }
        let store = self.store()?;
        let parted = store.forked(fork.id())?.filter(|from| from.scope == self.id());
        if parted.is_none() {
            return Err(Error::invalid("the scope to merge is no fork of this one"));
        }
        let transaction = self.transaction()?;
        let theirs = transaction.on(fork);
        let mut pairs = vec![Pair { ours: transaction.clone(), theirs, parted, path: Vec::new() }];
        let mut missing = Vec::new();
        let mut attempt = Attempt::default();
        loop {
            while let Some(pair) = pairs.pop() {
                // A key that is changed in the fork meanwhile belongs to the merge, too.
                pair.theirs.rely_on_all()?;
                pair.descend(&mut pairs, &mut missing)?;
                for key in pair.keys()? {
                    attempt.merged.keys += u64::from(pair.merge(&key, known, &mut attempt)?);
                }
            }
            if !attempt.open.is_empty() {
                return Ok(attempt);
            }
            let Some(scope) = missing.pop() else { break };
            pairs.push(scope.made()?);
        }
        harness::point("merge.read");
        attempt.merged.version = transaction.commit()?;
        harness::point("merge.done");
        Ok(attempt)
    }
}

impl Merging {
    /// Merges with the answers so far. Nothing is merged, and nothing given, while there are conflicts that have none: see
    /// [`Merging::open`].
    ///
    /// # Errors
    /// As [`Scope::merge_from`]; `Conflict` also when other writers have changed what was answered [`limits::ATTEMPTS`] times.
    pub fn attempt(&mut self) -> Result<Option<Merged>> {
        loop {
            let known = |conflict: &MergeConflict| {
                let mut of_key = self.answers.get(&conflict.key).into_iter().flatten();
                match of_key.find(|(answered, _)| answered.is_same(conflict)) {
                    None => Known::Nothing,
                    Some((_, None)) => Known::Left,
                    Some((_, Some(resolution))) => Known::Resolved(resolution),
                }
            };
            match self.ours.merge_once(&self.theirs, &known) {
                Err(error) => self.retry.after(error)?,
                Ok(Attempt { merged, open }) if open.is_empty() => return Ok(Some(merged)),
                // Some have changed since they were answered.
                Ok(_) if !self.answers.is_empty() && !self.retry.again() => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "other writers changed the conflicts faster than they were answered; merge again",
                    ));
                }
                Ok(Attempt { open, .. }) => {
                    self.open = open.into();
                    return Ok(None);
                }
            }
        }
    }

    /// The next conflict without an answer; nothing when it is time for another attempt.
    pub fn open(&self) -> Option<&MergeConflict> {
        self.open.front()
    }

    /// Says what becomes of that conflict; nothing leaves it alone and has it told.
    pub fn answer(&mut self, resolution: Option<Resolution>) {
        let Some(conflict) = self.open.pop_front() else { return };
        let of_key = self.answers.entry(conflict.key.clone()).or_default();
        of_key.retain(|(answered, _)| answered.path != conflict.path);
        of_key.push((conflict, resolution));
    }

    /// The scope that is merged into.
    pub fn scope(&self) -> &Scope {
        &self.ours
    }
}

impl Missing {
    /// The pair, now that the other side has it.
    fn made(self) -> Result<Pair> {
        let Self { parent, theirs, path } = self;
        let ours = parent.scope(theirs.seen_from().name())?;
        Ok(Pair { parted: parted(&ours, &theirs)?, ours, theirs, path })
    }
}

/// When a scope of the fork left the one that it is to be merged into.
fn parted(ours: &Transaction, theirs: &Transaction) -> Result<Option<Fork>> {
    let (ours, theirs) = (ours.seen_from(), theirs.seen_from());
    Ok(theirs.store()?.forked(theirs.id())?.filter(|from| from.scope == ours.id()))
}

impl Pair {
    /// Goes on to the scopes inside.
    fn descend(&self, pairs: &mut Vec<Pair>, missing: &mut Vec<Missing>) -> Result<()> {
        let (store, around) = (self.ours.seen_from().store()?, self.ours.seen_from());
        for name in self.theirs.seen_from().scopes()? {
            let theirs = self.theirs.scope(&name)?;
            let path = self.path.iter().cloned().chain([name.clone()]).collect();
            if let Some(id) = store.find_scope(around.id(), ScopeName::parse(&name)?)? {
                let ours = self.ours.on(&around.child(id, &name));
                pairs.push(Self { parted: parted(&ours, &theirs)?, ours, theirs, path });
            } else {
                missing.push(Missing { parent: self.ours.clone(), theirs, path });
            }
        }
        Ok(())
    }

    /// The keys that may have to be merged.
    fn keys(&self) -> Result<BTreeSet<Box<str>>> {
        let theirs = self.theirs.seen_from();
        match self.parted {
            Some(fork) => theirs.store()?.changed_in(theirs.id(), fork),
            // It may have started from another scope of the fork.
            None => self.theirs.keys("*")?.map(|key| key.map(Into::into)).collect(),
        }
    }

    /// Merges one key; says whether it was changed.
    fn merge<'a>(&self, key: &str, known: &dyn Fn(&MergeConflict) -> Known<'a>, attempt: &mut Attempt) -> Result<bool> {
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
        let mut resolution = Resolution::Theirs;
        if ours_changed && !sabotaged("merge-over") {
            let (path, base) = (self.path.clone(), base.flatten().map(|base| base.document));
            let conflict = MergeConflict { path, key: key.into(), base, ours, theirs: theirs.clone() };
            match known(&conflict) {
                Known::Resolved(known) => resolution = known.clone(),
                Known::Left => {
                    attempt.merged.conflicts.push((conflict.path, conflict.key));
                    return Ok(false);
                }
                Known::Nothing => {
                    attempt.open.push(conflict);
                    return Ok(false);
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    #[test]
    fn conflicts_that_change_whenever_they_are_answered_end_the_merge() {
        let state = State::in_memory().unwrap();
        let agent = state.scope("agent").unwrap();
        agent.set("k", 0).unwrap();
        let trial = state.fork("agent", "trial").unwrap();
        trial.set("k", -1).unwrap();
        agent.set("k", 100).unwrap();
        let mut merging = agent.merging(&trial);
        merging.retry = Retry::new(3);
        let mut asked = 0;
        let failed = loop {
            match merging.attempt() {
                Err(error) => break error,
                Ok(merged) => assert_eq!(merged, None),
            }
            while merging.open().is_some() {
                asked += 1;
                agent.set("k", asked).unwrap();
                merging.answer(Some(Resolution::Theirs));
            }
        };
        assert_eq!((failed.kind(), asked), (ErrorKind::Conflict, 3));
        assert_eq!(merging.answers["k"].len(), 1);
    }
}

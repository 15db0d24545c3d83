//! Looking at everything once: every change against its check and the one before it, every key against its newest change.

use super::{Store, codec, past, snapshot, tail};
use crate::engine::{LogRow, Newest, Range, Reads, SETTINGS, ScopeId, Trimmed};
use crate::error::shorten;
use crate::{Error, ErrorKind, Result, Verification};
use std::collections::{HashMap, HashSet};

/// More problems than this say no more than these.
const MOST_PROBLEMS: usize = 100;

impl Store {
    /// Reads everything that the store holds, in one snapshot, and tells what does not fit together.
    pub(crate) fn verify(&self) -> Result<Verification> {
        let mut audit = Audit::default();
        let structure = self.engine.check_structure(MOST_PROBLEMS);
        let structure = audit.note(structure)?.unwrap_or_default();
        audit.found.problems.extend(structure);
        let read = self.engine.snapshot(&mut |reads| {
            audit.scopes(reads)?;
            audit.log(reads)?;
            audit.cursors(reads)?;
            audit.keys(reads)
        });
        // Damage may end the reading; what comes after it is not known then.
        audit.note(read)?;
        audit.found.problems.truncate(MOST_PROBLEMS);
        Ok(audit.found)
    }
}

#[derive(Default)]
struct Audit {
    found: Verification,
    scopes: HashSet<ScopeId>,
    /// For every row of the log, by its distance from the first: no later one of its key has been seen.
    newest: Vec<bool>,
    first: i64,
    trimmed: HashMap<ScopeId, Trimmed>,
    /// Rows from which others differ.
    bases: HashSet<i64>,
    /// Rows that are the newest of a key in a fork.
    kept_for_forks: HashSet<i64>,
}

impl Audit {
    fn problem(&mut self, problem: impl Into<String>) {
        if self.found.problems.len() < MOST_PROBLEMS {
            self.found.problems.push(problem.into());
        }
    }

    /// Damage is something found; any other error is one of the call.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.problem(error.message());
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn scopes(&mut self, reads: &dyn Reads) -> Result<()> {
        let mut parents = Vec::new();
        reads.all_scopes(&mut |id, parent, _| {
            self.scopes.insert(id);
            parents.push((id, parent));
        })?;
        for (id, parent) in parents {
            if parent != 0 && !self.scopes.contains(&parent) {
                self.problem(format!("scope {id} lies in scope {parent}, which does not exist"));
            }
        }
        for scope in &self.scopes {
            self.trimmed.insert(*scope, reads.trimmed(*scope)?);
        }
        self.found.scopes = self.scopes.iter().filter(|scope| **scope != SETTINGS).count() as u64;
        Ok(())
    }

    fn log(&mut self, reads: &dyn Reads) -> Result<()> {
        let mut version = 0;
        reads.log(&mut |row| {
            self.found.changes += 1;
            if self.note(past::value(reads, row))?.is_none() {
                return Ok(());
            }
            if row.version < version {
                self.problem(format!("log row {} has version {} after version {version}", row.seq, row.version));
            }
            version = row.version;
            if !self.scopes.contains(&row.scope) {
                self.problem(format!("log row {} is of scope {}, which does not exist", row.seq, row.scope));
            }
            if let Some(base) = codec::base_of(row) {
                // It may have been left alone for that when what came after it was trimmed.
                self.bases.insert(base);
            }
            self.follow(reads, row)
        })?;
        let trimmed: i64 = self.trimmed.values().map(|trimmed| trimmed.changes).sum();
        let known = self.found.changes.cast_signed() + trimmed;
        let newest = reads.head()?.seq;
        if known != newest {
            self.problem(format!("{newest} changes were made, but {known} are in the log or were trimmed"));
        }
        self.found.version = version.cast_unsigned();
        Ok(())
    }

    /// A named watch that stands elsewhere than it was told to would miss changes.
    fn cursors(&mut self, reads: &dyn Reads) -> Result<()> {
        let scopes: Vec<ScopeId> = self.scopes.iter().copied().collect();
        for scope in scopes {
            for cursor in reads.cursors(scope)? {
                if let Some(why) = tail::misplaced(reads, cursor.at)? {
                    self.problem(format!("the watch {} of scope {scope} {why}", shorten(&cursor.name)));
                }
            }
        }
        Ok(())
    }

    /// The row takes the place of the one before it of its key.
    fn follow(&mut self, reads: &dyn Reads, row: &LogRow<'_>) -> Result<()> {
        if row.prev != 0 {
            let (mut is_own, mut is_forked) = (false, false);
            let is_there = reads.base(row.prev, &mut |before| {
                is_own = before.scope == row.scope && before.key == row.key;
                is_forked =
                    !is_own && before.key == row.key && snapshot::belongs(reads, row.scope, before.scope, before.seq)?;
                Ok(())
            })?;
            if is_forked {
                self.kept_for_forks.insert(row.prev);
            }
            let is_trimmed = !is_there && snapshot::is_trimmed(reads, row.scope, row.prev)?;
            if !(is_trimmed || is_forked || is_own && self.take(row.prev)) {
                self.problem(format!("log row {} does not follow the change before it of its key", row.seq));
            }
        }
        if self.newest.is_empty() {
            self.first = row.seq;
        }
        match usize::try_from(row.seq - self.first) {
            Ok(place) if place >= self.newest.len() => {
                self.newest.resize(place, false);
                self.newest.push(true);
            }
            _ => self.problem(format!("log row {} is out of its order", row.seq)),
        }
        Ok(())
    }

    /// Whether no later change than this was seen of its key; from now on there is one.
    fn take(&mut self, seq: i64) -> bool {
        let place = usize::try_from(seq - self.first).ok();
        place.and_then(|place| self.newest.get_mut(place)).is_some_and(std::mem::take)
    }

    fn keys(&mut self, reads: &dyn Reads) -> Result<()> {
        for scope in self.scopes.iter().filter(|scope| **scope != SETTINGS) {
            // A fork may show keys of which it has no entry.
            let all = Range { scope: *scope, from: String::new(), to: None, reverse: false };
            self.found.keys += reads.count(&all, i64::MIN)?;
        }
        reads.all_entries(&mut |scope, key, newest, row| {
            let is_forked = row.map_or(Ok(false), |row| {
                Ok::<_, Error>(row.scope != scope && snapshot::belongs(reads, scope, row.scope, row.seq)?)
            })?;
            let fits = row.is_some_and(|row| {
                (row.scope == scope || is_forked)
                    && row.key == key
                    && row.operation.has_value() == newest.live
                    && row.expires_ms == newest.expires_ms
            });
            if is_forked {
                self.kept_for_forks.insert(newest.seq);
            }
            if !fits || !(is_forked || self.take(newest.seq)) {
                self.problem(format!("key {} of scope {scope} does not fit log row {}", shorten(key), newest.seq));
                return Ok(());
            }
            self.birth(reads, key, newest, row)
        })?;
        let forgotten: Vec<i64> = (self.first..)
            .zip(&self.newest)
            .filter(|(_, newest)| **newest)
            .map(|(seq, _)| seq)
            .filter(|seq| !self.bases.contains(seq) && !self.kept_for_forks.contains(seq))
            .take(MOST_PROBLEMS)
            .collect();
        for seq in forgotten {
            self.problem(format!("log row {seq} is the newest change of its key, but no key points at it"));
        }
        Ok(())
    }

    fn birth(&mut self, reads: &dyn Reads, key: &str, newest: Newest, row: Option<&LogRow<'_>>) -> Result<()> {
        let Some(row) = row.filter(|_| newest.live) else { return Ok(()) };
        // The time is not known any more where what came first was trimmed.
        let Some(born_ms) = snapshot::birth(reads, newest.seq)? else { return Ok(()) };
        if newest.created_ms.unwrap_or(row.time_ms) != born_ms {
            self.problem(format!("key {} does not have the time at which it was made", shorten(key)));
        }
        Ok(())
    }
}

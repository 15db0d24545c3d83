//! Trimming: changes of the past beyond what the retention policies keep leave the log, in batches that hold nobody up.
//!
//! What goes is planned in a snapshot and checked once more in the write, where only what has changed meanwhile is left for later.

use super::doomed::{Doomed, Look, Reason, Suspects, forks, millis, watched};
use super::request::{Applied, Change, Request};
use super::settings::Settings;
use super::sweep::BREATH;
use super::{Store, codec};
use crate::engine::{Reads, ScopeId, Taken, Trimmed, Writes};
use crate::{Cleanup, Result, clock, harness, limits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// The name of the note that tells how far the log was looked at.
const NOTE: &str = "trim";
/// What was replaced less than this ago is left alone: a watch, a listing or a transaction may be about to come to it.
const GRACE: Duration = Duration::from_secs(1);

/// What is to leave the log.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    keys: Vec<Doomed>,
    /// How far the log was looked at; nothing where that need not be kept yet.
    reached: Option<Reached>,
}

/// What was passed over in this process, since named watches have still to tell of it.
#[derive(Debug)]
pub(super) struct Held {
    /// Looked at again when that was long ago: a log of which much is held would otherwise be looked at all over whenever something changes.
    since: Instant,
    reached: Reached,
    oldest: i64,
    keys: HashSet<(ScopeId, Box<str>)>,
}

/// How far the log was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Reached {
    /// Up to here for keys with too many versions.
    seq: i64,
    /// Up to here for changes of a certain age, in milliseconds.
    aged: BTreeMap<i64, i64>,
    /// Up to here a pass has looked, whatever it has left because of named watches.
    seen: i64,
    /// The policies by which; others have to look again.
    policies: u64,
}

impl Store {
    /// Takes what the policies do not keep out of the log; says how many changes that were. `exact` leaves nothing for later.
    pub(crate) fn trim(&self, exact: bool) -> Result<u64> {
        let now_ms = clock::now_ms();
        let grace_ms = if exact { now_ms } else { now_ms - millis(GRACE) };
        let (scopes, idle) = (HashMap::new(), HashSet::new());
        let (shared, waiting) = (HashSet::new(), Vec::new());
        let walked = 0;
        let mut look = Look { store: self, now_ms, grace_ms, exact, held: None, idle, walked, scopes, shared, waiting };
        let (mut reached, mut ages, mut scopes) = (Reached::default(), BTreeSet::new(), Vec::new());
        self.with_settings(|reads, settings| {
            let policies = settings.policies().chain([&self.config.retention]);
            ages = policies.clone().filter_map(|policy| policy.max_age).collect();
            let mut policies: Vec<String> = policies.filter_map(|policy| serde_json::to_string(policy).ok()).collect();
            // In the same order in every process.
            policies.sort_unstable();
            let policies = xxh3_64(policies.concat().as_bytes());
            let noted = Reached::noted(reads)?;
            reached =
                if noted.policies == policies && !exact { noted } else { Reached { policies, ..Reached::default() } };
            reads.all_scopes(&mut |scope, _, _| scopes.push(scope))
        })?;
        let mut since = Instant::now();
        let held = if exact { None } else { self.sweeper.held().take() };
        if let Some(held) = held.filter(|held| {
            held.reached.policies == reached.policies && held.since.elapsed() < self.config.retention.cleanup_interval
        }) {
            (since, reached, look.held, look.idle) = (held.since, held.reached, Some(held.oldest), held.keys);
        }
        let before = reached.clone();
        let mut count = self.trim_with(&mut look, Reason::Many, |look, reads, _| look.many(reads, &mut reached.seq))?;
        for age in ages {
            let aged = reached.aged.entry(millis(age)).or_default();
            count += self.trim_with(&mut look, Reason::Old(age), |look, reads, _| look.old(reads, age, aged))?;
        }
        for scope in scopes {
            count +=
                self.trim_with(&mut look, Reason::Heavy, |look, reads, settings| look.heavy(reads, settings, scope))?;
        }
        reached.seen = reached.seq;
        if let Some(held) = look.held {
            // What a named watch has held up is looked at again.
            if !exact {
                let keys = std::mem::take(&mut look.idle);
                *self.sweeper.held() = Some(Held { since, reached: reached.clone(), oldest: held, keys });
            }
            reached.seq = reached.seq.min(held - 1);
            reached.aged.values_mut().for_each(|seq| *seq = (*seq).min(held - 1));
        }
        let seen = reached.seen;
        let moved = reached.seen - before.seen >= limits::TRIM_NOTE || reached.policies != before.policies;
        if count > 0 || moved {
            self.submit_trim(Trim { keys: Vec::new(), reached: Some(reached) })?;
            harness::point("trim.noted");
        }
        // A pass that could not look at anything, such as after the clock was set back, is not to be followed by another at once.
        if !exact && seen > before.seen {
            self.engine.read(&mut |reads| {
                self.sweeper.left(reads.head()?.seq - seen);
                Ok(())
            })?;
        }
        Ok(count)
    }

    /// Looks at what `find` finds, until it finds no more, and takes out what has to go.
    fn trim_with<'s>(
        &'s self,
        look: &mut Look<'s>,
        reason: Reason,
        mut find: impl FnMut(&mut Look<'s>, &dyn Reads, &Settings) -> Result<Suspects>,
    ) -> Result<u64> {
        let mut count = 0;
        loop {
            self.sweeper.check()?;
            let (mut suspects, mut more) = (VecDeque::new(), false);
            look.scopes.clear();
            self.with_settings(|reads, settings| {
                let found = find(look, reads, settings)?;
                (suspects, more) = (found.0.into(), found.1);
                Ok(())
            })?;
            // No snapshot is held for long: meanwhile the log of the database could not start over, and in a store of one connection
            // everybody waits.
            while !suspects.is_empty() {
                let mut doomed = Vec::new();
                look.walked = 0;
                look.shared.clear();
                // A policy that was set meanwhile counts.
                look.scopes.clear();
                self.with_settings(|reads, settings| {
                    while look.walked < limits::TRIM_WALK
                        && let Some(suspect) = suspects.pop_front()
                    {
                        doomed.extend(look.plan(reads, settings, reason, &suspect)?);
                        look.walked += 1;
                    }
                    Ok(())
                })?;
                if !doomed.is_empty() {
                    harness::point("trim.planned");
                }
                count += self.take_out(doomed)?;
                suspects.extend(look.waiting.drain(..));
            }
            if !more {
                return Ok(count);
            }
        }
    }

    /// In commits that hold nobody up.
    fn take_out(&self, doomed: Vec<Doomed>) -> Result<u64> {
        let mut count = 0;
        let mut parts = doomed.into_iter().flat_map(|doomed| doomed.split(limits::TRIM_ROWS)).peekable();
        while let Some(first) = parts.next() {
            let (mut rows, mut keys) = (first.rows.len() as u64, vec![first]);
            while let Some(part) = parts.next_if(|part| rows + part.rows.len() as u64 <= limits::TRIM_ROWS as u64) {
                rows += part.rows.len() as u64;
                keys.push(part);
            }
            let last = keys.last().map(|part| (part.scope, part.key.clone()));
            let taken = self.submit_trim(Trim { keys, reached: None })?;
            harness::point("trim.part");
            count += taken;
            if taken < rows {
                // What is newer must not go before what it leads to: nothing would lead there any more.
                while parts.next_if(|part| last.as_ref().is_some_and(|(scope, key)| part.is_of(*scope, key))).is_some()
                {
                }
            }
            std::thread::sleep(BREATH);
            self.sweeper.check()?;
        }
        Ok(count)
    }

    /// What a scope takes now.
    pub(crate) fn taken(&self, scope: ScopeId) -> Result<Taken> {
        let (mut taken, clock_ms) = (Taken::default(), self.clock_ms());
        self.engine.read(&mut |reads| {
            taken = reads.taken(scope, clock_ms)?;
            Ok(())
        })?;
        Ok(taken)
    }

    /// Sweeps and trims, and leaves nothing for later.
    pub(crate) fn cleanup(self: &Arc<Self>) -> Result<Cleanup> {
        Ok(Cleanup { expired: self.sweep()?, trimmed: self.trim(true)? })
    }

    fn submit_trim(&self, trim: Trim) -> Result<u64> {
        let request = Request { changes: vec![Change::Trim(Box::new(trim))], ..Request::default() };
        match self.submit(request)?.only()? {
            Applied::Trimmed(count) => Ok(count),
            other => Err(crate::scope::unexpected(&other)),
        }
    }
}

/// How many changes nobody has looked at yet for what is to be trimmed.
pub(super) fn unseen(reads: &dyn Reads) -> Result<i64> {
    Ok(reads.head()?.seq - Reached::noted(reads)?.seen)
}

impl Reached {
    /// As the last pass of any process has left it.
    fn noted(reads: &dyn Reads) -> Result<Self> {
        Ok(reads.note(NOTE)?.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default())
    }
}

/// What has come to a key since it was looked at.
#[derive(Debug, Default)]
struct Since {
    rows: i64,
    /// What they are stored as differences from.
    bases: Vec<i64>,
}

impl Since {
    /// Nothing where that is more than is worth looking at: the key is looked at again.
    fn read(reads: &dyn Reads, doomed: &Doomed) -> Result<Option<Self>> {
        let mut since = Self::default();
        let Some(newest) = reads.newest(doomed.scope, &doomed.key)? else {
            return Ok(Some(since).filter(|_| doomed.newest == 0));
        };
        let mut seq = newest.seq;
        while seq != doomed.newest {
            let mut prev = 0;
            reads.row(seq, &mut |row| {
                prev = row.prev;
                since.bases.extend(codec::base_of(row));
                Ok(())
            })?;
            since.rows += 1;
            if prev == 0 || since.rows == limits::TRIM_SINCE {
                return Ok(None);
            }
            seq = prev;
        }
        Ok(Some(since))
    }
}

impl Trim {
    /// Takes out what still may go; says how many rows that were.
    pub(crate) fn apply(self, writes: &mut dyn Writes) -> Result<u64> {
        if writes.is_short_of_space() {
            return Ok(0);
        }
        let head = writes.head().seq;
        let mut tallies: BTreeMap<ScopeId, (Trimmed, Vec<i64>)> = BTreeMap::new();
        let mut scopes: HashMap<ScopeId, (i64, usize)> = HashMap::new();
        for doomed in self.keys {
            let (watched, forks) = if let Some(known) = scopes.get(&doomed.scope) {
                *known
            } else {
                let found = (watched(writes.reads(), doomed.scope)?, forks(writes.reads(), doomed.scope)?.len());
                scopes.insert(doomed.scope, found);
                found
            };
            // The numbers of commits go on from the newest row.
            let is_end = doomed.rows.contains(&head);
            let is_needed = doomed.successor > watched && !doomed.ignores_watches;
            if is_end || is_needed || forks != doomed.forks {
                continue;
            }
            let Some(since) = Since::read(writes.reads(), &doomed)? else { continue };
            // A key that is back is known.
            if doomed.is_gone && since.rows > 0 {
                continue;
            }
            let (tally, rows) = tallies.entry(doomed.scope).or_default();
            for seq in doomed.rows.into_iter().filter(|seq| !since.bases.contains(seq)) {
                rows.push(seq);
                tally.seq = tally.seq.max(seq);
                if doomed.is_gone {
                    tally.gone = tally.gone.max(seq);
                }
            }
            if let Some(kept) = doomed.kept {
                writes.set_versions(doomed.scope, &doomed.key, kept + since.rows)?;
            }
        }
        let mut count = 0;
        for (scope, (mut tally, mut rows)) in tallies {
            rows.sort_unstable();
            for run in rows.chunk_by(|one, next| one + 1 == *next) {
                tally.changes += writes.trim(run[0]..=run[run.len() - 1])?;
                harness::point("trim.run");
            }
            count += tally.changes;
            writes.add_trimmed(scope, tally)?;
        }
        if let Some(text) = self.reached.and_then(|reached| serde_json::to_string(&reached).ok()) {
            writes.put_note(NOTE, &text)?;
        }
        Ok(count.cast_unsigned())
    }
}

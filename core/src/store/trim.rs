//! Trimming: changes of the past beyond what the retention policies keep leave the log, in batches that hold nobody up.
//!
//! What goes is planned in a snapshot and checked once more in the write, where only what has changed meanwhile is left for later.

use super::request::{Applied, Change, Request};
use super::settings::Settings;
use super::snapshot::AsOf;
use super::sweep::BREATH;
use super::{Store, codec, past};
use crate::engine::{Fork, LogRow, Newest, Outline, Reads, ScopeId, Taken, Trimmed, Writes};
use crate::harness::sabotaged;
use crate::{Cleanup, ErrorKind, Result, RetentionPolicy, clock, limits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the note that tells how far the log was looked at.
const NOTE: &str = "trim";
/// What was replaced less than this ago is left alone: a watch may be about to tell of it.
const GRACE: Duration = Duration::from_secs(1);

/// What is to leave the log.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    keys: Vec<Doomed>,
    /// How far the log was looked at; nothing where that need not be kept yet.
    reached: Option<Reached>,
}

/// Rows of one key.
#[derive(Debug)]
struct Doomed {
    scope: ScopeId,
    key: Box<str>,
    /// What its newest row was; 0 where the scope does not know it any more.
    newest: i64,
    /// How many forks its scope had.
    forks: usize,
    /// The oldest row that stays; when none does, the newest.
    successor: i64,
    rows: Vec<i64>,
    /// Rows that are left; nothing while more of them are still to go.
    kept: Option<i64>,
    /// Whether the key will not be known any more.
    is_gone: bool,
    /// Whether named watches do not matter.
    ignores_watches: bool,
}

impl Doomed {
    /// In parts of so many rows, the oldest first: whatever happens in between, what is left is what the newest row leads to.
    fn split(mut self, most: usize) -> Vec<Self> {
        self.rows.sort_unstable();
        let count = self.rows.len().div_ceil(most);
        let parts = self.rows.chunks(most).enumerate();
        parts
            .map(|(n, rows)| Self {
                key: self.key.clone(),
                rows: rows.to_vec(),
                kept: self.kept.filter(|_| n + 1 == count),
                ..self
            })
            .collect()
    }
}

/// How far the log was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Reached {
    /// Up to here for keys with too many versions.
    seq: i64,
    /// Up to here for changes of a certain age, in milliseconds.
    aged: BTreeMap<i64, i64>,
    /// The policies by which; others have to look again.
    policies: u64,
}

/// A look for what goes, over one snapshot after the other.
struct Look<'s> {
    store: &'s Store,
    now_ms: i64,
    /// What was replaced after this stays.
    grace_ms: i64,
    /// Only as many versions stay as are to be kept; otherwise a few more, so that a key is not looked at for each.
    exact: bool,
    /// Oldest row of which a named watch has not told yet, among those that were passed over.
    held: Option<i64>,
    scopes: HashMap<ScopeId, Arc<Bounds>>,
    /// Keys of which rows go that forks and their origin share, in the present plan …
    shared: HashSet<Box<str>>,
    /// … and those that wait until that is done, with their cuts: each would keep what only the other still needs.
    waiting: Vec<(ScopeId, Box<str>, i64)>,
}

/// What bounds trimming in a scope.
struct Bounds {
    policy: RetentionPolicy,
    /// Its named watches have told of everything up to here.
    watched: i64,
    /// All that were forked from it, or from those, with the rows at which they were.
    forks: Vec<(ScopeId, i64)>,
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Up to where the named watches of a scope have told.
fn watched(reads: &dyn Reads, scope: ScopeId) -> Result<i64> {
    if sabotaged("trim-watched") {
        return Ok(i64::MAX);
    }
    Ok(reads.cursors(scope)?.iter().map(|cursor| cursor.at.seq).min().unwrap_or(i64::MAX))
}

/// All that were forked from a scope, or from those; each as of the row at which they left it.
fn forks(reads: &dyn Reads, scope: ScopeId) -> Result<Vec<(ScopeId, i64)>> {
    let mut found: Vec<(ScopeId, i64)> = Vec::new();
    let mut open = vec![(scope, i64::MAX)];
    while let Some((scope, until)) = open.pop() {
        for fork in reads.forks(scope)? {
            let entry = (fork.scope, fork.at.min(until));
            found.push(entry);
            open.push(entry);
        }
    }
    Ok(found)
}

/// Whether a key that is gone from a scope was there, as far as is known, when that was forked: merging tells of it.
fn is_taken_away(reads: &dyn Reads, scope: ScopeId, key: &str) -> Result<bool> {
    let Some(Fork { scope, at }) = reads.forked(scope)?.filter(|_| !sabotaged("trim-deletions")) else {
        return Ok(false);
    };
    match past::value_at(reads, scope, key, AsOf { seq: at, clock_ms: i64::MIN }) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        found => Ok(found?.is_some()),
    }
}

impl Look<'_> {
    /// The next keys with too many versions; says whether there may be more.
    fn tail(&mut self, reads: &dyn Reads, settings: &Settings, reached: &mut i64) -> Result<(Vec<Doomed>, bool)> {
        let (keys, more) = self.next(reads, reached, self.grace_ms, |row| row.prev != 0)?;
        let mut doomed = Vec::new();
        for (scope, key) in keys {
            let bounds = self.bounds(reads, settings, scope)?;
            let most = i64::try_from(bounds.policy.max_versions).unwrap_or(i64::MAX);
            let spare = if self.exact { 0 } else { most / 4 };
            let newest = reads.newest(scope, &key)?;
            if newest.is_some_and(|newest| newest.versions > most.saturating_add(spare)) {
                doomed.extend(self.key(reads, settings, &bounds, (scope, &key), 0)?);
            }
        }
        Ok((doomed, more))
    }

    /// The next keys of which something has come of age; says whether there may be more.
    fn aged(
        &mut self,
        reads: &dyn Reads,
        settings: &Settings,
        age: Duration,
        reached: &mut i64,
    ) -> Result<(Vec<Doomed>, bool)> {
        let until_ms = self.now_ms.saturating_sub(millis(age)).min(self.grace_ms);
        let (keys, more) = self.next(reads, reached, until_ms, |row| row.prev != 0 || !row.operation.has_value())?;
        let mut doomed = Vec::new();
        for (scope, key) in keys {
            let bounds = self.bounds(reads, settings, scope)?;
            if bounds.policy.max_age == Some(age) {
                doomed.extend(self.key(reads, settings, &bounds, (scope, &key), 0)?);
            }
        }
        Ok((doomed, more))
    }

    /// What has to go of a scope for its past to take no more than it may.
    fn heavy(&mut self, reads: &dyn Reads, settings: &Settings, scope: ScopeId) -> Result<Vec<Doomed>> {
        let bounds = self.bounds(reads, settings, scope)?;
        let Some(max_bytes) = bounds.policy.max_bytes else { return Ok(Vec::new()) };
        let mut past = Vec::new();
        let mut bytes = 0;
        reads.past(scope, &mut |seq, key, size| {
            bytes += size;
            past.push((seq, Box::<str>::from(key), size));
        })?;
        let mut cuts: BTreeMap<Box<str>, i64> = BTreeMap::new();
        for (seq, key, size) in past {
            if bytes <= max_bytes {
                break;
            }
            bytes -= size;
            cuts.insert(key, seq);
        }
        let mut doomed = Vec::new();
        for (key, cut) in cuts {
            doomed.extend(self.key(reads, settings, &bounds, (scope, &key), cut)?);
        }
        Ok(doomed)
    }

    /// Keys that have waited.
    fn waited(
        &mut self,
        reads: &dyn Reads,
        settings: &Settings,
        keys: &[(ScopeId, Box<str>, i64)],
    ) -> Result<(Vec<Doomed>, bool)> {
        let mut doomed = Vec::new();
        for (scope, key, cut) in keys {
            let bounds = self.bounds(reads, settings, *scope)?;
            doomed.extend(self.key(reads, settings, &bounds, (*scope, key), *cut)?);
        }
        Ok((doomed, false))
    }

    /// The keys of the next rows up to a time that count.
    #[allow(clippy::type_complexity)] // keys, and whether there may be more
    fn next(
        &self,
        reads: &dyn Reads,
        reached: &mut i64,
        until_ms: i64,
        counts: impl Fn(&Outline<'_>) -> bool,
    ) -> Result<(BTreeSet<(ScopeId, Box<str>)>, bool)> {
        let (mut keys, mut looked_at, mut more) = (BTreeSet::new(), 0, false);
        reads.outlines(*reached, &mut |row| {
            more = looked_at == limits::TRIM_LOOK;
            if row.time_ms > until_ms || more {
                more &= row.time_ms <= until_ms;
                return ControlFlow::Break(());
            }
            looked_at += 1;
            *reached = row.seq;
            if counts(&row) {
                keys.insert((row.scope, row.key.into()));
            }
            ControlFlow::Continue(())
        })?;
        Ok((keys, more))
    }

    fn bounds(&mut self, reads: &dyn Reads, settings: &Settings, scope: ScopeId) -> Result<Arc<Bounds>> {
        if let Some(bounds) = self.scopes.get(&scope) {
            return Ok(Arc::clone(bounds));
        }
        let set = settings.retention(reads, scope)?;
        let policy = set.unwrap_or_else(|| self.store.config.retention.clone());
        let watched = if policy.trim_watched { i64::MAX } else { watched(reads, scope)? };
        let bounds = Arc::new(Bounds { policy, watched, forks: forks(reads, scope)? });
        self.scopes.insert(scope, Arc::clone(&bounds));
        Ok(bounds)
    }

    /// What of a key goes, if anything does. Rows up to `cut` go in any case that is allowed.
    fn key(
        &mut self,
        reads: &dyn Reads,
        settings: &Settings,
        bounds: &Bounds,
        (scope, key): (ScopeId, &str),
        cut: i64,
    ) -> Result<Vec<Doomed>> {
        if self.shared.contains(key) {
            self.waiting.push((scope, key.into(), cut));
            return Ok(Vec::new());
        }
        let Some(newest) = reads.newest(scope, key)? else { return Ok(Vec::new()) };
        let most = i64::try_from(bounds.policy.max_versions).unwrap_or(i64::MAX);
        let oldest_ms = bounds.policy.max_age.map_or(i64::MIN, |age| self.now_ms.saturating_sub(millis(age)));
        let mut walk = Walk { scope, most, oldest_ms, cut, ..Walk::default() };
        walk.run(reads, newest, |row, successor| {
            // Those who come to know of a change are told what it replaced.
            if successor.0 > bounds.watched {
                self.held = Some(self.held.map_or(row.seq, |held| held.min(row.seq)));
                return false;
            }
            successor.1 <= self.grace_ms
        })?;
        let mut pinned = if sabotaged("trim-bases") { HashSet::new() } else { walk.bases };
        bounds.pin(reads, key, &walk.doomed, &mut pinned)?;
        // A row that others were stored as differences from stays as long as one of them does, and then goes with them.
        walk.doomed.extend(walk.left_bases.difference(&walk.seen).copied());
        walk.doomed.retain(|seq| !pinned.contains(seq));
        if !bounds.forks.is_empty() || walk.inherited.is_some() {
            self.shared.insert(key.into());
        }
        let left = walk.inherited.map(|row| self.left_behind(reads, settings, key, row)).transpose()?.flatten();
        if walk.doomed.is_empty() {
            return Ok(left.into_iter().collect());
        }
        let is_gone = walk.is_gone && pinned.is_empty() && !is_taken_away(reads, scope, key)?;
        let kept = if is_gone { 0 } else { walk.kept.max(1) };
        if kept > 0 {
            walk.doomed.retain(|seq| *seq != newest.seq);
        }
        let own = Doomed {
            scope,
            key: key.into(),
            newest: newest.seq,
            forks: bounds.forks.len(),
            successor: walk.successor.map_or(newest.seq, |(seq, _)| seq),
            rows: walk.doomed,
            kept: Some(kept),
            is_gone: kept == 0,
            ignores_watches: bounds.policy.trim_watched,
        };
        Ok([Some(own), left].into_iter().flatten().collect())
    }

    /// The row of its origin that a fork has started from, once the fork has no use for it, if that was all it was kept for.
    fn left_behind(
        &mut self,
        reads: &dyn Reads,
        settings: &Settings,
        key: &str,
        row: Inherited,
    ) -> Result<Option<Doomed>> {
        let bounds = self.bounds(reads, settings, row.scope)?;
        // The origin itself may know the key no more.
        let newest = reads.newest(row.scope, key)?;
        let mut walk = Walk { scope: row.scope, most: i64::MAX, oldest_ms: i64::MIN, ..Walk::default() };
        newest.map_or(Ok(()), |newest| walk.run(reads, newest, |_, _| false))?;
        let mut needed = walk.bases;
        needed.extend(&walk.seen);
        bounds.pin(reads, key, &[row.seq], &mut needed)?;
        let rows: Vec<i64> =
            [Some(row.seq), row.base].into_iter().flatten().filter(|seq| !needed.contains(seq)).collect();
        Ok((!rows.is_empty()).then(|| Doomed {
            scope: row.scope,
            key: key.into(),
            newest: newest.map_or(0, |newest| newest.seq),
            forks: bounds.forks.len(),
            successor: row.seq,
            rows,
            kept: None,
            is_gone: false,
            ignores_watches: true,
        }))
    }
}

impl Bounds {
    /// Adds the rows that keys of forks have started from and still are. From where they have moved on, only what the row is stored
    /// as a difference from is needed, and only while that row stays.
    fn pin(&self, reads: &dyn Reads, key: &str, doomed: &[i64], pinned: &mut HashSet<i64>) -> Result<()> {
        let forks = if sabotaged("trim-forked") { &[][..] } else { &self.forks };
        for (fork, at) in forks {
            let Some(newest) = reads.newest(*fork, key)? else { continue };
            let mut seq = newest.seq;
            while seq > *at {
                let mut prev = 0;
                reads.row(seq, &mut |row| {
                    prev = row.prev;
                    Ok(())
                })?;
                seq = prev;
            }
            if doomed.contains(&seq) && seq != newest.seq {
                continue;
            }
            if seq == newest.seq {
                pinned.insert(seq);
            }
            reads.row(seq, &mut |row| {
                pinned.extend(codec::base_of(row));
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// A row of the scope from which another was forked.
#[derive(Debug, Clone, Copy)]
struct Inherited {
    scope: ScopeId,
    seq: i64,
    base: Option<i64>,
}

/// A way along the rows of a key, from the newest.
#[derive(Default)]
struct Walk {
    scope: ScopeId,
    most: i64,
    oldest_ms: i64,
    cut: i64,
    /// The oldest row that stays, and its time.
    successor: Option<(i64, i64)>,
    kept: i64,
    doomed: Vec<i64>,
    seen: HashSet<i64>,
    /// What the rows that stay are stored as differences from.
    bases: HashSet<i64>,
    /// And those that go.
    left_bases: HashSet<i64>,
    /// What a fork has started from, if that goes.
    inherited: Option<Inherited>,
    /// Nothing stays.
    is_gone: bool,
}

impl Walk {
    /// `may_go` says whether a row, with the one after it and its time, may go at all.
    fn run(
        &mut self,
        reads: &dyn Reads,
        newest: Newest,
        mut may_go: impl FnMut(&LogRow<'_>, (i64, i64)) -> bool,
    ) -> Result<()> {
        let mut seq = newest.seq;
        while seq != 0 {
            let mut prev = 0;
            reads.row(seq, &mut |row| {
                codec::verify(row)?;
                // What was there before the fork is the other scope's.
                if row.scope == self.scope {
                    prev = row.prev;
                    self.step(row, &mut may_go);
                } else if self.kept >= self.most || !self.doomed.is_empty() {
                    self.inherited = Some(Inherited { scope: row.scope, seq: row.seq, base: codec::base_of(row) });
                }
                Ok(())
            })?;
            seq = prev;
        }
        Ok(())
    }

    fn step(&mut self, row: &LogRow<'_>, may_go: &mut dyn FnMut(&LogRow<'_>, (i64, i64)) -> bool) {
        self.seen.insert(row.seq);
        let goes = match self.successor {
            _ if !self.doomed.is_empty() => true,
            Some(successor) => {
                let is_past = self.kept >= self.most || successor.1 < self.oldest_ms || row.seq <= self.cut;
                is_past && may_go(row, successor)
            }
            // Of a key that is gone nothing stays when that was long ago.
            None => {
                let is_past = !row.operation.has_value() && (row.time_ms < self.oldest_ms || row.seq <= self.cut);
                self.is_gone = is_past && may_go(row, (row.seq, row.time_ms));
                self.is_gone
            }
        };
        let base = codec::base_of(row);
        if goes {
            self.doomed.push(row.seq);
            self.left_bases.extend(base);
        } else {
            self.kept += 1;
            self.successor = Some((row.seq, row.time_ms));
            self.bases.extend(base);
        }
    }
}

impl Store {
    /// Takes what the policies do not keep out of the log; says how many changes that were. `exact` leaves nothing for later.
    pub(crate) fn trim(&self, exact: bool) -> Result<u64> {
        let now_ms = clock::now_ms();
        let grace_ms = if exact { now_ms } else { now_ms - millis(GRACE) };
        let mut look = Look {
            store: self,
            now_ms,
            grace_ms,
            exact,
            held: None,
            scopes: HashMap::new(),
            shared: HashSet::new(),
            waiting: Vec::new(),
        };
        let (mut reached, mut ages, mut scopes) = (Reached::default(), BTreeSet::new(), Vec::new());
        self.with_settings(|reads, settings| {
            let policies = settings.policies().chain([&self.config.retention]);
            ages = policies.clone().filter_map(|policy| policy.max_age).collect();
            let policies: Vec<String> = policies.filter_map(|policy| serde_json::to_string(policy).ok()).collect();
            let policies = xxh3_64(policies.join("\n").as_bytes());
            let noted: Reached =
                reads.note(NOTE)?.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default();
            reached =
                if noted.policies == policies && !exact { noted } else { Reached { policies, ..Reached::default() } };
            reads.all_scopes(&mut |scope, _, _| scopes.push(scope))
        })?;
        let before = reached.clone();
        let mut count = self.trim_with(|reads, settings| {
            look.shared.clear();
            look.tail(reads, settings, &mut reached.seq)
        })?;
        for age in ages {
            let aged = reached.aged.entry(millis(age)).or_default();
            count += self.trim_with(|reads, settings| {
                look.shared.clear();
                look.aged(reads, settings, age, aged)
            })?;
        }
        for scope in scopes {
            count += self.trim_with(|reads, settings| {
                look.shared.clear();
                Ok((look.heavy(reads, settings, scope)?, false))
            })?;
        }
        while !look.waiting.is_empty() {
            let keys = std::mem::take(&mut look.waiting);
            count += self.trim_with(|reads, settings| {
                look.shared.clear();
                look.waited(reads, settings, &keys)
            })?;
        }
        if let Some(held) = look.held {
            // What a named watch has held up is looked at again.
            reached.seq = reached.seq.min(held - 1);
            reached.aged.values_mut().for_each(|seq| *seq = (*seq).min(held - 1));
        }
        let moved = reached.seq - before.seq >= limits::TAIL_ROWS as i64 || reached.policies != before.policies;
        if count > 0 || moved {
            self.submit_trim(Trim { keys: Vec::new(), reached: Some(reached) })?;
        }
        Ok(count)
    }

    /// Takes out what `plan` finds, until it finds no more.
    fn trim_with(&self, mut plan: impl FnMut(&dyn Reads, &Settings) -> Result<(Vec<Doomed>, bool)>) -> Result<u64> {
        let mut count = 0;
        loop {
            let (mut doomed, mut more) = (Vec::new(), false);
            self.with_settings(|reads, settings| {
                (doomed, more) = plan(reads, settings)?;
                Ok(())
            })?;
            let mut keys = Vec::new();
            let mut rows = 0;
            for part in doomed.into_iter().flat_map(|doomed| doomed.split(limits::TRIM_ROWS)) {
                if rows + part.rows.len() > limits::TRIM_ROWS {
                    count += self.submit_trim(Trim { keys: std::mem::take(&mut keys), reached: None })?;
                    rows = 0;
                    std::thread::sleep(BREATH);
                }
                rows += part.rows.len();
                keys.push(part);
            }
            if !keys.is_empty() {
                count += self.submit_trim(Trim { keys, reached: None })?;
            }
            if !more {
                return Ok(count);
            }
        }
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

impl Trim {
    /// Takes out what still may go; says how many rows that were.
    pub(crate) fn apply(self, writes: &mut dyn Writes) -> Result<u64> {
        if writes.is_short_of_space() {
            return Ok(0);
        }
        let head = writes.head().seq;
        let mut trimmed: HashMap<ScopeId, Trimmed> = HashMap::new();
        let mut scopes: HashMap<ScopeId, (i64, usize)> = HashMap::new();
        for doomed in self.keys {
            let (watched, forks) = match scopes.get(&doomed.scope) {
                Some(known) => *known,
                None => {
                    let found = (watched(writes.reads(), doomed.scope)?, forks(writes.reads(), doomed.scope)?.len());
                    scopes.insert(doomed.scope, found);
                    found
                }
            };
            let newest = writes.reads().newest(doomed.scope, &doomed.key)?;
            let is_as_it_was = newest.map_or(0, |newest| newest.seq) == doomed.newest && forks == doomed.forks;
            // The numbers of commits go on from the newest row.
            let is_end = doomed.rows.contains(&head);
            if !is_as_it_was || is_end || (doomed.successor > watched && !doomed.ignores_watches) {
                continue;
            }
            let tally = trimmed.entry(doomed.scope).or_default();
            for seq in doomed.rows {
                if writes.trim(seq)? {
                    tally.changes += 1;
                    tally.seq = tally.seq.max(seq);
                    if doomed.is_gone {
                        tally.gone = tally.gone.max(seq);
                    }
                }
            }
            if let Some(kept) = doomed.kept {
                writes.set_versions(doomed.scope, &doomed.key, kept)?;
            }
        }
        let mut count = 0;
        for (scope, trimmed) in trimmed {
            count += trimmed.changes;
            writes.add_trimmed(scope, trimmed)?;
        }
        if let Some(text) = self.reached.and_then(|reached| serde_json::to_string(&reached).ok()) {
            writes.put_note(NOTE, &text)?;
        }
        Ok(count.cast_unsigned())
    }
}

//! What is to leave the log: of each key the rows that its scope's retention policy does not keep, less those that something else
//! still needs.

use super::settings::Settings;
use super::{Store, codec};
use crate::engine::{LogRow, Newest, Outline, Reads, ScopeId};
use crate::harness::sabotaged;
use crate::{Result, RetentionPolicy, limits};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Rows of one key.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) scope: ScopeId,
    pub(super) key: Box<str>,
    /// What its newest row was; 0 where the scope does not know it any more.
    pub(super) newest: i64,
    /// How many forks its scope had.
    pub(super) forks: usize,
    /// The oldest row that stays; when none does, the newest.
    pub(super) successor: i64,
    pub(super) rows: Vec<i64>,
    /// The newest row that differs from one of those, for each from which others differ.
    pub(super) differ: HashMap<i64, i64>,
    /// Rows that are left; nothing while more of them are still to go.
    pub(super) kept: Option<i64>,
    /// Whether the key will not be known any more.
    pub(super) is_gone: bool,
    /// Whether named watches do not matter.
    pub(super) ignores_watches: bool,
}

impl Doomed {
    /// Whether these are rows of that key.
    pub(super) fn is_of(&self, scope: ScopeId, key: &str) -> bool {
        self.scope == scope && *self.key == *key
    }

    /// In parts of about so many rows, the oldest first: whatever happens in between, what is left is what the newest row leads to.
    /// A row goes with the last of those that differ from it. The same plan is always carried out in the same order.
    pub(super) fn split(mut self, most: usize) -> Vec<Self> {
        let last = |seq: &i64| self.differ.get(seq).copied().unwrap_or(*seq);
        self.rows.sort_unstable_by_key(|seq| (last(seq), *seq));
        let mut parts: Vec<Vec<i64>> = Vec::new();
        for rows in self.rows.chunk_by(|one, other| last(one) == last(other)) {
            match parts.last_mut().filter(|part| part.len() < most) {
                Some(part) => part.extend(rows),
                None => parts.push(rows.to_vec()),
            }
        }
        let count = parts.len();
        let part = |(n, rows)| Self {
            key: self.key.clone(),
            rows,
            differ: HashMap::new(),
            kept: self.kept.filter(|_| n + 1 == count),
            ..self
        };
        parts.into_iter().enumerate().map(part).collect()
    }
}

/// A look for what goes, over one snapshot after the other.
pub(super) struct Look<'s> {
    pub(super) store: &'s Store,
    pub(super) now_ms: i64,
    /// What was replaced after this stays.
    pub(super) grace_ms: i64,
    /// Only as many versions stay as are to be kept; otherwise a few more, so that a key is not looked at for each.
    pub(super) exact: bool,
    /// Oldest row of which a named watch has not told yet, among those that were passed over.
    pub(super) held: Option<i64>,
    /// Keys of which nothing more may go before those watches have moved.
    pub(super) idle: HashSet<(ScopeId, Box<str>)>,
    /// Rows of keys that were looked at in this snapshot.
    pub(super) walked: usize,
    pub(super) scopes: HashMap<ScopeId, Arc<Bounds>>,
    /// Keys of which rows go that forks and their origin share, in the present plan …
    pub(super) shared: HashSet<Box<str>>,
    /// … and those that wait until that is done: each would keep what only the other still needs.
    pub(super) waiting: Vec<Suspect>,
}

/// What bounds trimming in a scope.
pub(super) struct Bounds {
    policy: RetentionPolicy,
    /// Its named watches have told of everything up to here.
    watched: i64,
    /// All that were forked from it, or from those, with the rows at which they were, and up to where their named watches have told.
    forks: Vec<(ScopeId, i64, i64)>,
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Up to where the named watches of a scope have told.
pub(super) fn watched(reads: &dyn Reads, scope: ScopeId) -> Result<i64> {
    if sabotaged("trim-watched") {
        return Ok(i64::MAX);
    }
    Ok(reads.cursors(scope)?.iter().map(|cursor| cursor.at.seq).min().unwrap_or(i64::MAX))
}

/// All that were forked from a scope, or from those; each as of the row at which they left it.
pub(super) fn forks(reads: &dyn Reads, scope: ScopeId) -> Result<Vec<(ScopeId, i64)>> {
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

/// Why a key is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    /// It may have too many versions.
    Many,
    /// Something in it has come of this age.
    Old(Duration),
    /// The past of its scope takes too much.
    Heavy,
}

/// A key to look at. Rows up to `cut` go in any case that is allowed.
#[derive(Debug)]
pub(super) struct Suspect {
    scope: ScopeId,
    key: Box<str>,
    cut: i64,
}

/// Keys to look at, and whether there may be more.
pub(super) type Suspects = (Vec<Suspect>, bool);

impl Look<'_> {
    /// The next keys that may have too many versions.
    pub(super) fn many(&self, reads: &dyn Reads, reached: &mut i64) -> Result<Suspects> {
        Self::next(reads, reached, self.grace_ms, |row| row.prev != 0)
    }

    /// The next keys of which something has come of age.
    pub(super) fn old(&self, reads: &dyn Reads, age: Duration, reached: &mut i64) -> Result<Suspects> {
        let until_ms = self.now_ms.saturating_sub(millis(age)).min(self.grace_ms);
        Self::next(reads, reached, until_ms, |row| row.prev != 0 || !row.operation.has_value())
    }

    /// The keys of which something has to go for the past of a scope to take no more than it may.
    pub(super) fn heavy(&mut self, reads: &dyn Reads, settings: &Settings, scope: ScopeId) -> Result<Suspects> {
        let bounds = self.bounds(reads, settings, scope)?;
        let Some(max_bytes) = bounds.policy.max_bytes else { return Ok((Vec::new(), false)) };
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
        Ok((cuts.into_iter().map(|(key, cut)| Suspect { scope, key, cut }).collect(), false))
    }

    /// What of a key goes, if that is why it was looked at.
    pub(super) fn plan(
        &mut self,
        reads: &dyn Reads,
        settings: &Settings,
        reason: Reason,
        suspect: &Suspect,
    ) -> Result<Vec<Doomed>> {
        let Suspect { scope, key, cut } = suspect;
        let bounds = self.bounds(reads, settings, *scope)?;
        let is_due = match reason {
            Reason::Many => {
                let most = i64::try_from(bounds.policy.max_versions).unwrap_or(i64::MAX);
                let spare = if self.exact { 0 } else { most / 4 };
                let newest = reads.newest(*scope, key)?;
                newest.is_some_and(|newest| newest.versions > most.saturating_add(spare))
            }
            Reason::Old(age) => bounds.policy.max_age == Some(age),
            Reason::Heavy => true,
        };
        if is_due { self.key(reads, settings, &bounds, (*scope, key), *cut) } else { Ok(Vec::new()) }
    }

    /// The keys of the next rows up to a time that count.
    fn next(
        reads: &dyn Reads,
        reached: &mut i64,
        until_ms: i64,
        counts: impl Fn(&Outline<'_>) -> bool,
    ) -> Result<Suspects> {
        let (mut known, mut looked_at, mut more) = (HashSet::new(), 0, false);
        // Those that were changed one after the other have their rows side by side, so a batch of them changes fewer pages.
        let mut suspects = Vec::new();
        reads.outlines(*reached, &mut |row| {
            more = looked_at == limits::TRIM_LOOK;
            if row.time_ms > until_ms || more {
                more &= row.time_ms <= until_ms;
                return ControlFlow::Break(());
            }
            looked_at += 1;
            *reached = row.seq;
            if counts(&row) && known.insert((row.scope, Box::<str>::from(row.key))) {
                suspects.push(Suspect { scope: row.scope, key: row.key.into(), cut: 0 });
            }
            ControlFlow::Continue(())
        })?;
        Ok((suspects, more))
    }

    fn bounds(&mut self, reads: &dyn Reads, settings: &Settings, scope: ScopeId) -> Result<Arc<Bounds>> {
        if let Some(bounds) = self.scopes.get(&scope) {
            return Ok(Arc::clone(bounds));
        }
        let set = settings.retention(reads, scope)?;
        let policy = set.unwrap_or_else(|| self.store.config.retention.clone());
        let watched = if policy.trim_watched { i64::MAX } else { watched(reads, scope)? };
        let with_watches = |(fork, at)| Ok((fork, at, self::watched(reads, fork)?));
        let forks = forks(reads, scope)?.into_iter().map(with_watches).collect::<Result<_>>()?;
        let bounds = Arc::new(Bounds { policy, watched, forks });
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
            self.waiting.push(Suspect { scope, key: key.into(), cut });
            return Ok(Vec::new());
        }
        let Some(newest) = reads.newest(scope, key)? else { return Ok(Vec::new()) };
        let most = i64::try_from(bounds.policy.max_versions).unwrap_or(i64::MAX);
        let oldest_ms = bounds.policy.max_age.map_or(i64::MIN, |age| self.now_ms.saturating_sub(millis(age)));
        let place = (scope, Box::from(key));
        if self.idle.contains(&place) {
            return Ok(Vec::new());
        }
        let mut walk = Walk { scope, most, oldest_ms, cut, ..Walk::default() };
        let mut is_held = false;
        walk.run(reads, newest, |row, successor| {
            // Those who come to know of a change are told what it replaced.
            if successor.0 > bounds.watched {
                is_held = true;
                self.held = Some(self.held.map_or(row.seq, |held| held.min(row.seq)));
                return false;
            }
            successor.1 <= self.grace_ms
        })?;
        self.walked += walk.seen.len();
        let mut pinned = if sabotaged("trim-bases") { HashSet::new() } else { walk.bases };
        bounds.pin(reads, key, &walk.doomed, &mut pinned)?;
        // A row that others were stored as differences from stays as long as one of them does, and then goes with them.
        walk.doomed.extend(walk.left_bases.keys().filter(|base| !walk.seen.contains(base)));
        walk.doomed.retain(|seq| !pinned.contains(seq));
        if !bounds.forks.is_empty() || walk.inherited.is_some() {
            self.shared.insert(key.into());
        }
        let left = walk.inherited.map(|row| self.left_behind(reads, settings, key, row)).transpose()?.flatten();
        if walk.doomed.is_empty() {
            if is_held {
                self.idle.insert(place);
            }
            return Ok(left.into_iter().collect());
        }
        let is_gone = walk.is_gone && pinned.is_empty();
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
            differ: walk.left_bases,
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
            differ: HashMap::new(),
            kept: None,
            is_gone: false,
            ignores_watches: true,
        }))
    }
}

impl Bounds {
    /// Adds the rows that keys of forks have started from and still are, or that named watches of forks have still to tell of. From
    /// where a fork has moved on, only what the row is stored as a difference from is needed, and only while that row stays.
    fn pin(&self, reads: &dyn Reads, key: &str, doomed: &[i64], pinned: &mut HashSet<i64>) -> Result<()> {
        let forks = if sabotaged("trim-forked") { &[][..] } else { &self.forks };
        for (fork, at, watched) in forks {
            let mut seq = reads.newest(*fork, key)?.map_or(0, |newest| newest.seq);
            // The first change in the fork tells what it has replaced.
            let mut is_needed = true;
            while seq > *at {
                is_needed &= seq > *watched;
                let mut prev = 0;
                reads.row(seq, &mut |row| {
                    prev = row.prev;
                    Ok(())
                })?;
                seq = prev;
            }
            if seq == 0 {
                // The fork does not know the key, or not any more what it has started from.
                continue;
            }
            if is_needed {
                pinned.insert(seq);
            } else if doomed.contains(&seq) {
                continue;
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
    /// And those that go, each with the newest that differs from it.
    left_bases: HashMap<i64, i64>,
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
            if let Some(base) = base {
                self.left_bases.entry(base).or_insert(row.seq);
            }
        } else {
            self.kept += 1;
            self.successor = Some((row.seq, row.time_ms));
            self.bases.extend(base);
        }
    }
}

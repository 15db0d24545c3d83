//! The log read backwards: what a key was, what has changed between two moments, and what somebody has done.

use super::snapshot::{self, AsOf};
use super::{MAX_STORED_BYTES, Store, codec};
use crate::engine::{Head, LogRow, Operation, Reads, ScopeId};
use crate::history::{Moment, Revision};
use crate::key::{Key, Pattern};
use crate::{Document, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

/// A key of some scope.
pub(crate) type Place = (ScopeId, Box<str>);

/// What somebody did to keys, as far as the log was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Deeds {
    /// Scopes that count.
    pub(crate) scopes: HashSet<ScopeId>,
    /// By whom; at least one of the two is given.
    pub(crate) actor: Option<String>,
    pub(crate) run: Option<String>,
    /// The log was looked at up to here.
    pub(crate) seen: i64,
    touched: BTreeMap<Place, Touched>,
}

#[derive(Debug, Clone, Copy)]
struct Touched {
    /// The row before the first of theirs, after whatever somebody else has done in between; 0 for none.
    before: i64,
    /// Somebody else has changed the key after the last of theirs.
    is_changed: bool,
}

impl Deeds {
    pub(crate) fn new(scopes: HashSet<ScopeId>, actor: Option<String>, run: Option<String>, since: Head) -> Self {
        Self { scopes, actor, run, seen: since.seq, touched: BTreeMap::new() }
    }

    /// Looks at what has come to the log since.
    pub(crate) fn look(&mut self, reads: &dyn Reads) -> Result<()> {
        let Self { scopes, actor, run, seen, touched } = self;
        let wanted = |row: &LogRow<'_>| scopes.contains(&row.scope);
        let theirs = |row: &LogRow<'_>| {
            let [by, during, _] = row.origin;
            let fits =
                |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
            fits(actor, by) && fits(run, during)
        };
        reads.changes(*seen, &|_, _| true, &mut |at, row| {
            *seen = at.seq;
            let Some(row) = row else { return Ok(ControlFlow::Continue(())) };
            // Damage may have made it look like one of another scope.
            codec::verify(row)?;
            // That a time has run out is no change of somebody else: when it is told depends on the sweeper alone.
            if !wanted(row) || row.operation == Operation::Expire {
                return Ok(ControlFlow::Continue(()));
            }
            let is_theirs = theirs(row);
            let new = Touched { before: row.prev, is_changed: false };
            match touched.get_mut(&(row.scope, Box::from(row.key))) {
                // They went on from what somebody else has made: that is what stays.
                Some(touched) if is_theirs && touched.is_changed => *touched = new,
                Some(touched) => touched.is_changed |= !is_theirs,
                None if is_theirs => {
                    touched.insert((row.scope, row.key.into()), new);
                }
                None => {}
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The keys that nobody else has changed since, with the row before; and the others.
    pub(crate) fn verdict(self) -> (Vec<(Place, i64)>, Vec<Place>) {
        let (mut undone, mut refused) = (Vec::new(), Vec::new());
        for (place, Touched { before, is_changed }) in self.touched {
            if is_changed { refused.push(place) } else { undone.push((place, before)) }
        }
        (undone, refused)
    }
}

/// A value of the past.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) document: Document,
    /// When it expires, or has expired since.
    pub(crate) expires_ms: Option<i64>,
}

/// A scope, and what it was forked from, each with the row up to which its log is that of the scope.
fn lineage(reads: &dyn Reads, scope: ScopeId) -> Result<Vec<(ScopeId, i64)>> {
    let (mut found, mut last) = (vec![(scope, i64::MAX)], scope);
    let mut until = i64::MAX;
    while let Some(fork) = reads.forked(last)? {
        (last, until) = (fork.scope, until.min(fork.at));
        found.push((last, until));
    }
    Ok(found)
}

/// The keys that may not be at one moment what they were at an earlier one.
pub(crate) fn changed(
    reads: &dyn Reads,
    scope: ScopeId,
    pattern: &Pattern,
    after: AsOf,
    to: AsOf,
) -> Result<BTreeSet<Box<str>>> {
    // Of what has gone since, no row tells any more.
    snapshot::check_reach(reads, scope, after)?;
    let mut keys = BTreeSet::new();
    let lineage = lineage(reads, scope)?;
    let is_of_scope = |found, seq| lineage.iter().any(|(scope, until)| *scope == found && seq <= *until);
    let wanted = |found, key: &str, seq| is_of_scope(found, seq) && pattern.matches(key);
    reads.changes(after.seq, &|_, _| true, &mut |at, row| {
        if at.seq > to.seq {
            return Ok(ControlFlow::Break(()));
        }
        let Some(row) = row else { return Ok(ControlFlow::Continue(())) };
        // Damage may have made it look like one of another scope.
        codec::verify(row)?;
        if wanted(row.scope, row.key, row.seq) && !keys.contains(row.key) {
            keys.insert(row.key.into());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    // Of those no row tells yet.
    reads.overdue(to.clock_ms, &mut |found, key, newest| {
        if found == scope && pattern.matches(key) && newest.is_alive(after.clock_ms) {
            keys.insert(key.into());
        }
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// The value of a key at a moment; none where it was not there.
pub(crate) fn value_at(reads: &dyn Reads, scope: ScopeId, key: &str, at: AsOf) -> Result<Option<Value>> {
    let Some(newest) = reads.newest(scope, key)? else {
        return snapshot::check_reach(reads, scope, at).map(|()| None);
    };
    let entry = snapshot::entry_at(reads, newest, scope, key, at, MAX_STORED_BYTES)?;
    Ok(entry.map(|entry| Value { expires_ms: entry.expires_ms(), document: entry.into_document() }))
}

/// The value that a row of the log gave its key; none where it took it away, and before the first row.
pub(crate) fn value_of(reads: &dyn Reads, seq: i64, scope: ScopeId, key: &str) -> Result<Option<Value>> {
    if seq == 0 {
        return Ok(None);
    }
    let mut value = None;
    let is_there = reads.row(seq, &mut |row| {
        value = self::value(reads, row)?.map(|document| Value { document, expires_ms: row.expires_ms });
        Ok(())
    })?;
    if is_there { Ok(value) } else { Err(snapshot::missing(reads, scope, key, seq)) }
}

/// The value of a row, after its check; none where the key is gone.
pub(crate) fn value(reads: &dyn Reads, row: &LogRow<'_>) -> Result<Option<Document>> {
    if row.operation.has_value() {
        let (document, _) = codec::unpack(row, &|seq, look| reads.base(seq, look), MAX_STORED_BYTES)?;
        return Ok(Some(document));
    }
    codec::verify(row).map(|()| None)
}

impl Store {
    /// The newest row of a moment, and the time by which keys had expired then.
    pub(crate) fn moment(&self, when: Moment) -> Result<(Head, i64)> {
        let (head, time_ms) = match when {
            Moment::Version(version) => (self.row_of(version)?, None),
            Moment::TimeMs(time_ms) => (self.row_of_time(time_ms)?, Some(time_ms)),
        };
        let mut then_ms = time_ms.unwrap_or(0);
        if time_ms.is_none() {
            self.engine.read(&mut |reads| {
                let Some(at) = reads.at_or_before(head.seq)? else { return Ok(()) };
                reads.row(at.seq, &mut |row| {
                    then_ms = row.time_ms;
                    Ok(())
                })?;
                Ok(())
            })?;
        }
        Ok((head, then_ms.min(self.clock_ms())))
    }

    /// What has happened to a key, the newest first, at most so much, as far as it is kept.
    pub(crate) fn revisions(&self, scope: ScopeId, key: Key<'_>, most: usize) -> Result<Vec<Revision>> {
        let key = key.as_str();
        let mut revisions = Vec::new();
        self.engine.snapshot(&mut |reads| {
            let mut seq = reads.newest(scope, key)?.map_or(0, |newest| newest.seq);
            while seq != 0 && revisions.len() < most {
                let mut prev = 0;
                let is_there = reads.row(seq, &mut |row| {
                    snapshot::check_key(reads, row, scope, key)?;
                    revisions.push(Revision {
                        version: row.version.cast_unsigned(),
                        operation: row.operation,
                        value: value(reads, row)?,
                        time_ms: row.time_ms,
                        origin: codec::origin(row),
                    });
                    prev = row.prev;
                    Ok(())
                })?;
                if !is_there {
                    let why = snapshot::missing(reads, scope, key, seq);
                    return if why.kind() == ErrorKind::NotFound { Ok(()) } else { Err(why) };
                }
                seq = prev;
            }
            Ok(())
        })?;
        Ok(revisions)
    }

    /// The keys that have changed between two moments.
    pub(crate) fn changed(&self, scope: ScopeId, pattern: &Pattern, after: AsOf, to: AsOf) -> Result<Vec<Box<str>>> {
        let mut keys = BTreeSet::new();
        self.engine.snapshot(&mut |reads| {
            keys = changed(reads, scope, pattern, after, to)?;
            Ok(())
        })?;
        Ok(keys.into_iter().collect())
    }

    /// A look at what somebody has done, outside of a write.
    pub(crate) fn look(&self, deeds: &mut Deeds) -> Result<()> {
        self.engine.snapshot(&mut |reads| deeds.look(reads))
    }

    /// A scope with all scopes inside it, each with the names that lead there from it.
    pub(crate) fn below(&self, scope: ScopeId) -> Result<HashMap<ScopeId, Vec<String>>> {
        let mut inside: HashMap<ScopeId, Vec<(ScopeId, String)>> = HashMap::new();
        self.engine.snapshot(&mut |reads| {
            inside.clear();
            reads.all_scopes(&mut |id, parent, name| inside.entry(parent).or_default().push((id, name.to_owned())))
        })?;
        let (mut found, mut open) = (HashMap::new(), vec![(scope, Vec::new())]);
        while let Some((scope, path)) = open.pop() {
            for (id, name) in inside.remove(&scope).into_iter().flatten() {
                open.push((id, path.iter().cloned().chain([name]).collect()));
            }
            found.insert(scope, path);
        }
        Ok(found)
    }

    /// The newest row that was there at a time: the times of the log never go back.
    fn row_of_time(&self, time_ms: i64) -> Result<Head> {
        let mut found = Head::default();
        self.engine.snapshot(&mut |reads| {
            let (mut low, mut high) = (0, reads.head()?.seq + 1);
            while low + 1 < high {
                let middle = low + (high - low) / 2;
                let Some(at) = reads.at_or_before(middle)?.filter(|at| at.seq > low) else {
                    low = middle;
                    continue;
                };
                let mut is_within = false;
                reads.row(at.seq, &mut |row| {
                    is_within = row.time_ms <= time_ms;
                    Ok(())
                })?;
                if is_within { (found, low) = (at, at.seq) } else { high = at.seq }
            }
            Ok(())
        })?;
        Ok(found)
    }
}

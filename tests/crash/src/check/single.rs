//! Linearizability of calls on single keys, and of reading several at once: every call takes effect at one moment between
//! its start and its end, and what it answers is the state at that moment.

use super::clock::Span;
use super::journal::Call;
use super::log::{Lives, Log};
use super::timeline::{Makers, Timeline};
use crate::{Failure, hold};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Who made it.
    #[serde(default)]
    pub worker: u32,
    /// When.
    pub span: Span,
    /// What was asked and answered.
    pub what: What,
}

/// A value with its version, where the language tells it.
pub type Found = (i64, Option<u64>);

/// What a call was and what it answered. Keys are numbers of [`Names`]. No value is written twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A read of one key.
    Read(usize, Option<Found>),
    /// Whether a key is there.
    Exists(usize, bool),
    /// A read of several keys at one moment.
    Many(Vec<(usize, Option<Found>)>),
    /// A write; `expected` is the version that the key had to have, 0 for none.
    Write {
        /// Of which key.
        key: usize,
        /// The new value.
        value: i64,
        /// The version that it was told to have.
        version: Option<u64>,
        /// The version that the key must have had.
        expected: Option<u64>,
    },
    /// A compare-and-set that was refused since the key had another version.
    Refused(usize, u64),
    /// An addition of 1, and its sum; nothing if that was never told.
    Add(usize, Option<i64>),
    /// A deletion, and whether the key was there; nothing if that was never told. Of one key only: see
    /// `Check::deletions`.
    Delete(usize, Option<bool>),
    /// A deletion of a version, and whether it was done; nothing if that was never told.
    DeleteIf(usize, u64, Option<bool>),
}

impl Call for Op {
    fn span(&self) -> Span {
        self.span
    }

    fn worker(&mut self) -> &mut u32 {
        &mut self.worker
    }
}

/// The names of the keys.
pub type Names = [&'static str];

struct Check<'h> {
    ops: &'h [Op],
    names: &'h Names,
    lives: Vec<Lives>,
    timeline: Timeline,
    makers: Makers,
    /// The place in its key's life of each value.
    places: HashMap<(usize, i64), usize>,
    newest: usize,
}

/// Checks what workers were told of a store with this log.
pub fn check(log: &Log, names: &Names, ops: &[Op]) -> Result<(), Failure> {
    let newest = log.newest();
    let mut by_key = log.by_key();
    let lives: Vec<Lives> = names.iter().map(|name| by_key.remove(*name).unwrap_or_default()).collect();
    hold!(by_key.is_empty(), "keys that nobody wrote: {:?}", by_key.keys());
    let (places, timeline, makers) = (places(names, &lives)?, Timeline::new(newest), Makers::new(newest));
    let mut check = Check { ops, names, lives, timeline, makers, places, newest };
    for call in 0..ops.len() {
        check.certain(call)?;
    }
    check.settle()?;
    check.cut_short()?;
    check.settle()?;
    check.deletions(log)?;
    check.settle()?;
    check.lives_make_sense(log)?;
    // What is certain of the vague answers counts for all others: hence twice.
    for _ in 0..2 {
        for call in 0..ops.len() {
            check.vague(call)?;
        }
        check.settle()?;
    }
    Ok(())
}

/// The place in its key's life of each value.
fn places(names: &Names, lives: &[Lives]) -> Result<HashMap<(usize, i64), usize>, Failure> {
    let mut places = HashMap::new();
    for (key, lives) in lives.iter().enumerate() {
        for (place, value) in lives.values.iter().enumerate() {
            let Some(value) = value else { continue };
            if let Some(before) = places.insert((key, *value), place) {
                let versions = [lives.versions[before], lives.versions[place]];
                return Err(Failure::new(format!(
                    "lost update: {} became {value} in versions {versions:?}",
                    names[key]
                )));
            }
        }
    }
    Ok(places)
}

impl Check<'_> {
    fn tell(&self, call: usize) -> String {
        describe(self.ops, self.names, call)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let (ops, names) = (self.ops, self.names);
        self.timeline.settle_or(|call| describe(ops, names, call))
    }

    fn claim(&mut self, version: usize, call: usize) -> Result<(), Failure> {
        let (ops, names) = (self.ops, self.names);
        self.makers.claim(version, call, |call| describe(ops, names, call))?;
        self.timeline.made(version, self.ops[call].span, call);
        Ok(())
    }

    /// The states in which a key is what it became at a place of its life; before the first it is not there.
    fn states(&self, key: usize, place: Option<usize>) -> Range<usize> {
        let versions = &self.lives[key].versions;
        let next = place.map_or(0, |place| place + 1);
        place.map_or(0, |place| versions[place])..versions.get(next).copied().unwrap_or(self.newest + 1)
    }

    /// The states in which a key has the value that was read.
    fn read(&self, call: usize, key: usize, (value, version): Found) -> Result<Range<usize>, Failure> {
        let Some(place) = self.places.get(&(key, value)) else {
            return Err(Failure::new(format!("{} answers what was never committed", self.tell(call))));
        };
        let states = self.states(key, Some(*place));
        hold!(
            version.is_none_or(|version| version == states.start as u64),
            "{} answers version {version:?}, the log says {}",
            self.tell(call),
            states.start
        );
        Ok(states)
    }

    /// What a call says of versions that are known.
    fn certain(&mut self, call: usize) -> Result<(), Failure> {
        let Op { span, what, .. } = &self.ops[call];
        match what {
            What::Read(key, Some(found)) => {
                let states = self.read(call, *key, *found)?;
                self.timeline.seen(&states, *span, call);
            }
            What::Many(found) => {
                let mut seen = 0..self.newest + 1;
                for (key, found) in found {
                    let Some(found) = found else { continue };
                    let states = self.read(call, *key, *found)?;
                    seen = seen.start.max(states.start)..seen.end.min(states.end);
                }
                hold!(!seen.is_empty(), "{} mixes several moments", self.tell(call));
                self.timeline.seen(&seen, *span, call);
            }
            What::Write { key, value, version, expected } => {
                let Some(place) = self.places.get(&(*key, *value)) else {
                    hold!(!span.is_closed(), "{} was acknowledged and is not in the log", self.tell(call));
                    return Ok(());
                };
                let made = self.lives[*key].versions[*place];
                hold!(
                    version.is_none_or(|version| version == made as u64),
                    "{} was told another version than the log says, {made}",
                    self.tell(call)
                );
                let before = place.checked_sub(1);
                let there = before.filter(|place| self.lives[*key].values[*place].is_some());
                let found = there.map_or(0, |place| self.lives[*key].versions[place]);
                hold!(
                    expected.is_none_or(|expected| expected == found as u64),
                    "lost update: {} replaced version {found}",
                    self.tell(call)
                );
                self.claim(made, call)?;
            }
            What::Add(key, Some(sum)) => {
                let Some(place) = self.places.get(&(*key, *sum)) else {
                    return Err(Failure::new(format!("{} was acknowledged and is not in the log", self.tell(call))));
                };
                self.claim(self.lives[*key].versions[*place], call)?;
            }
            What::DeleteIf(key, expected, Some(true)) => {
                let next = usize::try_from(*expected).ok().and_then(|expected| self.deletion_after(*key, expected));
                let Some(version) = next else {
                    return Err(Failure::new(format!("{} was acknowledged and is not in the log", self.tell(call))));
                };
                self.claim(version, call)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The version that has deleted what another version had written.
    fn deletion_after(&self, key: usize, version: usize) -> Option<usize> {
        let lives = &self.lives[key];
        let place = lives.versions.binary_search(&version).ok()? + 1;
        lives.values.get(place)?.is_none().then(|| lives.versions[place])
    }

    /// Gives commits that nobody has claimed to calls that were cut short.
    fn cut_short(&mut self) -> Result<(), Failure> {
        let mut additions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut deletions: BTreeMap<usize, usize> = BTreeMap::new();
        for (call, op) in self.ops.iter().enumerate() {
            match op.what {
                What::Add(key, None) => additions.entry(key).or_default().push(call),
                What::DeleteIf(key, expected, None) => {
                    let Some(version) = self.deletion_after(key, usize::try_from(expected)?) else { continue };
                    if self.makers.of(version).is_none() {
                        let first = deletions.entry(version).or_insert(call);
                        *first = if op.span.start < self.ops[*first].span.start { call } else { *first };
                    }
                }
                _ => {}
            }
        }
        for (version, call) in deletions {
            self.claim(version, call)?;
        }
        // Whoever has made which: by the time of the first such commit one of them had begun, by that of the second two.
        for (key, mut calls) in additions {
            calls.sort_by_key(|call| self.ops[*call].span.start);
            let lives = &self.lives[key];
            let unclaimed: Vec<usize> =
                lives.versions.iter().copied().filter(|version| self.makers.of(*version).is_none()).collect();
            for (version, call) in unclaimed.into_iter().zip(calls) {
                self.claim(version, call)?;
            }
        }
        Ok(())
    }

    /// Deletions are told no version. Each commit of one that is left must be that of another call whose time it fits; as
    /// commits and their bounds have the same order, it may be taken as that of the call which has to end first. But only
    /// what holds whichever it was counts as certain. With deletions of several keys these choices would depend on each
    /// other.
    fn deletions(&mut self, log: &Log) -> Result<(), Failure> {
        let deletes = |call: &usize| matches!(self.ops[*call].what, What::Delete(_, Some(true) | None));
        let mut waiting: Vec<usize> = (0..self.ops.len()).filter(deletes).collect();
        waiting.sort_by_key(|call| std::cmp::Reverse(self.ops[*call].span.start));
        // Calls that may have made the next commit; those to which none was given yet.
        let (mut begun, mut free): (Vec<usize>, BTreeSet<(u64, u64, usize)>) = Default::default();
        for version in self.makers.unclaimed() {
            // A commit of keys that only take up room is empty.
            let Some((name, value)) = log.changes(version).first() else { continue };
            let latest = self.timeline.latest(version);
            while let Some(call) = waiting.pop_if(|call| self.ops[*call].span.start <= latest) {
                let span = self.ops[call].span;
                free.insert((span.end, span.start, call));
                begun.push(call);
            }
            begun.retain(|call| self.ops[*call].span.end >= self.timeline.earliest(version));
            let is_of = |call: usize| matches!(self.ops[call].what, What::Delete(key, _) if self.names[key] == name);
            let Some((_, _, call)) = free.pop_first().filter(|(_, _, call)| value.is_none() && is_of(*call)) else {
                return Err(Failure::new(format!("nobody asked for version {version}, {name} becoming {value:?}")));
            };
            hold!(self.timeline.can_make(version, self.ops[call].span), "{} fits no commit", self.tell(call));
            if let Some(call) = begun.iter().min_by_key(|call| self.ops[**call].span.start) {
                self.timeline.not_before(version, self.ops[*call].span.start, *call);
            }
            if let Some(call) = begun.iter().max_by_key(|call| self.ops[**call].span.end) {
                self.timeline.not_after(version, self.ops[*call].span.end, *call);
            }
        }
        for call in waiting.into_iter().chain(free.into_iter().map(|(_, _, call)| call)) {
            hold!(!self.ops[call].span.is_closed(), "{} was acknowledged and is not in the log", self.tell(call));
        }
        Ok(())
    }

    fn lives_make_sense(&self, log: &Log) -> Result<(), Failure> {
        let most = log.commits.iter().map(Vec::len).max().unwrap_or_default();
        hold!(most <= 1, "a commit of single keys holds {most} changes");
        for (key, lives) in self.lives.iter().enumerate() {
            let name = self.names[key];
            let mut before = None;
            for (version, value) in lives.versions.iter().zip(&lives.values) {
                hold!(before.is_some() || value.is_some(), "version {version} deletes {name}, which is not there");
                let added = self.makers.of(*version).is_some_and(|call| matches!(self.ops[call].what, What::Add(..)));
                let sum = before.unwrap_or(0) + 1;
                hold!(
                    !added || *value == Some(sum),
                    "lost update: {name} became {value:?} in version {version}, not {sum}"
                );
                before = *value;
            }
        }
        Ok(())
    }

    /// What a call says that fits several moments of a key's life.
    fn vague(&mut self, call: usize) -> Result<(), Failure> {
        let Op { span, what, .. } = &self.ops[call];
        let anywhere = 0..self.newest + 1;
        let states = match what {
            What::Read(key, None) | What::Exists(key, false) | What::Delete(key, Some(false)) => {
                self.only(call, *key, &anywhere, |value, _| value.is_none())?
            }
            What::Exists(key, true) => self.only(call, *key, &anywhere, |value, _| value.is_some())?,
            What::Refused(key, expected) => self.only(call, *key, &anywhere, |value, version| {
                let found = if value.is_some() { version as u64 } else { 0 };
                found != *expected
            })?,
            What::Many(found) => {
                let mut seen = anywhere;
                for (key, found) in found {
                    let Some(found) = found else { continue };
                    let states = self.read(call, *key, *found)?;
                    seen = seen.start.max(states.start)..seen.end.min(states.end);
                }
                for (key, _) in found.iter().filter(|(_, found)| found.is_none()) {
                    if let Some(states) = self.only(call, *key, &seen, |value, _| value.is_none())? {
                        seen = seen.start.max(states.start)..seen.end.min(states.end);
                    }
                }
                hold!(!seen.is_empty(), "{} mixes several moments", self.tell(call));
                Some(seen)
            }
            _ => None,
        };
        if let Some(states) = states {
            self.timeline.seen(&states, *span, call);
        }
        Ok(())
    }

    /// The only states in which a key is as it `fits` and the call can have seen it; nothing if there are several such
    /// parts of its life, an error if there is none.
    fn only(
        &self,
        call: usize,
        key: usize,
        among: &Range<usize>,
        fits: impl Fn(Option<i64>, usize) -> bool,
    ) -> Result<Option<Range<usize>>, Failure> {
        let span = self.ops[call].span;
        let lives = &self.lives[key];
        // Of the parts, those that end before the call are passed over; the first that begins after it is the last.
        let within = self.timeline.newest_within(span);
        let first = lives.place(within.start.max(among.start));
        let mut found = None;
        let mut place = first;
        loop {
            let states = self.states(key, place);
            if states.start >= within.end || states.start >= among.end {
                break;
            }
            let (value, version) = place.map_or((None, 0), |place| (lives.values[place], lives.versions[place]));
            let states = states.start.max(among.start)..states.end.min(among.end);
            if fits(value, version) && !states.is_empty() && self.timeline.can_see(&states, span) {
                if found.is_some() {
                    return Ok(None);
                }
                found = Some(states);
            }
            let next = place.map_or(0, |place| place + 1);
            if next >= lives.versions.len() {
                break;
            }
            place = Some(next);
        }
        match found {
            Some(states) => Ok(Some(states)),
            None => Err(Failure::new(format!("{} was at no moment of it so", self.tell(call)))),
        }
    }
}

/// A call, for people.
fn describe(ops: &[Op], names: &Names, call: usize) -> String {
    let Some(Op { worker, span, what }) = ops.get(call) else { return "nobody".into() };
    let name = |key: &usize| names.get(*key).copied().unwrap_or("?");
    let what = match what {
        What::Read(key, found) => format!("read {} = {found:?}", name(key)),
        What::Exists(key, there) => format!("exists {} = {there}", name(key)),
        What::Many(found) => {
            let found: Vec<_> = found.iter().map(|(key, found)| (name(key), found)).collect();
            format!("get_many {found:?}")
        }
        What::Write { key, value, version, expected } => {
            format!("write {} = {value}, version {version:?}, expected {expected:?}", name(key))
        }
        What::Refused(key, expected) => format!("refused write {} of version {expected}", name(key)),
        What::Add(key, sum) => format!("increment {} = {sum:?}", name(key)),
        What::Delete(key, there) => format!("delete {} = {there:?}", name(key)),
        What::DeleteIf(key, expected, there) => format!("delete {} of version {expected} = {there:?}", name(key)),
    };
    let end = if span.is_closed() { span.end.to_string() } else { "?".into() };
    format!("[{what}; worker {worker}, {}..{end} ns]", span.start)
}

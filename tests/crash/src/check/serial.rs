//! Serializability of transactions: each one that committed read and listed exactly what was there just before its own
//! commit, in an order that agrees with real time; one that only read, or failed, read one state that was there when it
//! began; and nothing is in the log that no transaction has written.

use super::clock::Span;
use super::journal::Call;
use super::log::{Lives, Log};
use super::timeline::{Makers, Timeline};
use crate::{Failure, hold};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A transaction, or a call outside of one, whose beginning and end are then the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Who made it.
    #[serde(default)]
    pub worker: u32,
    /// When it was begun.
    pub begin: Span,
    /// What it did, and what it was told.
    pub acts: Vec<Act>,
    /// When it was committed or given up.
    pub end: Span,
    /// What came of it.
    pub outcome: Outcome,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was committed, as this version if that is told.
    Committed(Option<u64>),
    /// It was given up or refused: nothing of it is stored.
    Failed,
    /// Nobody was told.
    Unknown,
}

/// What a transaction did. A key of a scope has the scope's name and `/` in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A read.
    Get(String, Option<i64>),
    /// A read of several keys; those that were there.
    GetMany(Vec<String>, Vec<(String, i64)>),
    /// Whether a key is there.
    Exists(String, bool),
    /// A listing of keys.
    Keys(Listing, Vec<String>),
    /// A listing of keys and values.
    Items(Listing, Vec<(String, i64)>),
    /// How many keys match.
    Count(Listing, u64),
    /// A write.
    Set(String, i64),
    /// A deletion, and whether the key was there.
    Delete(String, bool),
    /// An addition, and its sum.
    Increment(String, i64, i64),
    /// A deletion of all that match, and how many there were.
    Clear(Listing, u64),
}

/// What is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The scope's name and `/`, or nothing.
    pub scope: String,
    /// `*` and `?` only.
    pub pattern: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Backwards.
    pub reverse: bool,
}

impl Call for Run {
    fn span(&self) -> Span {
        self.end
    }

    fn worker(&mut self) -> &mut u32 {
        &mut self.worker
    }
}

/// What transactions write: the last value of each key, nothing for a deletion.
type Writes = BTreeMap<String, Option<i64>>;

/// All that a store ever held.
struct Past(BTreeMap<String, Lives>);

/// The state after a version, with a transaction's own writes on top.
struct View<'p> {
    past: &'p Past,
    version: usize,
    own: Writes,
}

/// Whether a key fits a pattern of `*` and `?`.
fn matches(pattern: &[u8], key: &[u8]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if matches(rest, key) => true,
        (Some((b'*', _)), Some((_, tail))) => matches(pattern, tail),
        (Some((one, rest)), Some((letter, tail))) => (*one == b'?' || one == letter) && matches(rest, tail),
        _ => false,
    }
}

impl View<'_> {
    fn get(&self, key: &str) -> Option<i64> {
        self.own.get(key).copied().unwrap_or_else(|| self.past.0.get(key).and_then(|lives| lives.at(self.version)))
    }

    /// What is listed; the keys without their scope.
    fn list(&self, listing: &Listing) -> Vec<(String, i64)> {
        let names: BTreeSet<&String> = self.past.0.keys().chain(self.own.keys()).collect();
        let own = |name: &&String| {
            let key = name.strip_prefix(&listing.scope)?;
            // Without a scope's name, keys of scopes are none.
            (!key.contains('/')).then(|| key.to_owned())
        };
        let fits = |key: &String| {
            matches(listing.pattern.as_bytes(), key.as_bytes())
                && listing.after.as_ref().is_none_or(|after| if listing.reverse { key < after } else { key > after })
        };
        let mut found: Vec<(String, i64)> = names
            .into_iter()
            .filter_map(|name| Some((own(&name)?, name)))
            .filter(|(key, _)| fits(key))
            .filter_map(|(key, name)| Some((key, self.get(name)?)))
            .collect();
        if listing.reverse {
            found.reverse();
        }
        found.truncate(listing.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        found
    }

    /// Does what was done; answers whether it is told the same.
    fn act(&mut self, act: &Act) -> bool {
        match act {
            Act::Get(key, found) => self.get(key) == *found,
            Act::GetMany(keys, found) => {
                keys.iter().all(|key| self.get(key) == found.iter().find(|(name, _)| name == key).map(|found| found.1))
            }
            Act::Exists(key, there) => self.get(key).is_some() == *there,
            Act::Keys(listing, found) => self.list(listing).iter().map(|(key, _)| key).eq(found),
            Act::Items(listing, found) => self.list(listing) == *found,
            Act::Count(listing, count) => self.list(listing).len() as u64 == *count,
            Act::Set(key, value) => {
                self.own.insert(key.clone(), Some(*value));
                true
            }
            Act::Delete(key, there) => {
                let found = self.get(key).is_some();
                if found {
                    self.own.insert(key.clone(), None);
                }
                found == *there
            }
            Act::Increment(key, by, sum) => {
                let found = self.get(key).unwrap_or(0) + by;
                self.own.insert(key.clone(), Some(found));
                found == *sum
            }
            Act::Clear(listing, count) => {
                let doomed = self.list(listing);
                for (key, _) in &doomed {
                    self.own.insert(format!("{}{key}", listing.scope), None);
                }
                doomed.len() as u64 == *count
            }
        }
    }
}

impl Past {
    /// Runs a transaction over the state after a version: what it changes there, or the first act that is told otherwise.
    fn replay<'a>(&self, version: usize, acts: &'a [Act]) -> Result<Writes, &'a Act> {
        let mut view = View { past: self, version, own: Writes::new() };
        for act in acts {
            if !view.act(act) {
                return Err(act);
            }
        }
        let was = |key: &str| self.0.get(key).and_then(|lives| lives.at(version));
        let mut own = view.own;
        own.retain(|key, value| value.is_some() || was(key).is_some());
        Ok(own)
    }
}

impl Act {
    fn writes(&self) -> bool {
        matches!(self, Self::Set(..) | Self::Increment(..) | Self::Delete(_, true) | Self::Clear(_, 1..))
    }
}

struct Check<'h> {
    log: &'h Log,
    past: Past,
    runs: &'h [Run],
    timeline: Timeline,
    makers: Makers,
}

/// Checks what workers did to a store with this log.
pub fn check(log: &Log, runs: &[Run]) -> Result<(), Failure> {
    let newest = log.newest();
    let past = Past(log.by_key());
    let mut check = Check { log, past, runs, timeline: Timeline::new(newest), makers: Makers::new(newest) };
    // Deletions of what was there or not, which have made their version or, just as well, come right after it.
    let mut either = BTreeMap::new();
    for (call, run) in runs.iter().enumerate() {
        if let Outcome::Committed(Some(version)) = run.outcome {
            let version = usize::try_from(version)?;
            if check.changes_nothing(call, version) && check.makes(call, version) {
                either.insert(call, version);
            } else {
                check.committed(call, version)?;
            }
        }
    }
    check.settle()?;
    let left = check.unversioned(&either)?;
    check.settle()?;
    for call in left {
        check.some_state(call)?;
    }
    Ok(())
}

impl Check<'_> {
    fn tell(&self, call: usize) -> String {
        describe(self.runs, call)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let runs = self.runs;
        self.timeline.settle_or(|call| describe(runs, call))
    }

    fn is_change(&self, version: usize, writes: &Writes) -> bool {
        let changes = self.log.changes(version);
        changes.len() == writes.len() && changes.iter().all(|(key, value)| writes.get(key) == Some(value))
    }

    fn claim(&mut self, version: usize, call: usize) -> Result<(), Failure> {
        let runs = self.runs;
        self.makers.claim(version, call, |call| describe(runs, call))?;
        self.timeline.made(version, runs[call].end, call);
        Ok(())
    }

    /// A transaction that was told its version: the one that it made or, when it changed nothing, the one that it saw.
    fn committed(&mut self, call: usize, version: usize) -> Result<(), Failure> {
        let run = &self.runs[call];
        hold!(version <= self.log.newest(), "{} is not in the log", self.tell(call));
        let states = version..version + 1;
        if !run.acts.iter().any(Act::writes) {
            self.past.replay(version, &run.acts).map_err(|act| self.differs(call, act, version))?;
            self.timeline.seen(&states, run.begin, call);
            return Ok(());
        }
        if self.makes(call, version) {
            return self.claim(version, call);
        }
        if self.changes_nothing(call, version) {
            self.timeline.seen(&states, Span { start: run.begin.start, end: run.end.end }, call);
            return Ok(());
        }
        hold!(version > 0, "{} has version 0", self.tell(call));
        let writes = self.past.replay(version - 1, &run.acts).map_err(|act| self.differs(call, act, version - 1))?;
        let found = self.log.changes(version);
        Err(Failure::new(format!("{} wrote {writes:?}, the log has {found:?}", self.tell(call))))
    }

    /// Whether a run just before the version changes what the version has changed.
    fn makes(&self, call: usize, version: usize) -> bool {
        let writes = version.checked_sub(1).map(|before| self.past.replay(before, &self.runs[call].acts));
        matches!(writes, Some(Ok(writes)) if !writes.is_empty() && self.is_change(version, &writes))
    }

    /// Whether a run just after the version only deletes what is not there, own writes for example.
    fn changes_nothing(&self, call: usize, version: usize) -> bool {
        let writes = self.past.replay(version, &self.runs[call].acts);
        version <= self.log.newest() && writes.is_ok_and(|writes| writes.is_empty())
    }

    fn differs(&self, call: usize, act: &Act, version: usize) -> Failure {
        Failure::new(format!("not serializable: after version {version}, {act:?} is wrong in {}", self.tell(call)))
    }

    /// Commits that nobody was told of belong to calls that are told no version, or of which nobody knows what became. There
    /// must be a commit for each such call and a call for each such commit; what holds whichever call made it counts as
    /// certain. Answers the runs that made no commit.
    fn unversioned(&mut self, either: &BTreeMap<usize, usize>) -> Result<Vec<usize>, Failure> {
        let runs = self.runs;
        let acknowledged = |run: &Run| run.outcome == Outcome::Committed(None) && run.acts.iter().any(Act::writes);
        let open = |call: &usize| {
            acknowledged(&runs[*call]) || runs[*call].outcome == Outcome::Unknown || either.contains_key(call)
        };
        let mut waiting: Vec<usize> = (0..runs.len()).filter(open).collect();
        waiting.sort_by_key(|call| std::cmp::Reverse(runs[*call].end.start));
        let mut begun: Vec<usize> = Vec::new();
        let mut made_by: Vec<(usize, Vec<usize>)> = Vec::new();
        for version in self.makers.unclaimed() {
            let latest = self.timeline.latest(version);
            while let Some(call) = waiting.pop_if(|call| runs[*call].end.start <= latest) {
                begun.push(call);
            }
            begun.retain(|call| runs[*call].end.end >= self.timeline.earliest(version));
            let fits = |call: &usize| {
                if either.get(call).is_some_and(|told| *told != version) {
                    return false;
                }
                let writes = self.past.replay(version - 1, &runs[*call].acts);
                writes.is_ok_and(|writes| !writes.is_empty() && self.is_change(version, &writes))
            };
            let makers: Vec<usize> = begun.iter().copied().filter(fits).collect();
            if let Some(call) = makers.iter().min_by_key(|call| runs[**call].end.start) {
                self.timeline.not_before(version, runs[*call].end.start, *call);
            }
            if let Some(call) = makers.iter().max_by_key(|call| runs[**call].end.end) {
                self.timeline.not_after(version, runs[*call].end.end, *call);
            }
            made_by.push((version, makers));
        }
        let mut has_made: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (version, makers) in &made_by {
            for call in makers {
                has_made.entry(*call).or_default().push(*version);
            }
        }
        if let Some(version) = unmatched(&made_by) {
            let changes = self.log.changes(version);
            return Err(Failure::new(format!("nobody has made version {version}, which is {changes:?}")));
        }
        let calls = (0..runs.len()).filter(|call| acknowledged(&runs[*call]));
        let calls: Vec<_> = calls.map(|call| (call, has_made.get(&call).cloned().unwrap_or_default())).collect();
        if let Some(call) = unmatched(&calls) {
            return Err(Failure::new(format!("{} was acknowledged and is not in the log", self.tell(call))));
        }
        let told = |call: &usize| matches!(runs[*call].outcome, Outcome::Committed(Some(_)));
        Ok((0..runs.len()).filter(|call| !told(call) && !has_made.contains_key(call)).collect())
    }

    /// A run that made no commit has read one state that was there when it began.
    fn some_state(&self, call: usize) -> Result<(), Failure> {
        let run = &self.runs[call];
        let mut wrong = None;
        for version in self.timeline.newest_within(run.begin) {
            match self.past.replay(version, &run.acts) {
                Err(act) => wrong = Some((act, version)),
                Ok(writes) if matches!(run.outcome, Outcome::Committed(_)) && !writes.is_empty() => {
                    return Err(Failure::new(format!("{} was acknowledged and is not in the log", self.tell(call))));
                }
                Ok(_) => return Ok(()),
            }
        }
        match wrong {
            Some((act, version)) => Err(self.differs(call, act, version)),
            None => Err(Failure::new(format!("{} has no moment", self.tell(call)))),
        }
    }
}

/// One that is left when each is given one of its own of what it may have; nothing if all get one. (Where all on either
/// side of such a choice can be served, both sides can at once: Mendelsohn and Dulmage.)
fn unmatched(choices: &[(usize, Vec<usize>)]) -> Option<usize> {
    fn serve(
        chooser: usize,
        choices: &[(usize, Vec<usize>)],
        taken: &mut BTreeMap<usize, usize>,
        tried: &mut BTreeSet<usize>,
    ) -> bool {
        choices[chooser].1.iter().any(|wanted| {
            tried.insert(*wanted)
                && taken.get(wanted).copied().is_none_or(|holder| serve(holder, choices, taken, tried))
                && {
                    taken.insert(*wanted, chooser);
                    true
                }
        })
    }
    let mut taken = BTreeMap::new();
    let left = (0..choices.len()).find(|chooser| !serve(*chooser, choices, &mut taken, &mut BTreeSet::new()));
    left.map(|chooser| choices[chooser].0)
}

/// A transaction, for people.
fn describe(runs: &[Run], call: usize) -> String {
    let Some(Run { worker, begin, acts, end, outcome }) = runs.get(call) else { return "nobody".into() };
    let last = if end.is_closed() { end.end.to_string() } else { "?".into() };
    let (start, middle) = (begin.start, end.start);
    format!("[{acts:?}, {outcome:?}; worker {worker}, {start}, {middle}..{last} ns]")
}

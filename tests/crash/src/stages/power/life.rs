//! One life of a store: what was done, what it did to its files, and what it held after each step.

use super::disk::{Disk, Image, Survival};
use super::model::{Deed, Model};
use super::operation::Operation;
use super::workload::Flavour;
use crate::Failure;
use crate::vfs::record::{Kind, Step, fingerprint};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A recorded life.
pub(super) struct Life {
    pub(super) flavour: Flavour,
    /// What the disk held when it began.
    pub(super) base: Image,
    pub(super) operations: Vec<Operation>,
    /// What the store held before the operation of that number.
    pub(super) states: Vec<Model>,
    pub(super) steps: Vec<Step>,
    /// Where in `steps` callers were answered, and for which operation.
    pub(super) acknowledged: Vec<(usize, usize)>,
}

/// One power cut.
pub(super) struct Cut {
    pub(super) image: Image,
    /// Operations that were over before.
    pub(super) over: usize,
    /// Steps before it.
    pub(super) after: usize,
    pub(super) survival: Survival,
}

/// The path of the store in a directory.
pub(super) fn store(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// Makes a directory hold an image, and nothing else but a ballast that is there already: it has nothing to lose.
pub(super) fn lay_out(dir: &Path, image: &Image) -> Result<(), Failure> {
    let mut path = store(dir).into_os_string();
    path.push("-shm");
    let _ = std::fs::remove_file(path);
    for kind in Kind::ALL {
        let path = kind.beside(&store(dir));
        match image.file(kind) {
            Some(bytes) => std::fs::write(path, bytes)?,
            None => drop(std::fs::remove_file(path)),
        }
    }
    Ok(())
}

/// Changes that one model tells and another does not.
fn missing<'m>(of: &'m Model, from: &'m Model) -> impl Iterator<Item = &'m Deed> {
    of.past.iter().flat_map(|((path, key), deeds)| deeds.iter().filter(|deed| !from.deeds(path, key).contains(deed)))
}

/// What a life is to have of everything.
pub(super) const KINDS: [&str; 5] = [
    "ends of keys whose time had run out",
    "changes trimmed",
    "forks",
    "merges that have changed something",
    "times that something was taken back",
];

impl Life {
    pub(super) fn fingerprint(&self) -> u64 {
        fingerprint(&self.steps)
    }

    /// No caller is told that its commit is done while a power cut could take it back.
    pub(super) fn check_order(&self) -> Result<(), Failure> {
        let kinds: &[Kind] = if self.flavour.wal { &[Kind::Log] } else { &[Kind::Database, Kind::Journal] };
        let mut disk = Disk::of(&self.base);
        for step in &self.steps {
            disk.step(step);
            if let Step::Acknowledged { operation, committed: true } = step
                && let Some(why) = disk.unsynced(kinds)
            {
                let what = super::tell(&self.operations[*operation]);
                return Err(Failure::new(format!("{}: {what} was acknowledged, but {why}", self.flavour.name)));
            }
        }
        Ok(())
    }

    /// Cuts the power somewhere.
    pub(super) fn cut(&self, random: &mut fastrand::Rng) -> Cut {
        let after = if random.bool() {
            random.usize(..=self.steps.len())
        } else {
            let (place, _) = self.acknowledged[random.usize(..self.acknowledged.len())];
            (place + 1 + random.usize(..3)).min(self.steps.len())
        };
        let mut disk = Disk::of(&self.base);
        for step in &self.steps[..after] {
            disk.step(step);
        }
        let survival = Survival::random(random);
        let told = self.acknowledged.iter().take_while(|(place, _)| *place < after);
        let over = told.last().map_or(0, |(_, operation)| operation + 1);
        Cut { image: disk.cut(survival, random), over, after, survival }
    }

    /// The states, by number, in which a store with `FULL` may be after a cut: no earlier one than the newest commit
    /// that was acknowledged has led to, no later one than what was under way would have.
    ///
    /// A commit of a process that was killed before the sync may be there or not, until another one is synced.
    pub(super) fn allowed(&self, cut: &Cut) -> RangeInclusive<usize> {
        let is_over = |step: &&Step| match step {
            Step::Acknowledged { operation, committed } => *committed && *operation < cut.over,
            _ => false,
        };
        let newest = self.steps.iter().rev().find(is_over);
        let first = newest.map_or(0, |step| match step {
            Step::Acknowledged { operation, .. } => operation + 1,
            _ => 0,
        });
        let under_way = match self.operations.get(cut.over) {
            // Killed, and what has come after it was under way as well: it opens the store, and changes nothing.
            Some(Operation::Killed(..)) => cut.over + 2,
            _ => cut.over + 1,
        };
        first..=under_way.min(self.states.len() - 1)
    }

    /// What the clock shows after a cut: no less than when what was under way would have been over.
    pub(super) fn clock_ms(&self, cut: &Cut) -> i64 {
        self.states[*self.allowed(cut).end()].clock_ms
    }

    /// Whether a store is one of these states, or on the way from one to the next by telling of what has expired, by taking
    /// something out of its past, or by making the scopes of a merge; and which.
    pub(super) fn find(&self, found: &Model, states: RangeInclusive<usize>) -> Option<usize> {
        let (first, last) = states.into_inner();
        let is_here = |number: &usize| self.states[*number].is(found);
        let is_between = |number: &usize| {
            let (operation, before) = (&self.operations[*number], &self.states[*number]);
            let next = if operation.is_cleaning() { &self.states[number + 1] } else { before };
            operation.is_in_parts() && before.leads_by(found, next) || before.begins_by(found, operation)
        };
        (first..=last).rev().find(is_here).or_else(|| (first..last).rev().find(is_between))
    }

    /// How often something of this kind has happened.
    pub(super) fn kinds(&self) -> [u64; KINDS.len()] {
        let mut counts = [0; KINDS.len()];
        for (operation, both) in self.operations.iter().zip(self.states.windows(2)) {
            let (before, next) = (&both[0], &both[1]);
            let kind = match operation {
                Operation::Fork(..) => Some(2),
                Operation::Merge(..) => Some(3),
                Operation::Revert(..) | Operation::RevertTo(..) | Operation::Undo(..) => Some(4),
                _ => None,
            };
            if let Some(kind) = kind.filter(|_| !before.is(next)) {
                counts[kind] += 1;
            }
            counts[0] += missing(next, before).filter(|deed| deed.operation == "expire").count() as u64;
            counts[1] += missing(before, next).count() as u64;
        }
        counts
    }

    /// How many acknowledged operations have changed something.
    pub(super) fn committed(&self) -> u64 {
        let is_commit = |step: &&Step| matches!(step, Step::Acknowledged { committed: true, .. });
        self.steps.iter().filter(is_commit).count() as u64
    }

    /// What has led to a cut, for people.
    pub(super) fn story(&self, cut: &Cut) -> String {
        const LAST: usize = 8;
        let mut text = format!(
            "{}: the power was cut after step {} of {}; {:?} of what was not synced survived",
            self.flavour.name,
            cut.after,
            self.steps.len(),
            cut.survival
        );
        let told = self.steps[cut.after.saturating_sub(LAST)..cut.after].iter().map(|step| match step {
            Step::Write { kind, offset, bytes } => {
                format!("\n  write {kind:?} {offset}..{}", offset + bytes.len() as u64)
            }
            Step::Acknowledged { operation, .. } => {
                format!("\n  acknowledged {}", super::tell(&self.operations[*operation]))
            }
            step => format!("\n  {step:?}"),
        });
        text.extend(told);
        let next = self.operations.get(cut.over).map_or("the end".into(), super::tell);
        text.push_str("\nunder way: ");
        text.push_str(&next);
        text
    }
}

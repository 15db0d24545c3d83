//! When each commit can have happened.

use super::clock::Span;
use crate::{Failure, hold};
use std::ops::Range;

/// A bound on the moment of a commit, and the call that has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    time: u64,
    call: usize,
}

/// The earliest and the latest moment of every commit. Index 0 is the state before the first.
#[derive(Debug)]
pub struct Timeline {
    early: Vec<Bound>,
    late: Vec<Bound>,
}

impl Timeline {
    /// Of `newest` commits nothing is known.
    pub fn new(newest: usize) -> Self {
        Self {
            early: vec![Bound { time: 0, call: usize::MAX }; newest + 1],
            late: vec![Bound { time: u64::MAX, call: usize::MAX }; newest + 1],
        }
    }

    /// A call has made the commit.
    pub fn made(&mut self, version: usize, span: Span, call: usize) {
        self.not_before(version, span.start, call);
        self.not_after(version, span.end, call);
    }

    /// A call has seen the state of some moment after the commit `from` and before the commit `until`.
    pub fn seen(&mut self, states: &Range<usize>, span: Span, call: usize) {
        self.not_after(states.start, span.end, call);
        if states.end < self.early.len() {
            self.not_before(states.end, span.start, call);
        }
    }

    /// A commit did not happen before a time.
    pub fn not_before(&mut self, version: usize, time: u64, call: usize) {
        self.early[version] = self.early[version].max(Bound { time, call });
    }

    /// A commit did not happen after a time.
    pub fn not_after(&mut self, version: usize, time: u64, call: usize) {
        self.late[version] = self.late[version].min(Bound { time, call });
    }

    /// Carries the bounds along the order of commits: no commit happened before an older one. Fails, with the two calls
    /// that contradict each other, when a commit has no moment left.
    pub fn settle(&mut self) -> Result<(), (usize, [usize; 2])> {
        for version in 1..self.early.len() {
            self.early[version] = self.early[version].max(self.early[version - 1]);
        }
        for version in (1..self.late.len()).rev() {
            self.late[version - 1] = self.late[version - 1].min(self.late[version]);
        }
        let crossed = self.early.iter().zip(&self.late).position(|(early, late)| early.time > late.time);
        match crossed {
            Some(version) => Err((version, [self.late[version].call, self.early[version].call])),
            None => Ok(()),
        }
    }

    /// [`Timeline::settle`], telling a failure with the calls that `tell` describes.
    pub fn settle_or(&mut self, tell: impl Fn(usize) -> String) -> Result<(), Failure> {
        self.settle().map_err(|(version, [first, second])| {
            Failure::new(format!(
                "no order fits version {version}: {} says that it was there, and after that {} says that it was not",
                tell(first),
                tell(second)
            ))
        })
    }

    /// Whether some moment of a call lies after the commit `states.start` and before the commit `states.end`.
    pub fn can_see(&self, states: &Range<usize>, span: Span) -> bool {
        self.early[states.start].time <= span.end
            && self.late.get(states.end).is_none_or(|late| late.time >= span.start)
    }

    /// Whether a call can have made the commit.
    pub fn can_make(&self, version: usize, span: Span) -> bool {
        self.early[version].time <= span.end && self.late[version].time >= span.start
    }

    /// The versions that may have been the newest at some moment of a call.
    pub fn newest_within(&self, span: Span) -> Range<usize> {
        let first = self.late.partition_point(|late| late.time < span.start).saturating_sub(1);
        let end = self.early.partition_point(|early| early.time <= span.end);
        first..end
    }

    /// The latest moment of a commit.
    pub fn latest(&self, version: usize) -> u64 {
        self.late[version].time
    }

    /// The earliest moment of a commit.
    pub fn earliest(&self, version: usize) -> u64 {
        self.early[version].time
    }
}

/// Notes who made each commit, once.
#[derive(Debug)]
pub struct Makers(Vec<Option<usize>>);

impl Makers {
    /// Nobody has made any of `newest` commits.
    pub fn new(newest: usize) -> Self {
        Self(vec![None; newest + 1])
    }

    /// Notes that a call has made the commit.
    pub fn claim(&mut self, version: usize, call: usize, tell: impl Fn(usize) -> String) -> Result<(), Failure> {
        hold!((1..self.0.len()).contains(&version), "{} has version {version}, which is not in the log", tell(call));
        if let Some(other) = self.0[version].replace(call) {
            return Err(Failure::new(format!("version {version} is that of {} and of {}", tell(other), tell(call))));
        }
        Ok(())
    }

    /// The versions that nobody has claimed.
    pub fn unclaimed(&self) -> Vec<usize> {
        (1..self.0.len()).filter(|version| self.0[*version].is_none()).collect()
    }

    /// Who made a commit.
    pub fn of(&self, version: usize) -> Option<usize> {
        self.0[version]
    }
}

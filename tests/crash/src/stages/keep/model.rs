//! What a store may hold, from what its processes have told.

use super::story::{Answer, LONG, Life, Line, Operation, Spec, watched};
use super::stream::{Effect, Kept, explain};
use crate::{Failure, hold};
use std::collections::{BTreeMap, BTreeSet};

/// Clocks of processes that open a store one after the other may differ by so much, in milliseconds.
const SLACK: u64 = 5;

/// What a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct May {
    pub(super) spec: Option<Spec>,
    /// When its time runs out, at the earliest and at the latest; nothing while the test lasts.
    ends: Option<(u64, u64)>,
}

/// More than one thing only after a process was killed.
pub(super) type Cell = Vec<May>;

/// A call: when it began, and when it had returned at the latest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) u64, pub(super) u64);

impl May {
    const NOTHING: Self = Self { spec: None, ends: None };

    fn new(spec: Spec, life: Life, span: Span) -> Self {
        let ends = (life > 0 && life < LONG).then(|| (span.0 + life, span.1 + life));
        Self { spec: Some(spec), ends }
    }

    /// Whether somebody who looked meanwhile may have found it.
    pub(super) fn may_be_there(self, span: Span) -> bool {
        self.spec.is_some() && self.ends.is_none_or(|(_, latest)| span.0 <= latest + SLACK)
    }

    pub(super) fn may_be_gone(self, span: Span) -> bool {
        self.spec.is_none() || self.ends.is_some_and(|(earliest, _)| earliest <= span.1 + SLACK)
    }
}

/// Those that fit what was found.
pub(super) fn fitting(cell: &[May], found: Option<Spec>, span: Span) -> Cell {
    let fits = |may: &&May| match found {
        Some(_) => may.spec == found && may.may_be_there(span),
        None => may.may_be_gone(span),
    };
    cell.iter().filter(fits).copied().collect()
}

/// The values of a cell.
fn specs(cell: &[May]) -> BTreeSet<Option<(u64, u32)>> {
    cell.iter().map(|may| may.spec.map(|spec| (spec.tag, spec.turns))).collect()
}

/// A scope.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) cells: BTreeMap<String, Cell>,
    pub(super) effects: Vec<Effect>,
    /// So many effects are those of what it was forked from.
    pub(super) inherited: usize,
    /// From what it was forked, and what that held.
    origin: Option<(String, BTreeMap<String, Cell>)>,
    /// Whether it is there for certain.
    pub(super) is_sure: bool,
    /// What a merge that was under way would have made of keys: all of it or nothing.
    pub(super) merging: Vec<(String, Option<Spec>)>,
}

impl Known {
    pub(super) fn cell(&self, key: &str) -> Cell {
        self.cells.get(key).cloned().unwrap_or_else(|| vec![May::NOTHING])
    }

    pub(super) fn is_fork(&self) -> bool {
        self.origin.is_some()
    }

    /// Something that may be, or is, from now on; `version` is that of its commit.
    fn put(&mut self, key: &str, mays: Cell, operation: &'static str, version: Option<u64>, after: u64, is_sure: bool) {
        let effect = Effect {
            key: key.to_owned(),
            operation,
            specs: mays.iter().map(|may| may.spec).collect(),
            may_end: mays.iter().any(|may| may.ends.is_some()),
            version,
            after,
            is_sure,
        };
        self.effects.push(effect);
        let mut cell = if is_sure { Vec::new() } else { self.cell(key) };
        cell.extend(mays);
        self.cells.insert(key.to_owned(), cell);
    }
}

/// A store.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) scopes: BTreeMap<String, Known>,
    /// By slot: the newest version that it was told.
    versions: BTreeMap<usize, u64>,
    /// By watched scope.
    pub(super) kept: BTreeMap<String, Kept>,
    pub(super) acknowledged: u64,
}

impl Model {
    /// Takes in what one process has told, which was gone by then.
    pub(super) fn replay(&mut self, lines: &[Line], gone_ms: u64) -> Result<(), Failure> {
        let mut begun: BTreeMap<usize, (u64, &Operation)> = BTreeMap::new();
        for line in lines {
            match line {
                Line::Begun { slot, at_ms, operation } => drop(begun.insert(*slot, (*at_ms, operation))),
                Line::Done { slot, at_ms, answer } => {
                    let (from_ms, operation) =
                        begun.remove(slot).ok_or_else(|| Failure::new("an answer without a call"))?;
                    self.acknowledged += 1;
                    self.apply(*slot, operation, Span(from_ms, *at_ms), Some(answer))
                        .map_err(|why| Failure::new(format!("{operation:?} was told {answer:?}: {why}")))?;
                }
                Line::Open | Line::End => {}
                Line::Failed(text) => return Err(Failure::new(format!("a process failed: {text}"))),
            }
        }
        begun
            .into_iter()
            .try_for_each(|(slot, (from_ms, operation))| self.apply(slot, operation, Span(from_ms, gone_ms), None))
    }

    fn known(&mut self, scope: &str) -> &mut Known {
        self.scopes.entry(scope.to_owned()).or_default()
    }

    fn apply(
        &mut self,
        slot: usize,
        operation: &Operation,
        span: Span,
        answer: Option<&Answer>,
    ) -> Result<(), Failure> {
        let after = self.versions.get(&slot).copied().unwrap_or(0);
        let version = match answer {
            Some(Answer::Version(version) | Answer::Merged { version, keys: 1.., .. }) => Some(*version),
            Some(Answer::Within { version, .. }) => *version,
            _ => None,
        };
        hold!(version.is_none_or(|version| version > after), "it comes after version {after}");
        self.versions.insert(slot, version.unwrap_or(after));
        let is_sure = answer.is_some();
        match operation {
            Operation::Set { scope, key, spec, life } => {
                let known = self.known(scope);
                known.is_sure |= is_sure;
                known.put(key, vec![May::new(*spec, *life, span)], "set", version, after, is_sure);
            }
            Operation::Touch { scope, key, life } => self.touch(scope, key, *life, span, after, answer)?,
            Operation::Delete { scope, key } => self.delete(scope, key, span, after, answer)?,
            Operation::Within { scope, read, key, spec } => {
                if let Some(Answer::Within { there, asked_ms, version }) = answer {
                    self.known(scope).check_within(read, *there, Span(span.0, *asked_ms), span, version.is_some())?;
                }
                if answer.is_none() || version.is_some() {
                    let may = May { spec: Some(*spec), ends: None };
                    self.known(scope).put(key, vec![may], "set", version, after, is_sure);
                }
            }
            Operation::Fork { scope, name } => {
                let from = self.known(scope).clone();
                let origin = Some((scope.clone(), from.cells.clone()));
                let fork = Known { origin, inherited: from.effects.len(), is_sure, merging: Vec::new(), ..from };
                self.scopes.insert(name.clone(), fork);
            }
            Operation::Merge { scope, fork } => self.merge(scope, fork, after, answer)?,
            Operation::Follow { scope, most } => {
                let effects = self.scopes.get(scope).map_or(&[][..], |known| &known.effects);
                let kept = self.kept.entry(scope.clone()).or_default();
                match answer {
                    Some(Answer::Followed { from, told, to }) => {
                        kept.moved(*from, *to)?;
                        explain(effects, *from, told, told.len() < *most)?;
                    }
                    _ => kept.is_unsure = true,
                }
            }
            Operation::Cleanup => {}
        }
        Ok(())
    }

    fn touch(
        &mut self,
        scope: &str,
        key: &str,
        life: Life,
        span: Span,
        after: u64,
        answer: Option<&Answer>,
    ) -> Result<(), Failure> {
        let known = self.known(scope);
        known.is_sure |= answer.is_some();
        let cell = known.cell(key);
        let touched: Cell = cell
            .iter()
            .filter(|may| may.may_be_there(span))
            .filter_map(|may| Some(May::new(may.spec?, life, span)))
            .collect();
        match answer {
            Some(Answer::There(false)) => known.must_be_gone(key, &cell, span)?,
            Some(_) => {
                hold!(!touched.is_empty(), "it cannot have been there: {cell:?}");
                known.put(key, touched, "touch", None, after, true);
            }
            None if !touched.is_empty() => known.put(key, touched, "touch", None, after, false),
            None => {}
        }
        Ok(())
    }

    fn delete(
        &mut self,
        scope: &str,
        key: &str,
        span: Span,
        after: u64,
        answer: Option<&Answer>,
    ) -> Result<(), Failure> {
        let known = self.known(scope);
        known.is_sure |= answer.is_some();
        let cell = known.cell(key);
        let may_be_there = cell.iter().any(|may| may.may_be_there(span));
        match answer {
            Some(Answer::There(false)) => known.must_be_gone(key, &cell, span)?,
            Some(_) => {
                hold!(may_be_there, "it cannot have been there: {cell:?}");
                known.put(key, vec![May::NOTHING], "delete", None, after, true);
            }
            None if may_be_there => known.put(key, vec![May::NOTHING], "delete", None, after, false),
            None => {}
        }
        Ok(())
    }

    fn merge(&mut self, scope: &str, fork: &str, after: u64, answer: Option<&Answer>) -> Result<(), Failure> {
        let Some(theirs) = self.scopes.get(fork).cloned() else { return Ok(()) };
        let Some((_, base)) = theirs.origin.as_ref().filter(|(origin, _)| origin == scope) else {
            hold!(matches!(answer, None | Some(Answer::Done)), "{fork} was not forked from it");
            return Ok(());
        };
        hold!(!matches!(answer, Some(Answer::Done)), "{fork} was forked from it");
        let ours = self.known(scope);
        let changed: BTreeSet<&String> = theirs.effects[theirs.inherited..].iter().map(|effect| &effect.key).collect();
        let nothing = vec![May::NOTHING];
        let (mut count, mut unsure) = (0, 0);
        for key in changed {
            let (base, mine, other) = (base.get(key).unwrap_or(&nothing), ours.cell(key), theirs.cell(key));
            let [was, is, would] = [base, &mine, &other].map(|cell| specs(cell));
            let is_known = [&was, &is, &would].iter().all(|specs| specs.len() == 1);
            let stays = is == would || was == would;
            let operation = if other.iter().any(|may| may.spec.is_some()) { "set" } else { "delete" };
            match answer {
                Some(Answer::Merged { conflicts, .. }) if conflicts.contains(key) => {
                    // Also where it is not kept any more what it was when they parted.
                    hold!(!is_known || is != would, "{key} is the same in both");
                }
                // The same value in all three; its time to expire may be another in the fork, which counts as a change.
                _ if is_known && stays => {
                    if was == is && is == would {
                        unsure += 1;
                        // Its history then tells of the same value once more.
                        ours.put(key, other, operation, None, after, false);
                    }
                }
                Some(Answer::Merged { version, .. }) if is_known => {
                    hold!(was == is, "both have changed {key}, which was not told: {base:?}, {mine:?}, {other:?}");
                    ours.put(key, other, operation, Some(*version), after, true);
                    count += 1;
                }
                _ if is_known && was != is => {}
                _ => {
                    unsure += u64::from(!is_known);
                    if is_known {
                        ours.merging.push((key.clone(), other[0].spec));
                    }
                    ours.put(key, other, operation, None, after, false);
                }
            }
        }
        if let Some(Answer::Merged { keys, .. }) = answer {
            hold!((count..=count + unsure).contains(keys), "{count} keys are others");
        }
        Ok(())
    }

    /// Every slot's scope with a watch.
    pub(super) fn watched(&self, slots: usize) -> impl Iterator<Item = String> + use<'_> {
        (0..slots).map(watched).filter(|scope| self.scopes.get(scope).is_some_and(|known| known.is_sure))
    }
}

impl Known {
    fn must_be_gone(&mut self, key: &str, cell: &[May], span: Span) -> Result<(), Failure> {
        hold!(cell.iter().any(|may| may.may_be_gone(span)), "it must have been there: {cell:?}");
        self.cells.insert(key.to_owned(), vec![May::NOTHING]);
        Ok(())
    }

    /// A transaction that has read a key at first and was asked to commit at the end of `until`.
    fn check_within(&self, key: &str, there: bool, until: Span, span: Span, is_committed: bool) -> Result<(), Failure> {
        let cell = self.cell(key);
        let fits = |may: &&May| if there { may.may_be_there(until) } else { may.may_be_gone(until) };
        hold!(cell.iter().any(|may| fits(&may)), "it found {key} there: {there}, which was {cell:?}");
        if is_committed && there {
            let is_over = |may: &May| !may.may_be_there(Span(until.1, until.1));
            hold!(!cell.iter().all(is_over), "what it had read was over before it asked to commit: {cell:?}");
        }
        // Also what was over before, of which somebody has told meanwhile.
        let may_end = cell.iter().any(|may| may.ends.is_some() && may.may_be_gone(span));
        hold!(is_committed || may_end, "a conflict with nobody: {cell:?}");
        Ok(())
    }
}

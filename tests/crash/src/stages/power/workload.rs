//! What the writer does before the power is cut, drawn from a seed.

use super::model::Model;
use super::operation::{Operation, split};
use llmspell_state_persistence::{RetentionPolicy, StateConfig, SyncMode};
use std::path::Path;
use std::sync::Arc;

/// How many versions of a key are kept unless told otherwise.
pub(super) const VERSIONS: usize = 2;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour {
    pub(super) name: &'static str,
    pub(super) sync_mode: SyncMode,
    pub(super) exclusive: bool,
    pub(super) wal: bool,
}

const fn flavour(name: &'static str, sync_mode: SyncMode, exclusive: bool, wal: bool) -> Flavour {
    Flavour { name, sync_mode, exclusive, wal }
}

/// One after the other; the default is there twice.
pub(super) const FLAVOURS: &[Flavour] = &[
    flavour("shared, FULL", SyncMode::Full, false, true),
    flavour("exclusive, FULL", SyncMode::Full, true, true),
    flavour("rollback journal, FULL", SyncMode::Full, true, false),
    flavour("shared, NORMAL", SyncMode::Normal, false, true),
    flavour("shared, FULL", SyncMode::Full, false, true),
    flavour("exclusive, NORMAL", SyncMode::Normal, true, true),
];

impl Flavour {
    pub(super) fn config(self, path: &Path) -> StateConfig {
        StateConfig {
            sync_mode: self.sync_mode,
            exclusive: self.exclusive,
            enable_wal: self.wal,
            cache_size_mb: 1,
            retention: RetentionPolicy { max_versions: VERSIONS, ..RetentionPolicy::keep_all() },
            ..StateConfig::at(path)
        }
    }

    /// Whether every acknowledged commit survives a power cut.
    pub(super) fn keeps_all(self) -> bool {
        self.sync_mode == SyncMode::Full
    }
}

const WATCHES: [&str; 2] = ["indexer", "mirror"];

const SCOPES: [&str; 4] = ["", "a", "b", "a/c"];
/// Scopes that have policies of their own: no others are inside them.
const RETAINED: [&str; 2] = ["b", "a/c"];
/// A store has so many scopes at most, and with very long values.
const MOST_SCOPES: [usize; 2] = [9, 4];
/// Values of this many bytes make the log move meanwhile.
const VERY_LONG: usize = 400_000;

/// What the writer knows of the store while it is drawn what to do.
struct Draw<'r> {
    random: &'r mut fastrand::Rng,
    scopes: Vec<String>,
    /// Each with what it was forked from.
    forks: Vec<(String, String)>,
    runs: [String; 2],
    /// The longest value of this writer, in bytes.
    longest: usize,
}

/// The steps of one writer. `model` is what the store holds before.
pub(super) fn operations(random: &mut fastrand::Rng, model: &Model) -> Vec<Operation> {
    let scopes: Vec<String> = model.content.keys().cloned().collect();
    let origin = |path: &String| Some((path.rsplit_once('_')?.0.to_owned(), path.clone()));
    let forks = scopes.iter().filter_map(origin).filter(|(origin, _)| scopes.contains(origin)).collect();
    // Within a page, some pages, many pages; so many that the log is moved meanwhile.
    let longest = if random.u8(..16) == 0 { VERY_LONG } else { [200, 9_000, 40_000][random.usize(..3)] };
    let runs = [0, 1].map(|number| format!("run{}-{number}", model.version));
    let mut draw = Draw { random, scopes, forks, runs, longest };
    let mut all = vec![Operation::Open];
    for _ in 0..draw.random.usize(10..34) {
        let before = all.len();
        draw.next(before, &mut all);
    }
    if draw.random.bool() {
        all.push(Operation::Close);
    }
    all
}

impl Draw<'_> {
    fn scope(&mut self) -> String {
        self.scopes[self.random.usize(..self.scopes.len())].clone()
    }

    fn most_scopes(&self) -> usize {
        MOST_SCOPES[usize::from(self.longest == VERY_LONG)]
    }

    fn key(&mut self) -> String {
        format!("key{}", self.random.u8(..6))
    }

    fn next(&mut self, before: usize, all: &mut Vec<Operation>) {
        match self.random.u8(..28) {
            0 => all.extend([Operation::Close, Operation::Open]),
            1 | 2 => {
                let last = match self.random.u8(..8) {
                    0 => Operation::Close,
                    1 => Operation::Cleanup,
                    2 => self.killed_fork().unwrap_or(Operation::Cleanup),
                    _ => self.change(before),
                };
                all.extend([Operation::Killed(Box::new(last), self.random.u32(..30)), Operation::Open]);
            }
            3 => {
                if let Some(new) = SCOPES.iter().find(|scope| !self.scopes.iter().any(|known| known == *scope)) {
                    self.scopes.push((*new).into());
                    all.push(Operation::Scope((*new).into()));
                }
            }
            4..=6 => all.push(self.watching()),
            7 => all.push(Operation::Wait(self.random.i64(1..60))),
            8 => {
                let (scope, read, key) = (self.scope(), self.key(), self.key());
                all.push(Operation::SetFor(scope.clone(), read.clone(), self.text(200), 30));
                all.push(Operation::Within(scope, read, key, self.text(200), [5, 30, 60][self.random.usize(..3)]));
            }
            9 | 10 => self.fork(all),
            11 => {
                if let Some(scope) = self.random.choice(RETAINED).filter(|scope| self.scopes.iter().any(|s| s == scope))
                {
                    let age = if self.random.bool() { Some(self.random.u32(1..40)) } else { None };
                    all.push(Operation::Retain(scope.into(), [1, 3][self.random.usize(..2)], age));
                }
            }
            12 | 13 => all.push(Operation::Cleanup),
            _ => all.push(self.change(before)),
        }
    }

    fn watching(&mut self) -> Operation {
        let scope = self.scope();
        let name = WATCHES[self.random.usize(..WATCHES.len())];
        match self.random.u8(..10) {
            0..3 => Operation::Watch(scope, name),
            3 => Operation::Forget(scope, name),
            _ => Operation::Follow(scope, name, self.random.usize(1..6)),
        }
    }

    /// Mostly the origin moves on at once, and forgets.
    fn fork(&mut self, all: &mut Vec<Operation>) {
        let origin = self.scope();
        let inside = format!("{origin}/");
        let copied: Vec<String> = self.scopes.iter().filter(|scope| scope.starts_with(&inside)).cloned().collect();
        if origin.is_empty() || self.scopes.len() + copied.len() >= self.most_scopes() {
            return;
        }
        let Some(new) = (1..=MOST_SCOPES[0]).map(|n| format!("{origin}_{n}")).find(|new| !self.scopes.contains(new))
        else {
            return;
        };
        self.scopes.push(new.clone());
        self.scopes.extend(copied.into_iter().map(|scope| format!("{new}{}", &scope[origin.len()..])));
        self.forks.push((origin.clone(), new.clone()));
        if self.random.bool() {
            all.push(Operation::Set(origin.clone(), self.pairs()));
        }
        all.push(Operation::Fork(origin.clone(), split(&new).1.to_owned()));
        if self.random.u8(..3) > 0 {
            for _ in 0..self.random.u8(2..5) {
                all.push(Operation::Grow(origin.clone(), "key0".into(), self.words()));
                all.push(Operation::Set(origin.clone(), self.pairs()));
            }
            all.push(Operation::Cleanup);
        }
        if self.random.bool() {
            let key = self.key();
            all.push(Operation::SetFor(new.clone(), key, self.text(self.longest), [0, 40][self.random.usize(..2)]));
            all.push(Operation::Set(new.clone(), self.pairs()));
            all.push(Operation::Delete(new.clone(), "key0".into()));
            all.push(Operation::Merge(origin, new));
        }
    }

    /// A fork of which nobody knows whether it was made.
    fn killed_fork(&mut self) -> Option<Operation> {
        let origin = Some(self.scope()).filter(|scope| !scope.is_empty() && self.scopes.len() < self.most_scopes())?;
        let name = format!("{}-lost{}", split(&origin).1, self.random.u32(..));
        Some(Operation::Fork(origin, name))
    }

    /// `before` is how many operations were there before.
    fn change(&mut self, before: usize) -> Operation {
        let (scope, key, longest) = (self.scope(), self.key(), self.longest);
        match self.random.u8(..34) {
            0..=3 => Operation::Set(scope, vec![(key, self.text(longest))]),
            4 | 5 => Operation::Post(scope, key, self.text(longest)),
            6 | 7 => Operation::Set(scope, self.pairs()),
            8 | 9 => {
                let scopes = self.scopes.clone();
                let each = scopes.into_iter().map(|scope| (scope, key.clone(), self.text(longest / 2)));
                Operation::Transact(each.collect())
            }
            10 => Operation::Increment(scope, "count".into()),
            11 => Operation::Append(scope, "list".into()),
            12 => Operation::Delete(scope, key),
            13 => Operation::Clear(scope, ["key1*", "*", "key*"][self.random.usize(..3)].into()),
            14..=16 => Operation::SetFor(scope, key, self.text(longest), self.random.u32(1..60)),
            17 => Operation::Touch(scope, key, [0, 20, 5_000][self.random.usize(..3)]),
            // Few keys, so that they grow for long.
            18..=21 => Operation::Grow(scope, ["key0", "key1"][self.random.usize(..2)].into(), self.words()),
            22..=24 if !self.forks.is_empty() => {
                let (origin, fork) = self.forks[self.random.usize(..self.forks.len())].clone();
                Operation::Merge(origin, fork)
            }
            25 => Operation::Revert(scope, key, self.random.usize(..before)),
            26 => {
                let pattern = ["key1*", "*", "key*"][self.random.usize(..3)].into();
                Operation::RevertTo(scope, pattern, self.random.usize(..before))
            }
            27 | 28 => {
                let run = self.runs[self.random.usize(..2)].clone();
                Operation::Run(scope, run, self.pairs())
            }
            29 => {
                let run = self.runs[self.random.usize(..2)].clone();
                Operation::Undo(scope, run)
            }
            _ => Operation::Checkpoint(self.random.i32(0..4)),
        }
    }

    fn pairs(&mut self) -> Vec<(String, Arc<str>)> {
        let (count, longest) = (self.random.u8(2..6), self.longest / 2);
        (0..count).map(|number| (format!("key{number}"), self.text(longest))).collect()
    }

    /// What a growing value grows by.
    fn words(&mut self) -> Arc<str> {
        let len = self.random.usize(20..300);
        std::iter::repeat_with(|| self.random.alphanumeric()).take(len).collect::<String>().into()
    }

    /// The text of a value, hard to compress mostly.
    fn text(&mut self, longest: usize) -> Arc<str> {
        let len = self.random.usize(..=longest);
        let body: String = match self.random.u8(..4) {
            0 => "x".repeat(len),
            _ => std::iter::repeat_with(|| self.random.alphanumeric()).take(len).collect(),
        };
        format!("\"{body}\"").into()
    }
}

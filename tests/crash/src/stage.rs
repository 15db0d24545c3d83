//! What a stage is given and what it answers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How much a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Seconds: a part of `make test`.
    Small,
    /// Minutes: `make test-crash`.
    Middle,
}

impl Size {
    /// The number for this size.
    pub fn of<T>(self, small: T, middle: T) -> T {
        match self {
            Self::Small => small,
            Self::Middle => middle,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of("small", "middle"))
    }
}

impl FromStr for Size {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text {
            "small" => Ok(Self::Small),
            "middle" => Ok(Self::Middle),
            _ => Err(Failure::new(format!("size {text}: small or middle"))),
        }
    }
}

/// What one run of a stage works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// How much to do.
    pub size: Size,
    /// Where all randomness comes from.
    pub seed: u64,
    /// An empty directory on a disk.
    pub dir: PathBuf,
    /// An empty directory in memory, where the system has such a place; on a disk otherwise.
    pub fast_dir: PathBuf,
    /// The checkout.
    pub root: PathBuf,
    /// One part of a run to repeat, as a failure has named it.
    pub only: Option<String>,
}

impl Context {
    /// A generator for the part of the run that `part` numbers.
    pub fn random(&self, part: u64) -> fastrand::Rng {
        // The golden ratio keeps neighbouring parts apart (SplitMix64).
        fastrand::Rng::with_seed(self.seed.wrapping_add(part.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

/// What a stage did: numbers by name, the first of which tells how far it got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What was counted, in the order in which it is told.
    pub counts: Vec<(String, u64)>,
    /// Why a part was left out.
    pub skipped: Vec<String>,
}

impl Outcome {
    /// Counts more of `what`.
    pub fn count(&mut self, what: &str, more: u64) {
        match self.counts.iter_mut().find(|(name, _)| name == what) {
            Some((_, count)) => *count += more,
            None => self.counts.push((what.to_owned(), more)),
        }
    }

    /// Adds what another run did.
    pub fn add(&mut self, other: Self) {
        for (what, more) in other.counts {
            self.count(&what, more);
        }
        for why in other.skipped {
            if !self.skipped.contains(&why) {
                self.skipped.push(why);
            }
        }
    }
}

/// What a stage has found: text that says what broke, and how to see it again.
#[derive(Debug, Clone)]
pub struct Failure(String);

impl Failure {
    /// A failure with a text for people.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Ends a stage unless a fact holds.
#[macro_export]
macro_rules! hold {
    ($fact:expr, $($text:tt)+) => {
        if !$fact {
            return Err($crate::Failure::new(format!($($text)+)));
        }
    };
}

/// One way of breaking a store. A stage also fails by panicking.
#[derive(Clone, Copy)]
pub struct Stage {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// What it does, in one line of the report.
    pub what: &'static str,
    /// How much of its first count a long run collects.
    pub long: u64,
    /// Does it.
    pub run: fn(&Context) -> Result<Outcome, Failure>,
}

//! A harness that tries to lose data: stages that break a store in every way we know, and say what they counted.
//!
//! `crash` (the driver) runs them in three sizes; see `CONTRIBUTING.md` for how a feature joins.

pub mod check;
pub mod report;
pub mod run;
pub mod sabotage;
pub mod stage;
pub mod stages;
pub mod vfs;

pub use stage::{Context, Failure, Outcome, Size, Stage};

//! Checkers of recorded histories: what workers asked for and were told, and when, against the order of commits that the
//! store has kept.
//!
//! Every commit has a version, so nothing has to be searched for: the log gives the order of all writes, each answer says
//! after which commit and before which other its moment lies, and one pass over the order tells whether there is a moment
//! for every call between its start and its end. That takes O(n log n) for n calls.

pub mod clock;
pub mod crew;
pub mod journal;
pub mod log;
pub mod serial;
#[cfg(test)]
mod serial_tests;
pub mod single;
#[cfg(test)]
mod single_tests;
pub mod timeline;

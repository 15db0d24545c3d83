//! The contract of `tests/spec`, run against the core; and what the tests of this crate share.

pub mod contract;
pub mod forms;
mod keeping;
mod past;
mod surface;
mod verbs;

//! Verbs that are one call, for who waits for it and for who does not.

use crate::call::{Call, Returned};
use crate::error::Failure;
use crate::later;
use crate::outcome::Outcome;
use llmspell_state_persistence as core;

/// A verb as a call that is to be made.
pub(crate) type Verb = Result<core::Call<Outcome>, Failure>;

pub(crate) fn wait(call: &Call, verb: fn(&Call) -> Verb) -> Returned {
    verb(call)?.wait()?.push(**call)
}

pub(crate) fn post(call: &Call, verb: fn(&Call) -> Verb) -> Returned {
    later::begin(call, verb(call)?, |outcome| outcome)
}

//! What a scope takes, and cleaning up at once.

use crate::call::{Call, function};
use crate::error::Failure;
use crate::handle::Functions;
use crate::outcome::Outcome;
use crate::stack::Stack;
use crate::verb::{Verb, post, wait};
use llmspell_state_persistence::{Cleanup, Scope, Usage};

/// The method of a state and a scope.
pub(crate) static TREE: Functions = &[function!("usage", |call| wait(call, usage))];

/// The method of a state.
pub(crate) static OWN: Functions = &[function!("cleanup", |call| wait(call, cleanup))];

/// The same for who does not wait.
pub(crate) static LATER: Functions =
    &[function!("usage", |call| post(call, usage)), function!("cleanup", |call| post(call, cleanup))];

fn usage(call: &Call) -> Verb {
    Ok(call.own_scope()?.call(|scope: &Scope| scope.usage().map(Outcome::Usage)))
}

fn cleanup(call: &Call) -> Verb {
    let state = call.own_state()?;
    Ok(state.clone().call(move |_| state.cleanup().map(Outcome::Cleanup)))
}

pub(crate) fn push(stack: Stack, usage: &Usage) -> Result<(), Failure> {
    push_counts(
        stack,
        &[
            ("keys", usage.keys),
            ("live_bytes", usage.live_bytes),
            ("history_bytes", usage.history_bytes),
            ("changes", usage.changes),
        ],
    )
}

pub(crate) fn push_cleanup(stack: Stack, cleanup: &Cleanup) -> Result<(), Failure> {
    push_counts(stack, &[("expired", cleanup.expired), ("trimmed", cleanup.trimmed)])
}

fn push_counts(stack: Stack, counts: &[(&str, u64)]) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, counts.len());
        for (name, count) in counts {
            stack.push_count(*count);
            stack.set_field(1, name);
        }
    })
}

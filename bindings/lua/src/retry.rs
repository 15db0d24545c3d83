//! The pauses between the attempts of who tries again without blocking.

use crate::call::{Call, Returned};
use crate::handle::{self, Object};
use llmspell_state_persistence::{Retry, limits};

/// `retry(attempts)`; without a number, as many as the core makes.
pub(crate) fn retry(call: &Call) -> Returned {
    let attempts = call.integer(1).and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(limits::ATTEMPTS);
    handle::push(**call, Object::Retry(Retry::new(attempts)))?;
    Ok(1)
}

/// `pause(retry)` after a failed attempt: how many seconds to wait before the next one; nil when there is none.
pub(crate) fn pause(call: &Call) -> Returned {
    match handle::object(call, 1) {
        Some(Object::Retry(retry)) => match retry.pause() {
            Some(pause) => call.push_float(pause.as_secs_f64()),
            None => call.push_nil(),
        },
        _ => return Err(call.expected(1, "retry")),
    }
    Ok(1)
}

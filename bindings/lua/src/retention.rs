//! How much of the past is kept.

use crate::call::{Call, function};
use crate::error::Failure;
use crate::handle::Functions;
use crate::outcome::Outcome;
use crate::stack::Stack;
use crate::value;
use crate::verb::{Verb, post, wait};
use llmspell_state_persistence::{RetentionPolicy, Scope};
use serde_json::Value;

/// The methods of a state and a scope.
pub(crate) static TREE: Functions = &[
    function!("retention", |call| wait(call, retention)),
    function!("set_retention", reading |call: &Call| wait(call, set_retention)),
];

/// The same for who does not wait.
pub(crate) static LATER: Functions = &[
    function!("retention", |call| post(call, retention)),
    function!("set_retention", reading |call: &Call| post(call, set_retention)),
];

fn retention(call: &Call) -> Verb {
    Ok(call.own_scope()?.call(|scope: &Scope| scope.retention().map(Outcome::Retention)))
}

/// `set_retention{max_versions = , …}` answers the version of the commit; nil takes back what was set.
fn set_retention(call: &Call) -> Verb {
    /// Policies are short.
    const MAX_BYTES: usize = 1 << 16;
    let scope = call.own_scope()?;
    let policy = if call.is_missing(2) {
        None
    } else {
        call.check_table(2)?;
        match value::read(call, 2, MAX_BYTES)?.to_value() {
            Value::Object(parts) => Some(RetentionPolicy::from_options(parts)?),
            _ => return Err(call.bad_argument(2, "the parts of a policy are named, as in { max_versions = 5 }")),
        }
    };
    Ok(scope.call(move |scope| scope.set_retention(policy.as_ref()).map(Outcome::Count)))
}

/// A table of the parts, as `set_retention` takes it: null where there is no bound.
pub(crate) fn push(stack: Stack, policy: &RetentionPolicy) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 5);
        policy.max_age.map_or_else(|| stack.push_null(), |age| stack.push_float(age.as_secs_f64()));
        stack.set_field(1, "max_age");
        let max_versions = Some(policy.max_versions).filter(|versions| *versions != usize::MAX);
        for (name, most) in [("max_versions", max_versions.map(|most| most as u64)), ("max_bytes", policy.max_bytes)] {
            most.map_or_else(|| stack.push_null(), |most| stack.push_count(most));
            stack.set_field(1, name);
        }
        stack.push_boolean(policy.trim_watched);
        stack.set_field(1, "trim_watched");
        stack.push_float(policy.cleanup_interval.as_secs_f64());
        stack.set_field(1, "cleanup_interval");
    })
}

//! How long keys live.

use crate::args::{Target, on};
use crate::call::{Call, Returned, function};
use crate::handle::Functions;
use crate::later;
use crate::outcome::Outcome;
use crate::verb::{Verb, post, wait};
use llmspell_state_persistence::{Scope, Ttl};

/// The methods of a state and a scope.
pub(crate) static TREE: Functions = &[
    function!("default_ttl", |call| wait(call, default_ttl)),
    function!("set_default_ttl", |call| wait(call, set_default_ttl)),
];

/// The same, and `touch`, for who does not wait.
pub(crate) static LATER: Functions = &[
    function!("touch", touch_later),
    function!("default_ttl", |call| post(call, default_ttl)),
    function!("set_default_ttl", |call| post(call, set_default_ttl)),
];

/// `touch(key, ttl)` answers whether the key was there.
pub(crate) fn touch(call: &Call) -> Returned {
    let ((target, key), ttl) = (call.keyed()?, call.ttl(3)?);
    call.push_boolean(on!(target, handle => handle.touch(key, ttl))?);
    Ok(1)
}

fn touch_later(call: &Call) -> Returned {
    let ((target, key), ttl) = (call.keyed()?, call.ttl(3)?);
    let made = match target {
        Target::Scope(scope) => scope.calls().touch(key, ttl)?,
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            transaction.call(move |transaction| transaction.touch(&key, ttl))
        }
    };
    later::begin(call, made, Outcome::Flag)
}

/// In seconds; nil for keys that live for ever.
fn default_ttl(call: &Call) -> Verb {
    let seconds = |ttl| match ttl {
        Ttl::After(time) => Outcome::Seconds(Some(time.as_secs_f64())),
        Ttl::Never | Ttl::Default => Outcome::Seconds(None),
    };
    Ok(call.own_scope()?.call(move |scope: &Scope| scope.default_ttl().map(seconds)))
}

/// `set_default_ttl(ttl)` answers the version of the commit; nil takes back what was set.
fn set_default_ttl(call: &Call) -> Verb {
    let (scope, ttl) = (call.own_scope()?, call.ttl(2)?);
    Ok(scope.call(move |scope| scope.set_default_ttl(ttl).map(Outcome::Count)))
}

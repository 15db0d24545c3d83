//! The table that `require` answers.

use crate::call::{self, Call, Returned, function};
use crate::handle::{self, Functions};
use crate::stack::{Place, Stack};
use crate::{error, scope, state, transaction, value, view, waiting, watch};

static FUNCTIONS: Functions =
    &[function!("open", reading state::open), function!("array", array), function!("binary", binary)];

/// In the registry when everything else that belongs there is.
static LOADED: Place = Place::new();

/// Pushes the module's table, and puts into the registry what its functions rely on. May raise.
pub(crate) fn push(stack: Stack) {
    // A module that is loaded again has the same arrays, errors and classes: what was made before keeps its meaning.
    if !stack.has_place(&LOADED) {
        call::register(stack);
        error::register(stack);
        value::register(stack);
        handle::register(stack);
        waiting::register(stack);
        for class in [&state::CLASS, &scope::CLASS, &transaction::CLASS, &watch::CLASS, &view::CLASS] {
            class.register(stack);
        }
        stack.push_boolean(true);
        stack.set_place(&LOADED);
    }
    stack.push_table(0, 8);
    handle::push_functions(stack, &[FUNCTIONS]);
    stack.push_null();
    stack.set_field(-2, "null");
    stack.push_bytes(env!("CARGO_PKG_VERSION").as_bytes());
    stack.set_field(-2, "version");
}

/// `array(table)` marks a table as an array, so that an empty one is `[]`; without a table it makes one.
fn array(call: &Call) -> Returned {
    call.set_top(1);
    if call.is_missing(1) {
        call.set_top(0);
        call.protected(0, 1, &|stack: Stack| {
            stack.push_table(0, 0);
            value::mark_array(stack, 1);
        })?;
        return Ok(1);
    }
    call.check_table(1)?;
    call.protected(1, 1, &|stack: Stack| value::mark_array(stack, 1))?;
    Ok(1)
}

/// `binary(string)` is written as binary even where it is valid UTF-8.
fn binary(call: &Call) -> Returned {
    if call.bytes(1).is_none() {
        return Err(call.expected(1, "string"));
    }
    call.set_top(1);
    call.protected(1, 1, &|stack: Stack| {
        handle::push_binary(stack, 1);
        stack.move_top(1);
    })?;
    Ok(1)
}

//! The table that `require` answers.

use crate::call::{self, Call, Returned, function};
use crate::handle::{self, Class, Functions};
use crate::stack::{Place, Stack};
use crate::{
    error, history, iterators, later, merge, queue, retention, retry, scope, state, transaction, ttl, usage, value,
    view, waiting, watch, yieldable,
};

static FUNCTIONS: Functions =
    &[function!("open", reading state::open), function!("array", array), function!("binary", binary)];

/// The functions that have no self: their arguments count from 1.
pub(crate) const MODULE_FUNCTIONS: [&str; 6] = ["open", "array", "binary", "sleep", "timeout", "poll"];

/// What the Lua side of the module makes coroutines and futures of.
static INTERNALS: Functions = &[
    function!("take", queue::take),
    function!("wait", queue::wait),
    function!("ring", queue::ring),
    function!("alarm", queue::alarm),
    function!("fd", queue::fd),
    function!("now", queue::now),
    function!("step", iterators::step),
    function!("retry", retry::retry),
    function!("pause", retry::pause),
    function!("is_yieldable", yieldable::is_yieldable),
    function!("failure", error::failure),
    function!("is_conflict", error::is_conflict_of),
    function!("raise", error::raise),
    function!("seconds", seconds),
];

static CLASSES: &[&Class] = &[&state::CLASS, &scope::CLASS, &transaction::CLASS, &watch::CLASS, &view::CLASS];

/// In the registry when everything else that belongs there is.
static LOADED: Place = Place::new();

/// A table for the Lua side, whose parts are there only once, also when they are loaded again: one queue has one reader.
static KEPT: Place = Place::new();

/// Pushes the module's table, and puts into the registry what its functions rely on. May raise.
pub(crate) fn push(stack: Stack) {
    // A module that is loaded again has the same arrays, errors and classes: what was made before keeps its meaning.
    if !stack.has_place(&LOADED) {
        call::register(stack);
        error::register(stack);
        value::register(stack);
        handle::register(stack);
        waiting::register(stack);
        for class in CLASSES {
            class.register(stack);
        }
        stack.push_table(0, 4);
        stack.set_place(&KEPT);
        stack.push_boolean(true);
        stack.set_place(&LOADED);
    }
    stack.push_table(0, 32);
    handle::push_functions(stack, &[FUNCTIONS, INTERNALS]);
    stack.push_table(0, 32);
    handle::push_functions(
        stack,
        &[later::FUNCTIONS, history::LATER, ttl::LATER, retention::LATER, usage::LATER, merge::LATER],
    );
    stack.set_field(-2, "later");
    stack.push_place(&KEPT);
    stack.set_field(-2, "kept");
    stack.push_table(0, 4);
    handle::push_classes(stack, CLASSES);
    stack.set_field(-2, "classes");
    stack.push_null();
    stack.set_field(-2, "null");
    handle::push_markers(stack);
    stack.push_bytes(env!("CARGO_PKG_VERSION").as_bytes());
    stack.set_field(-2, "version");
}

/// `seconds(n, name)`: a time to wait, checked for the function of that name, whose first argument it is.
fn seconds(call: &Call) -> Returned {
    let name = MODULE_FUNCTIONS.into_iter().find(|name| call.bytes(2) == Some(name.as_bytes())).unwrap_or(call.name);
    match call.on_behalf_of(name).seconds(1)? {
        Some(time) => call.push_float(time.as_secs_f64()),
        None => call.push_nil(),
    }
    Ok(1)
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

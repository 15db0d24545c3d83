//! Watches: an object that a `for` loop calls for the next change.

use crate::call::{Call, Returned, function};
use crate::handle::{self, Class, Functions, Object, WATCH};
use crate::stack::Stack;
use crate::{outcome, waiting};
use std::time::Duration;

/// The methods of a state and a scope.
pub(crate) static TREE: Functions =
    &[function!("watch", watch), function!("named_watches", named_watches), function!("forget_watch", forget_watch)];

static OWN: Functions = &[
    function!("next", next),
    function!("save", save),
    function!("close", close),
    function!("version", version),
    function!("name", name),
];

pub(crate) static CLASS: Class = Class {
    place: &WATCH,
    name: "Watch",
    metamethods: &[&[
        function!("__gc", handle::collect),
        function!("__close", close),
        function!("__call", iterate),
        function!("__tostring", tostring),
    ]],
    methods: &[OWN],
};

/// `watch(pattern)` or `watch{pattern = , since = , name = }`.
fn watch(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    let options = call.watch_options(2)?;
    if !call.is_missing(3) {
        return Err(call.bad_argument(3, "options and pattern go into one table: watch { pattern = …, name = … }"));
    }
    handle::push(**call, Object::Watch(scope.watch(options)?, scope))?;
    Ok(1)
}

/// A table of versions by name.
fn named_watches(call: &Call) -> Returned {
    outcome::push_watches(**call, &call.own_scope()?.named_watches()?)?;
    Ok(1)
}

fn forget_watch(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    call.push_boolean(scope.forget_watch(call.text(2)?)?);
    Ok(1)
}

/// `next(timeout)`: waits so many seconds, or as long as it takes.
fn next(call: &Call) -> Returned {
    let timeout = call.seconds(2)?;
    push_next(call, timeout)
}

/// `for change in watch do`; what else the loop hands over is not needed.
fn iterate(call: &Call) -> Returned {
    push_next(call, None)
}

fn push_next(call: &Call, timeout: Option<Duration>) -> Returned {
    let (watch, _) = call.own_watch()?;
    let change = waiting::interruptible(**call, || match timeout {
        Some(most) => watch.next_timeout(most),
        None => watch.next(),
    })?;
    outcome::push_change(**call, change.as_ref())?;
    Ok(1)
}

fn save(call: &Call) -> Returned {
    call.own_watch()?.0.save()?;
    Ok(0)
}

fn close(call: &Call) -> Returned {
    call.own_watch()?.0.close()?;
    Ok(0)
}

/// The last version that the script is done with.
fn version(call: &Call) -> Returned {
    call.push_count(call.own_watch()?.0.version());
    Ok(1)
}

fn name(call: &Call) -> Returned {
    let (watch, _) = call.own_watch()?;
    match watch.name() {
        Some(name) => call.protected(0, 1, &|stack: Stack| stack.push_bytes(name.as_bytes()))?,
        None => call.push_nil(),
    }
    Ok(1)
}

fn tostring(call: &Call) -> Returned {
    let (watch, _) = call.own_watch()?;
    let name = watch.name().map(|name| format!("{name}, ")).unwrap_or_default();
    let closed = if watch.is_closed() { ", closed" } else { "" };
    let text = &*format!("Watch ({name}at version {}{closed})", watch.version());
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

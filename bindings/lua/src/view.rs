//! A scope as it was at a moment of the past: the reading verbs, and nothing that changes.

use crate::call::{Call, Returned, function};
use crate::handle::{Class, Functions, VIEW};
use crate::scope::{META, READING};
use crate::stack::Stack;

static OWN: Functions = &[function!("version", version)];

pub(crate) static CLASS: Class = Class {
    place: &VIEW,
    name: "View",
    metamethods: &[META, &[function!("__tostring", tostring)]],
    methods: &[READING, OWN],
};

/// The version of the newest commit that it shows.
fn version(call: &Call) -> Returned {
    call.push_count(call.own_view()?.version());
    Ok(1)
}

fn tostring(call: &Call) -> Returned {
    let text = &*format!("View (at version {})", call.own_view()?.version());
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

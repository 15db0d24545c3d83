//! What keys were, and taking changes back.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::handle::{self, Functions, Object, Owner};
use crate::outcome::Outcome;
use crate::stack::Stack;
use crate::verb::{Verb, post, wait};
use crate::{iterators, later, value};
use llmspell_state_persistence::value::Tape;
use llmspell_state_persistence::{Call as Made, Difference, Document, Revision, Undone};
use std::sync::{Arc, Mutex};

/// The methods of a state and a scope.
pub(crate) static TREE: Functions = &[
    function!("as_run", as_run),
    function!("history", |call| wait(call, history)),
    function!("at", |call| wait(call, at)),
    function!("diff", |call| iterators::push(call, diff(call)?.wait()?)),
    function!("revert", |call| wait(call, revert)),
    function!("revert_to", |call| wait(call, revert_to)),
    function!("undo", |call| wait(call, undo)),
];

/// The same for who does not wait.
pub(crate) static LATER: Functions = &[
    function!("history", |call| post(call, history)),
    function!("at", |call| post(call, at)),
    function!("diff", |call| later::begin(call, diff(call)?, Outcome::Handle)),
    function!("revert", |call| post(call, revert)),
    function!("revert_to", |call| post(call, revert_to)),
    function!("undo", |call| post(call, undo)),
];

/// `as_run{actor = , run = , reason = }`: the same scope, whose changes carry those.
fn as_run(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    handle::push(**call, Object::Scope(scope.as_run(call.origin(2)?)?))?;
    Ok(1)
}

/// `history(key, {limit = n})`: an array of revisions.
fn history(call: &Call) -> Verb {
    let scope = call.own_scope()?;
    let (key, limit) = (call.text(2)?.to_owned(), call.limit(3)?);
    Ok(scope.call(move |scope| scope.history(&key, limit).map(Outcome::Revisions)))
}

fn at(call: &Call) -> Verb {
    let scope = call.own_scope()?;
    let when = call.moment(2)?;
    Ok(scope.call(move |scope| scope.at(when).map(|view| Outcome::Handle(Object::View(view)))))
}

/// `diff(from, to, pattern)`: an iterator.
fn diff(call: &Call) -> Result<Made<Object>, Failure> {
    let scope = call.own_scope()?;
    let (from, to, pattern) = (call.moment(2)?, call.moment_or_now(3)?, call.pattern(4)?.to_owned());
    Ok(scope.call(move |scope| {
        let differences = scope.diff(from, to, &pattern)?;
        Ok(Object::Differences(Arc::new(Mutex::new(differences)), Owner::Scope(scope.clone())))
    }))
}

/// Answers the version of the commit.
fn revert(call: &Call) -> Verb {
    let scope = call.own_scope()?;
    let (key, when) = (call.text(2)?.to_owned(), call.moment(3)?);
    Ok(scope.call(move |scope| scope.revert(&key, when).map(Outcome::Count)))
}

/// Answers how many keys that has changed.
fn revert_to(call: &Call) -> Verb {
    let scope = call.own_scope()?;
    let (when, pattern) = (call.moment(2)?, call.pattern(3)?.to_owned());
    Ok(scope.call(move |scope| scope.revert_to(when, &pattern).map(Outcome::Count)))
}

/// `undo{actor = , run = , since = }`: a table of what came of it.
fn undo(call: &Call) -> Verb {
    let scope = call.own_scope()?;
    let what = call.undo(2)?;
    Ok(scope.call(move |scope| scope.undo(what).map(Outcome::Undone)))
}

/// The parsed value, if there is one.
pub(crate) fn readable(value: Option<&Document>) -> Result<Option<&Tape>, Failure> {
    value.map(value::readable).transpose()
}

/// An array of tables.
pub(crate) fn push_revisions(stack: Stack, revisions: &[Revision]) -> Result<(), Failure> {
    let told = revisions.iter().map(|revision| Ok((revision, readable(revision.value.as_ref())?)));
    let told = &*told.collect::<Result<Vec<_>, Failure>>()?;
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(told.len(), 0);
        value::mark_array(stack, 1);
        for (n, (revision, value)) in (1..).zip(told) {
            make_revision(stack, revision, *value);
            stack.set_item(1, n);
        }
    })
}

/// The revision as a table. May raise.
fn make_revision(stack: Stack, revision: &Revision, value: Option<&Tape>) {
    stack.push_table(0, 7);
    stack.push_bytes(revision.operation.name().as_bytes());
    stack.set_field(-2, "operation");
    set_value(stack, "value", value);
    stack.push_count(revision.version);
    stack.set_field(-2, "version");
    value::set_time(stack, "time", revision.time_ms);
    value::set_origin(stack, &revision.origin);
}

/// A field of the table on top, unless there is nothing. May raise.
fn set_value(stack: Stack, name: &str, value: Option<&Tape>) {
    if let Some(tape) = value {
        value::make(stack, tape);
        stack.set_field(-2, name);
    }
}

/// The difference as a table, or nil.
pub(crate) fn push_difference(stack: Stack, difference: Option<&Difference>) -> Result<(), Failure> {
    let Some(Difference { key, from, to }) = difference else {
        stack.push_nil();
        return Ok(());
    };
    let (old, new) = (readable(from.as_ref())?, readable(to.as_ref())?);
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        stack.push_bytes(key.as_bytes());
        stack.set_field(1, "key");
        set_value(stack, "old", old);
        set_value(stack, "new", new);
    })
}

/// What came of taking changes back, as a table.
pub(crate) fn push_undone(stack: Stack, undone: &Undone) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        for (name, count) in [("version", undone.version), ("keys", undone.keys)] {
            stack.push_count(count);
            stack.set_field(1, name);
        }
        value::make_places(stack, "scope", &undone.refused);
        stack.set_field(1, "refused");
    })
}

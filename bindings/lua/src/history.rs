//! What keys were, and taking changes back.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::handle::{self, Functions, Object};
use crate::stack::Stack;
use crate::{iterators, value};
use llmspell_state_persistence::value::Tape;
use llmspell_state_persistence::{Difference, Differences, Document, Revision, Undone};

/// The methods of a state and a scope.
pub(crate) static TREE: Functions = &[
    function!("as_run", as_run),
    function!("history", history),
    function!("at", at),
    function!("diff", diff),
    function!("revert", revert),
    function!("revert_to", revert_to),
    function!("undo", undo),
];

/// `as_run{actor = , run = , reason = }`: the same scope, whose changes carry those.
fn as_run(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    handle::push(**call, Object::Scope(scope.as_run(call.origin(2)?)?))?;
    Ok(1)
}

/// `history(key, {limit = n})`: an array of revisions.
fn history(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    let (key, limit) = (call.text(2)?, call.limit(3)?);
    push_revisions(**call, &scope.history(key, limit)?)?;
    Ok(1)
}

fn at(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    handle::push(**call, Object::View(scope.at(call.moment(2)?)?))?;
    Ok(1)
}

/// `diff(from, to, pattern)`: a function that gives the next difference.
fn diff(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    let differences = scope.diff(call.moment(2)?, call.moment_or_now(3)?, call.pattern(4)?)?;
    iterators::push(call, Object::Differences(Box::new(differences)))
}

pub(crate) fn next_difference(call: &Call, differences: &mut Differences) -> Returned {
    match differences.next().transpose()? {
        Some(difference) => push_difference(**call, &difference)?,
        None => call.push_nil(),
    }
    Ok(1)
}

/// Answers the version of the commit.
fn revert(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    let key = call.text(2)?;
    call.push_count(scope.revert(key, call.moment(3)?)?);
    Ok(1)
}

/// Answers how many keys that has changed.
fn revert_to(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    call.push_count(scope.revert_to(call.moment(2)?, call.pattern(3)?)?);
    Ok(1)
}

/// `undo{actor = , run = , since = }`: a table of what came of it.
fn undo(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    push_undone(**call, &scope.undo(call.undo(2)?)?)?;
    Ok(1)
}

fn readable(value: Option<&Document>) -> Result<Option<&Tape>, Failure> {
    value.map(value::readable).transpose()
}

/// An array of tables.
fn push_revisions(stack: Stack, revisions: &[Revision]) -> Result<(), Failure> {
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

/// The difference as a table.
fn push_difference(stack: Stack, difference: &Difference) -> Result<(), Failure> {
    let (key, old, new) = (&*difference.key, readable(difference.from.as_ref())?, readable(difference.to.as_ref())?);
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        stack.push_bytes(key.as_bytes());
        stack.set_field(1, "key");
        set_value(stack, "old", old);
        set_value(stack, "new", new);
    })
}

/// What came of taking changes back, as a table.
fn push_undone(stack: Stack, undone: &Undone) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        for (name, count) in [("version", undone.version), ("keys", undone.keys)] {
            stack.push_count(count);
            stack.set_field(1, name);
        }
        stack.push_table(undone.refused.len(), 0);
        value::mark_array(stack, 2);
        for (n, (scope, key)) in (1..).zip(&undone.refused) {
            stack.push_table(0, 2);
            value::make_names(stack, scope);
            stack.set_field(3, "scope");
            stack.push_bytes(key.as_bytes());
            stack.set_field(3, "key");
            stack.set_item(2, n);
        }
        stack.set_field(1, "refused");
    })
}

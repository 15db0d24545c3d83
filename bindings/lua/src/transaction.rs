//! Transactions: explicit ones, and functions that run until they commit.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::handle::{self, Class, Functions, Object, TRANSACTION};
use crate::scope::{META, READING, WRITING};
use crate::stack::Stack;
use llmspell_state_persistence::limits;
use mlua::ffi;

static OWN: Functions = &[function!("commit", commit), function!("rollback", rollback)];

pub(crate) static CLASS: Class = Class {
    place: &TRANSACTION,
    name: "Transaction",
    metamethods: &[META, &[function!("__close", close), function!("__tostring", tostring)]],
    methods: &[READING, WRITING, OWN],
};

/// `transaction()` begins an explicit one; `transaction(fn)` is `transact(fn)`.
pub(crate) fn transaction(call: &Call) -> Returned {
    if !call.is_missing(2) {
        return transact(call);
    }
    handle::push(**call, Object::Transaction(call.own_scope()?.transaction()?))?;
    Ok(1)
}

/// `transact(fn, {attempts = n})`: commits when `fn` returns, and answers what it returned; rolls back when it raises.
pub(crate) fn transact(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    call.check_function(2)?;
    let attempts = call.attempts(3)?.unwrap_or(limits::ATTEMPTS);
    scope.transact_with(attempts, Failure::is_conflict, |transaction| {
        call.set_top(2);
        call.push_copy(2);
        handle::push(**call, Object::Transaction(transaction.clone()))?;
        call.call_back(1, ffi::LUA_MULTRET)?;
        Ok(call.top() - 2)
    })
}

/// Answers the version of the commit.
fn commit(call: &Call) -> Returned {
    call.push_count(call.own_transaction()?.commit()?);
    Ok(1)
}

fn rollback(call: &Call) -> Returned {
    call.own_transaction()?.rollback()?;
    Ok(0)
}

/// `<close>`: rolls back what was not committed.
fn close(call: &Call) -> Returned {
    let transaction = call.own_transaction()?;
    if transaction.is_active() {
        transaction.rollback()?;
    }
    Ok(0)
}

fn tostring(call: &Call) -> Returned {
    let text = if call.own_transaction()?.is_active() { "Transaction (active)" } else { "Transaction (finished)" };
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

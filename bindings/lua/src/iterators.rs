//! `keys`, `items`, `pairs` and `diff`: one function per listing, which a `for` loop or a script calls for the next.

use crate::args::read;
use crate::call::{Call, Reads, Returned, enter};
use crate::error::Failure;
use crate::handle::{self, Object};
use crate::outcome::Outcome;
use crate::stack::Stack;
use llmspell_state_persistence::Select;
use mlua::ffi::{self, lua_State};
use std::os::raw::c_int;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) fn keys(call: &Call) -> Returned {
    push(call, begin_keys(call)?)
}

pub(crate) fn items(call: &Call) -> Returned {
    push(call, begin_items(call)?)
}

/// `pairs(handle)`: every item.
pub(crate) fn pairs(call: &Call) -> Returned {
    let items = read!(call.source()?, handle => handle.items(Select::default()))?;
    push(call, Object::Items(Arc::new(Mutex::new(items)), call.owner()?))
}

/// The listing of the keys that arguments of `keys` ask for.
pub(crate) fn begin_keys(call: &Call) -> Result<Object, Failure> {
    let keys = read!(call.source()?, handle => handle.keys(call.select(2)?))?;
    Ok(Object::Keys(Arc::new(Mutex::new(keys)), call.owner()?))
}

pub(crate) fn begin_items(call: &Call) -> Result<Object, Failure> {
    let items = read!(call.source()?, handle => handle.items(call.select(2)?))?;
    Ok(Object::Items(Arc::new(Mutex::new(items)), call.owner()?))
}

/// Answers the function that gives the next of an iterator.
pub(crate) fn push(call: &Call, iterator: Object) -> Returned {
    handle::push(**call, iterator)?;
    call.protected(1, 1, &|stack: Stack| stack.push_closure(next_entry))?;
    Ok(1)
}

unsafe extern "C-unwind" fn next_entry(state: *mut lua_State) -> usize {
    // SAFETY: called by Lua, and this frame owns nothing.
    unsafe { enter(state, "next", Reads::Never, |call| next(call, ffi::lua_upvalueindex(1))) }
}

/// `step(iterator)`: the next, waiting for it.
pub(crate) fn step(call: &Call) -> Returned {
    next(call, 1)
}

fn next(call: &Call, index: c_int) -> Returned {
    // Not locked while Lua runs: a finalizer may ask the same iterator.
    let next = match handle::object(call, index) {
        Some(Object::Keys(keys, _)) => {
            Outcome::Key(keys.lock().unwrap_or_else(PoisonError::into_inner).next().transpose()?)
        }
        Some(Object::Items(items, _)) => {
            Outcome::Item(items.lock().unwrap_or_else(PoisonError::into_inner).next().transpose()?)
        }
        Some(Object::Differences(differences, _)) => {
            Outcome::Difference(differences.lock().unwrap_or_else(PoisonError::into_inner).next().transpose()?)
        }
        _ => return Err(gone()),
    };
    next.push(**call)
}

/// The error of an iterator that is no more.
#[cold]
pub(crate) fn gone() -> Failure {
    Failure::invalid("the iterator was collected")
}

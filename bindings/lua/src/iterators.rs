//! `keys`, `items`, `pairs` and `diff`: one function per listing, which a `for` loop or a script calls for the next.

use crate::args::read;
use crate::call::{Call, Returned, enter};
use crate::error::Failure;
use crate::handle::{self, Object};
use crate::stack::Stack;
use crate::{history, value};
use llmspell_state_persistence::{Items, Keys, Select};
use mlua::ffi::{self, lua_State};

pub(crate) fn keys(call: &Call) -> Returned {
    let source = call.source()?;
    let keys = read!(source, handle => handle.keys(call.select(2)?))?;
    push(call, Object::Keys(Box::new(keys)))
}

pub(crate) fn items(call: &Call) -> Returned {
    let source = call.source()?;
    let items = read!(source, handle => handle.items(call.select(2)?))?;
    push(call, Object::Items(Box::new(items)))
}

/// `pairs(handle)`: every item.
pub(crate) fn pairs(call: &Call) -> Returned {
    let items = read!(call.source()?, handle => handle.items(Select::default()))?;
    push(call, Object::Items(Box::new(items)))
}

/// Answers the function that gives the next of an iterator.
pub(crate) fn push(call: &Call, iterator: Object) -> Returned {
    handle::push(**call, iterator)?;
    call.protected(1, 1, &|stack: Stack| stack.push_closure(next_entry))?;
    Ok(1)
}

unsafe extern "C-unwind" fn next_entry(state: *mut lua_State) -> usize {
    // SAFETY: called by Lua, and this frame owns nothing.
    unsafe { enter(state, "next", 0, next) }
}

fn next(call: &Call) -> Returned {
    match handle::object(call, ffi::lua_upvalueindex(1)) {
        Some(Object::Keys(keys)) => next_key(call, keys),
        Some(Object::Items(items)) => next_item(call, items),
        Some(Object::Differences(differences)) => history::next_difference(call, differences),
        _ => Err(Failure::invalid("the iterator was collected")),
    }
}

fn next_key(call: &Call, keys: &mut Keys) -> Returned {
    let Some(key) = keys.next().transpose()? else {
        call.push_nil();
        return Ok(1);
    };
    let key = &*key;
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(key.as_bytes()))?;
    Ok(1)
}

fn next_item(call: &Call, items: &mut Items) -> Returned {
    let Some((key, entry)) = items.next().transpose()? else {
        call.push_nil();
        return Ok(1);
    };
    let (key, tape) = (&*key, value::readable(entry.document())?);
    call.protected(0, 2, &|stack: Stack| {
        stack.push_bytes(key.as_bytes());
        value::make(stack, tape);
    })?;
    Ok(2)
}

//! The data operations of a state, a scope and a transaction.

use crate::args::{Source, Target, on, read};
use crate::call::{Call, Returned, function};
use crate::handle::{self, Class, Functions, Object, SCOPE};
use crate::stack::Stack;
use crate::{history, iterators, merge, outcome, retention, transaction, ttl, usage, value, watch};
use llmspell_state_persistence::{Document, Entry};
use std::sync::Arc;

/// The methods that every handle has, views of the past included.
pub(crate) static READING: Functions = &[
    function!("get", get),
    function!("entry", entry),
    function!("get_many", get_many),
    function!("keys", iterators::keys),
    function!("items", iterators::items),
    function!("count", count),
    function!("exists", exists),
    function!("scope", scope),
];

/// The methods that every handle has apart from views.
pub(crate) static WRITING: Functions = &[
    function!("set", reading set),
    function!("set_many", reading set_many),
    function!("touch", ttl::touch),
    function!("delete", delete),
    function!("clear", clear),
    function!("modify", reading late modify),
    function!("increment", increment),
    function!("append", reading append),
    function!("merge", reading merge),
];

/// The metamethods that every handle has.
pub(crate) static META: Functions =
    &[function!("__gc", handle::collect), function!("__pairs", iterators::pairs), function!("__len", len)];

/// The methods of a state and a scope.
pub(crate) static TREE: Functions = &[
    function!("scopes", scopes),
    function!("transaction", transaction::transaction),
    function!("transact", transaction::transact),
];

pub(crate) static CLASS: Class = Class {
    place: &SCOPE,
    name: "Scope",
    metamethods: &[META, &[function!("__tostring", tostring)]],
    methods: &[
        READING,
        WRITING,
        TREE,
        watch::TREE,
        history::TREE,
        ttl::TREE,
        retention::TREE,
        usage::TREE,
        merge::TREE,
    ],
};

fn get(call: &Call) -> Returned {
    let (source, key) = (call.source()?, call.text(2)?);
    match read!(source, handle => handle.entry(key))? {
        Some(entry) => value::push(**call, entry.document())?,
        None => push_default(call),
    }
    Ok(1)
}

/// Pushes argument 3 for what is not there.
fn push_default(call: &Call) {
    call.set_top(3);
}

fn entry(call: &Call) -> Returned {
    let (source, key) = (call.source()?, call.text(2)?);
    let Some(entry) = read!(source, handle => handle.entry(key))? else {
        call.push_nil();
        return Ok(1);
    };
    outcome::push_entry(**call, &entry)?;
    Ok(1)
}

/// A table of the found values by key.
fn get_many(call: &Call) -> Returned {
    let source = call.source()?;
    call.check_table(2)?;
    let keys = value::read_texts(call, 2).map_err(|problem| call.bad_argument(2, &problem))?;
    let entries = read!(source, handle => handle.get_many(&keys))?;
    // Copies of the keys: making the table may run finalizers, which may empty the one that holds the keys.
    let found = keys.iter().zip(entries).filter_map(|(key, entry)| Some(((*key).to_owned(), entry?)));
    outcome::push_found(**call, &found.collect::<Vec<_>>())?;
    Ok(1)
}

fn set(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    call.check_value(3)?;
    let options = call.set_options(4)?;
    let document = value::read(call, 3, target.max_value_bytes())?;
    match target {
        Target::Scope(scope) => {
            call.push_count(scope.set_with(key, document, options)?);
            Ok(1)
        }
        // Before the commit there is no version to answer.
        Target::Transaction(transaction) => {
            transaction.set_with(key, document, options)?;
            Ok(0)
        }
    }
}

fn set_many(call: &Call) -> Returned {
    let target = call.target()?;
    call.check_table(2)?;
    let ttl = call.ttl_option(3)?;
    let members = value::read_members(call, 2, target.max_value_bytes())?;
    match target {
        Target::Scope(scope) => {
            call.push_count(scope.set_many_with(members, ttl)?);
            Ok(1)
        }
        Target::Transaction(transaction) => {
            transaction.set_many_with(members, ttl)?;
            Ok(0)
        }
    }
}

fn delete(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let was_there = match call.if_version(3)? {
        None => on!(target, handle => handle.delete(key))?,
        Some(version) => on!(target, handle => handle.delete_if(key, version))?,
    };
    call.push_boolean(was_there);
    Ok(1)
}

fn clear(call: &Call) -> Returned {
    let target = call.target()?;
    let pattern = call.pattern(2)?;
    call.push_count(on!(target, handle => handle.clear(pattern))?);
    Ok(1)
}

fn count(call: &Call) -> Returned {
    let source = call.source()?;
    let pattern = call.pattern(2)?;
    call.push_count(read!(source, handle => handle.count(pattern))?);
    Ok(1)
}

/// `#handle`; Lua passes the operand twice.
fn len(call: &Call) -> Returned {
    call.push_count(read!(call.source()?, handle => handle.count("*"))?);
    Ok(1)
}

fn exists(call: &Call) -> Returned {
    let (source, key) = (call.source()?, call.text(2)?);
    call.push_boolean(read!(source, handle => handle.exists(key))?);
    Ok(1)
}

/// `modify(key, fn, default)` answers the new value.
fn modify(call: &Call) -> Returned {
    // Owned, all of it: the callback may do anything to our handle and our stack.
    let (target, key) = call.keyed()?;
    let key = key.to_owned();
    call.check_function(3)?;
    let max_bytes = target.max_value_bytes();
    let default = if call.is_missing(4) { None } else { Some(value::read(call, 4, max_bytes)?) };
    call.set_top(3);
    let new_value = |current: Option<&Arc<Entry>>| {
        call.set_top(3);
        call.push_copy(3);
        match current.map(|entry| entry.document()).or(default.as_ref()) {
            Some(document) => value::push(**call, document)?,
            None => call.push_nil(),
        }
        call.call_back(1, 1)?;
        call.make_room()?;
        value::read(call, call.top(), max_bytes)
    };
    let entry = match target {
        Target::Scope(scope) => scope.clone().modify(&key, new_value)?,
        Target::Transaction(transaction) => transaction.clone().modify(&key, new_value)?,
    };
    value::push(**call, entry.document())?;
    Ok(1)
}

fn increment(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let by = call.addend(3)?;
    value::push_number(**call, on!(target, handle => handle.increment(key, by))?)?;
    Ok(1)
}

fn append(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let item = value::read(call, 3, target.max_value_bytes())?;
    call.push_count(on!(target, handle => handle.append(key, item))?);
    Ok(1)
}

/// `merge(key, patch)` answers the merged value.
fn merge(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let patch = value::read(call, 3, target.max_value_bytes())?;
    let merged: Document = on!(target, handle => handle.merge(key, patch))?;
    value::push(**call, &merged)?;
    Ok(1)
}

fn scope(call: &Call) -> Returned {
    let (source, name) = (call.source()?, call.text(2)?);
    let nested = match source {
        Source::Scope(scope) => Object::Scope(scope.scope(name)?),
        Source::Transaction(transaction) => Object::Transaction(transaction.scope(name)?),
        Source::View(view) => Object::View(view.scope(name)?),
    };
    handle::push(**call, nested)?;
    Ok(1)
}

fn scopes(call: &Call) -> Returned {
    let names = &*call.own_scope()?.scopes()?;
    call.protected(0, 1, &|stack: Stack| value::make_names(stack, names))?;
    Ok(1)
}

fn tostring(call: &Call) -> Returned {
    let scope = call.own_scope()?;
    let text = &*format!("Scope ({})", scope.name());
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

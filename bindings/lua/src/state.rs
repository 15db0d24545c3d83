//! Opening and closing a store.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::handle::{self, Class, Functions, Object, STATE};
use crate::scope::{META, READING, TREE, WRITING};
use crate::stack::Stack;
use crate::{history, merge, outcome, retention, ttl, usage, value, watch};
use llmspell_state_persistence::{State, StateConfig};
use mlua::ffi;
use std::os::raw::c_int;
use std::path::PathBuf;

static OWN: Functions = &[
    function!("close", close),
    function!("version", version),
    function!("store_id", store_id),
    function!("verify", verify),
];

pub(crate) static CLASS: Class = Class {
    place: &STATE,
    name: "State",
    metamethods: &[META, &[function!("__close", close), function!("__tostring", tostring)]],
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
        OWN,
        usage::OWN,
    ],
};

/// `open()`, `open(path)`, `open(options)`, `open(path, options)`.
pub(crate) fn open(call: &Call) -> Returned {
    handle::push(**call, Object::State(State::with_config(config(call)?)?))?;
    Ok(1)
}

/// The settings of `open`.
pub(crate) fn config(call: &Call) -> Result<StateConfig, Failure> {
    Ok(match call.kind(1) {
        ffi::LUA_TNONE | ffi::LUA_TNIL => options(call, 2)?,
        ffi::LUA_TTABLE if call.is_missing(2) => options(call, 1)?,
        ffi::LUA_TSTRING => {
            let options = options(call, 2)?;
            if options.persistence_path.is_some() {
                return Err(call
                    .bad_argument(2, "the path and persistence_path are two names of one setting; give one of them"));
            }
            StateConfig { persistence_path: Some(path(call)), ..options }
        }
        _ => return Err(call.expected(1, "path or table of options")),
    })
}

/// File names are bytes.
fn path(call: &Call) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(call.bytes(1).unwrap_or_default()).into()
}

/// Settings by name; the core knows which there are.
fn options(call: &Call, index: c_int) -> Result<StateConfig, Failure> {
    /// Settings are short.
    const MAX_BYTES: usize = 1 << 20;
    if call.is_missing(index) {
        return Ok(StateConfig::default());
    }
    call.check_table(index)?;
    match value::read(call, index, MAX_BYTES)?.to_value() {
        serde_json::Value::Object(options) => Ok(StateConfig::from_options(options)?),
        _ => Err(call.bad_argument(index, "options are named, as in { sync_mode = \"NORMAL\" }")),
    }
}

fn close(call: &Call) -> Returned {
    call.own_state()?.close()?;
    Ok(0)
}

/// The version of the newest commit.
fn version(call: &Call) -> Returned {
    call.push_count(call.own_state()?.version()?);
    Ok(1)
}

fn store_id(call: &Call) -> Returned {
    let state = call.own_state()?;
    let id = state.store_id();
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(id.as_bytes()))?;
    Ok(1)
}

/// A table of what was looked at and what is wrong.
fn verify(call: &Call) -> Returned {
    outcome::push_verification(**call, &call.own_state()?.verify()?)?;
    Ok(1)
}

fn tostring(call: &Call) -> Returned {
    let state = call.own_state()?;
    let place = state.config().persistence_path.as_ref().map_or("in memory".into(), |path| path.to_string_lossy());
    let closed = if state.is_closed() { ", closed" } else { "" };
    let text = &*format!("State ({place}{closed})");
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

//! The Lua binding: what `require "llmspell_state.native"` loads, and what a Rust host registers with [`create_module`].
//!
//! Lua reports errors by jumping over the frames in between, which is sound only over frames that own nothing. So every
//! function here has two halves. The first owns Rust values and makes only calls of Lua's interface that cannot raise
//! (`call.rs`). Whatever can run out of memory, which means everything that makes a string, a table or a userdata, runs
//! inside a protected call that borrows and owns nothing (`Call::protected`). An error is raised when all values are gone.

// Lua's interface is a C interface; the reasons are where the blocks are.
#![allow(unsafe_code)]

mod args;
mod bell;
mod call;
mod error;
mod handle;
mod history;
mod iterators;
mod later;
mod merge;
mod module;
mod outcome;
mod queue;
mod retention;
mod retry;
mod scope;
mod stack;
mod state;
mod transaction;
mod ttl;
mod usage;
mod value;
mod verb;
mod view;
mod waiting;
mod watch;
mod yieldable;

use mlua::ffi::lua_State;

/// Makes the module's table in a Lua of a Rust host.
///
/// ```ignore
/// lua.register_module("llmspell_state", llmspell_state_lua::create_module(&lua)?)?;
/// ```
///
/// # Errors
/// Lua is out of memory.
pub fn create_module(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    // SAFETY: `exec_raw` runs the closure protected, and `module::push` leaves one table on the stack.
    unsafe { lua.exec_raw((), |state| module::push(stack::Stack::new(state))) }
}

/// The loader that `require "llmspell_state.native"` looks up by name.
///
/// # Safety
/// To be called by Lua.
#[cfg(feature = "module")]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_llmspell_state_native(state: *mut lua_State) -> usize {
    // SAFETY: Lua calls with a valid state and expects errors to be raised; no Rust value is alive.
    module::push(unsafe { stack::Stack::new(state) });
    1
}

//! Waits that end when the user wants it: an interpreter answers Ctrl-C by setting a hook, which would only run when our wait
//! is over.

use crate::error::Failure;
use crate::stack::{Place, Stack};
use mlua::ffi::{self, lua_State};
use std::cell::Cell;

/// The main thread of Lua, on which hosts set such a hook; nothing where it is not known.
static MAIN: Place = Place::new();

thread_local! {
    /// Whose hook is looked at, and what it was when the wait began.
    static LOOKED_AT: Cell<(*mut lua_State, Hook)> = const { Cell::new((std::ptr::null_mut(), None)) };
}

type Hook = Option<unsafe extern "C-unwind" fn(*mut lua_State, *mut ffi::lua_Debug)>;

/// Puts what is needed into the registry. May raise.
pub(crate) fn register(stack: Stack) {
    if stack.push_main_thread() {
        stack.set_place(&MAIN);
    }
}

/// The hook that is set on a thread of Lua.
fn hook(state: *mut lua_State) -> Hook {
    // SAFETY: the thread is alive; reading its hook does nothing else.
    unsafe { ffi::lua_gethook(state) }
}

fn is_wanted() -> bool {
    let (state, before) = LOOKED_AT.get();
    let now = hook(state);
    now.is_some() && now.map(|f| f as usize) != before.map(|f| f as usize)
}

/// Runs `work`, whose waits end with `Cancelled` when a hook is set meanwhile. Lua does not run in it.
pub(crate) fn interruptible<T>(
    stack: Stack,
    work: impl FnOnce() -> llmspell_state_persistence::Result<T>,
) -> Result<T, Failure> {
    stack.push_place(&MAIN);
    let main = stack.thread(-1);
    stack.pop(1);
    let state = if main.is_null() { stack.raw() } else { main };
    let outer = LOOKED_AT.replace((state, hook(state)));
    let done = llmspell_state_persistence::interruptible(is_wanted, work);
    LOOKED_AT.set(outer);
    Ok(done?)
}

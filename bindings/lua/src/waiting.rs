//! Waits that end when the user wants it: an interpreter answers Ctrl-C by setting a hook, which would only run when our wait
//! is over.

use crate::error::Failure;
use crate::stack::{Place, Stack};
use llmspell_state_persistence::{Error, ErrorKind};
use mlua::ffi::{self, lua_State};
use std::cell::Cell;

/// The main thread of Lua, on which hosts set such a hook; nothing where it is not known.
static MAIN: Place = Place::new();

thread_local! {
    /// Whose hook is looked at, and what it was when the wait began.
    static LOOKED_AT: Cell<(*mut lua_State, usize)> = const { Cell::new((std::ptr::null_mut(), 0)) };
}

/// Puts what is needed into the registry. May raise.
pub(crate) fn register(stack: Stack) {
    if stack.push_main_thread() {
        stack.set_place(&MAIN);
    }
}

/// The hook that is set on a thread of Lua, as an address.
fn hook(state: *mut lua_State) -> usize {
    // SAFETY: the thread is alive; reading its hook does nothing else.
    unsafe { ffi::lua_gethook(state) }.map_or(0, |hook| hook as usize)
}

fn is_wanted() -> bool {
    let (state, before) = LOOKED_AT.get();
    let now = hook(state);
    now != 0 && now != before
}

/// Looks at a hook, and at the one before again in the end.
struct Looking((*mut lua_State, usize));

impl Looking {
    fn new(stack: Stack) -> Self {
        stack.push_place(&MAIN);
        let main = stack.thread(-1);
        stack.pop(1);
        let state = if main.is_null() { stack.raw() } else { main };
        Self(LOOKED_AT.replace((state, hook(state))))
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKED_AT.set(self.0);
    }
}

/// Runs `work`, whose waits end with `Cancelled` when a hook is set meanwhile. Lua does not run in it.
pub(crate) fn interruptible<T>(
    stack: Stack,
    work: impl FnOnce() -> llmspell_state_persistence::Result<T>,
) -> Result<T, Failure> {
    let _looking = Looking::new(stack);
    Ok(llmspell_state_persistence::interruptible(is_wanted, work)?)
}

/// Runs `work`, which waits only as long as what it is given says so; `Cancelled` when a hook was set. Lua does not run in it.
pub(crate) fn while_not_interrupted(stack: Stack, work: impl FnOnce(&dyn Fn() -> bool)) -> Result<(), Failure> {
    let _looking = Looking::new(stack);
    work(&|| !is_wanted());
    if is_wanted() {
        return Err(Error::new(ErrorKind::Cancelled, "interrupted while waiting").into());
    }
    Ok(())
}

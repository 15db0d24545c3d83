//! Whether a coroutine may yield, in Lua 5.1, which knows but does not tell. (Later versions and `LuaJIT` have
//! `coroutine.isyieldable`.)

use crate::call::{Call, Returned};

#[cfg(any(feature = "lua53", feature = "lua54"))]
#[allow(clippy::unnecessary_wraps)] // as every function
pub(crate) fn is_yieldable(call: &Call) -> Returned {
    // SAFETY: only looks.
    call.push_boolean(unsafe { mlua::ffi::lua_isyieldable(call.raw()) } != 0);
    Ok(1)
}

#[cfg(not(any(feature = "lua53", feature = "lua54")))]
pub(crate) use counted::is_yieldable;

#[cfg(not(any(feature = "lua53", feature = "lua54")))]
mod counted {
    use super::{Call, Returned};
    use crate::error::Failure;
    use crate::stack::{Place, Stack};
    use mlua::ffi::{self, lua_State};
    use std::cell::Cell;
    use std::os::raw::{c_int, c_uchar, c_ushort, c_void};

    /// The beginning of Lua 5.1's `lua_State`; 5.1.5 was the last, so it does not change any more.
    #[repr(C)]
    struct Head {
        next: *mut c_void,
        marks: [c_uchar; 3],
        pointers: [*mut c_void; 9],
        sizes: [c_int; 2],
        /// Calls that C is inside of, in all threads below this one, and so many of them there were when this one was resumed.
        /// A yield is allowed when they are equal.
        c_calls: c_ushort,
        base_c_calls: c_ushort,
    }

    /// In the registry once it was found out: whether this Lua counts like that.
    static COUNTS: Place = Place::new();

    thread_local! {
        /// What a trial has seen so far: its depth, and whether all was as expected.
        static TRIAL: Cell<(c_ushort, bool)> = const { Cell::new((0, false)) };
    }

    /// # Safety
    /// `state` is a thread of a Lua 5.1 that is not `LuaJIT`.
    unsafe fn calls(state: *mut lua_State) -> (c_ushort, c_ushort) {
        unsafe {
            let head = state.cast::<Head>();
            ((*head).c_calls, (*head).base_c_calls)
        }
    }

    pub(crate) fn is_yieldable(call: &Call) -> Returned {
        call.push_place(&COUNTS);
        if call.is_missing(-1) {
            let counts = !is_jit() && try_out(**call)?;
            call.protected(0, 0, &|stack: Stack| {
                stack.push_boolean(counts);
                stack.set_place(&COUNTS);
            })?;
            call.push_boolean(counts);
        }
        // The main thread is never resumed. Where nothing is known, nothing is said to be allowed.
        let is_main = call.push_main_thread();
        let yieldable = call.boolean(-2) && !is_main && {
            // SAFETY: tried out above.
            let (now, base) = unsafe { calls(call.raw()) };
            now == base
        };
        call.push_boolean(yieldable);
        Ok(1)
    }

    /// `LuaJIT` loads the same module; its threads look different.
    fn is_jit() -> bool {
        // SAFETY: looks for a name that only LuaJIT has.
        cfg!(feature = "luajit") || unsafe { !libc::dlsym(libc::RTLD_DEFAULT, c"luaJIT_setmode".as_ptr()).is_null() }
    }

    /// Resumes a coroutine, goes through three calls of C in it, and looks whether the count follows.
    fn try_out(stack: Stack) -> Result<bool, Failure> {
        TRIAL.set((0, true));
        stack.protected(0, 0, &|stack: Stack| {
            // SAFETY: a new thread, and a function for it.
            unsafe {
                let thread = ffi::lua_newthread(stack.raw());
                ffi::lua_pushcfunction(thread, crate::stack::declared(trial));
                let mut results = 0;
                let status = ffi::lua_resume(thread, stack.raw(), 0, &raw mut results);
                if status != ffi::LUA_OK {
                    TRIAL.set((0, false));
                }
            }
        })?;
        let (depth, as_expected) = TRIAL.get();
        Ok(as_expected && depth == DEEPEST)
    }

    const DEEPEST: c_ushort = 3;

    unsafe extern "C-unwind" fn trial(state: *mut lua_State) -> usize {
        let (depth, as_expected) = TRIAL.get();
        // SAFETY: called by Lua.
        let (now, base) = unsafe { calls(state) };
        TRIAL.set((depth, as_expected && base > 0 && now == base + depth));
        if depth < DEEPEST {
            TRIAL.set((depth + 1, TRIAL.get().1));
            // SAFETY: called by Lua, owning nothing.
            unsafe {
                ffi::lua_pushcfunction(state, crate::stack::declared(trial));
                ffi::lua_call(state, 0, 0);
            }
        }
        0
    }
}

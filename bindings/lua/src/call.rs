//! The boundary: how a function of this module is entered, how it fails, and what runs protected.

use crate::error::{self, Failure};
use crate::stack::{Place, Stack};
use mlua::ffi::{self, lua_State};
use std::cell::Cell;
use std::ops::Deref;
use std::os::raw::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many values a function leaves on the stack, or why it failed.
pub(crate) type Returned = Result<c_int, Failure>;

/// Slots for reading the deepest value: a key, a value and a metatable to compare with for every level.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // a small constant
const ROOM: c_int = 4 * (llmspell_state_persistence::limits::VALUE_DEPTH as c_int + 16);

/// When a function reads values, which may need more room on the stack than Lua promises.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Never,
    /// Before it does anything, so that it can be begun anew with more room.
    First,
    /// When it has done something.
    Late,
}

/// One call from Lua: its stack, and what its errors need to know.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    stack: Stack,
    /// The function's name, as in `bad argument #1 to 'get'`.
    pub(crate) name: &'static str,
    /// Whether the stack has room for reading the deepest value.
    pub(crate) has_room: bool,
}

impl Deref for Call {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

/// A named function of this module for Lua, made from `fn(&Call) -> Returned`; `reading` and `reading late` mark those
/// that read values.
macro_rules! function {
    ($name:literal, $body:expr) => {
        $crate::call::function!($name, $body, $crate::call::Reads::Never)
    };
    ($name:literal, reading late $body:expr) => {
        $crate::call::function!($name, $body, $crate::call::Reads::Late)
    };
    ($name:literal, reading $body:expr) => {
        $crate::call::function!($name, $body, $crate::call::Reads::First)
    };
    ($name:literal, $body:expr, $reads:expr) => {{
        unsafe extern "C-unwind" fn called_by_lua(state: *mut mlua::ffi::lua_State) -> usize {
            unsafe { $crate::call::enter(state, $name, $reads, $body) }
        }
        ($name, called_by_lua as $crate::stack::Function)
    }};
}
pub(crate) use function;

/// Runs `body`, once more when it needs more room; raises its error when nothing is alive any more.
///
/// # Safety
/// To be called by Lua, from a frame that owns nothing.
#[inline]
pub(crate) unsafe fn enter(
    state: *mut lua_State,
    name: &'static str,
    reads: Reads,
    body: impl Fn(&Call) -> Returned + Copy,
) -> usize {
    unsafe {
        let stack = Stack::new(state);
        let arguments = stack.top();
        // Every coroutine has a stack of its own; enlarging it costs more than the call.
        let mut has_room = reads == Reads::Late || reads == Reads::First && stack.is_main_thread();
        loop {
            if has_room {
                // While nothing is alive: Lua 5.1 raises when it has no memory for this.
                ffi::luaL_checkstack(state, ROOM, c"too many nested calls".as_ptr());
            }
            match run(&Call { stack, name, has_room }, body) {
                NO_ROOM => {
                    stack.set_top(arguments);
                    has_room = true;
                }
                results => return usize::try_from(results).unwrap_or_else(|_| ffi::lua_error(state)),
            }
        }
    }
}

/// Instead of a number of results: there is an error on top, or there is no room for a value.
const FAILED: c_int = -1;
const NO_ROOM: c_int = -2;

/// The number of results. A panic ends here and becomes an error.
#[inline]
fn run(call: &Call, body: impl Fn(&Call) -> Returned) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(|| body(call))) {
        Ok(Ok(results)) => return results,
        Ok(Err(Failure::NoRoom)) if !call.has_room => return NO_ROOM,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::panic(panic.as_ref()),
    };
    error::push(call, &failure);
    FAILED
}

impl Call {
    /// The same call, whose errors name another function.
    pub(crate) fn on_behalf_of(&self, name: &'static str) -> Self {
        Self { name, ..*self }
    }
}

/// How deep callbacks may nest in a thread: `LuaJIT` has no bound of its own and would run out of the C stack.
const CALLBACKS: u32 = 150;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Call {
    /// Calls the script's function below its `arguments`. An error of it is on top in place of all of them.
    pub(crate) fn call_back(&self, arguments: c_int, results: c_int) -> Result<(), Failure> {
        let depth = DEPTH.get();
        if depth == CALLBACKS {
            return Err(Failure::invalid(format!("'{}' is nested in itself deeper than {CALLBACKS} times", self.name)));
        }
        DEPTH.set(depth + 1);
        let done = self.try_call(arguments, results);
        DEPTH.set(depth);
        if done { Ok(()) } else { Err(Failure::raised(self.stack)) }
    }
}

/// A protected call's work: a function and what it borrows.
#[derive(Clone, Copy)]
struct Job {
    run: unsafe fn(*const (), Stack),
    data: *const (),
}

thread_local! {
    /// The work of the innermost protected call of this thread. It is not handed over as an argument because a script with the
    /// debug library can call `run_job` with arguments of its own.
    static JOB: Cell<Option<Job>> = const { Cell::new(None) };
}

/// `run_job`, made once: making it anew could raise.
static RUN_JOB: Place = Place::new();

unsafe extern "C-unwind" fn run_job(state: *mut lua_State) -> usize {
    // SAFETY: called by Lua.
    let stack = unsafe { Stack::new(state) };
    if let Some(job) = JOB.get() {
        // SAFETY: the job's owner waits in `protected`, below us on this thread's stack.
        unsafe { (job.run)(job.data, stack) };
    }
    stack.top().unsigned_abs() as usize
}

/// Puts into the registry what `protected` needs.
pub(crate) fn register(stack: Stack) {
    stack.push_function(run_job);
    stack.set_place(&RUN_JOB);
}

impl Stack {
    /// Makes sure that a value can be read after a callback, in which Lua may have shrunk the stack.
    pub(crate) fn make_room(self) -> Result<(), Failure> {
        self.protected(0, 0, &|stack: Stack| stack.need_room(ROOM))
    }

    /// Runs `work`, which may make calls that raise, on a stack of its own with the top `arguments` values, and puts the first
    /// `results` values that it leaves in their place.
    ///
    /// `work` is `Copy`, so it owns nothing; inside it nothing may be owned either, since an error jumps over its frames,
    /// and it must not panic.
    pub(crate) fn protected<F: Fn(Stack) + Copy>(
        self,
        arguments: c_int,
        results: c_int,
        work: &F,
    ) -> Result<(), Failure> {
        unsafe fn run<F: Fn(Stack)>(data: *const (), stack: Stack) {
            // SAFETY: `data` is the `work` of the `protected` that waits for us.
            unsafe { (*data.cast::<F>())(stack) };
        }
        let outer = JOB.replace(Some(Job { run: run::<F>, data: (&raw const *work).cast() }));
        self.push_place(&RUN_JOB);
        self.move_top(-1 - arguments);
        let done = self.try_call(arguments, results);
        JOB.set(outer);
        if done { Ok(()) } else { Err(Failure::raised(self)) }
    }
}

//! Errors as Lua sees them: objects with `kind` and `message`.

use crate::call::{Call, Returned};
use crate::stack::{Place, Stack};
use llmspell_state_persistence::value::ValueError;
use llmspell_state_persistence::{Error, ErrorKind};
use mlua::ffi::{self, lua_State};
use std::any::Any;
use std::os::raw::c_int;

/// Why a call fails.
pub(crate) enum Failure {
    /// An error of the core.
    Error(Error),
    /// An error that Lua raised in a callback or for want of memory; it is on top of the stack and passes through unchanged.
    Raised {
        /// It is one of our own conflicts: the callback may run again.
        conflict: bool,
    },
    /// A value is deeper than there is room for on the stack: the call is to be begun anew with more. Nothing was done.
    NoRoom,
    /// A bug of this library, caught before it could reach Lua's frames.
    Panic(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        Self::Error(error.into())
    }
}

impl Failure {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Error(Error::invalid(message))
    }

    /// The error that is on top of the stack.
    pub(crate) fn raised(stack: Stack) -> Self {
        Self::Raised { conflict: is_conflict(stack) }
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let text =
            payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
        Self::Panic(format!("a bug in llmspell_state, please report it: {}", text.unwrap_or("no message")))
    }

    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Error(error) => error.kind() == ErrorKind::Conflict,
            Self::Raised { conflict } => *conflict,
            Self::NoRoom | Self::Panic(_) => false,
        }
    }
}

/// The field `kind` of an error object. Every kind is named here, so that a new one is not forgotten.
const fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "Invalid",
        ErrorKind::Conflict => "Conflict",
        ErrorKind::PermissionDenied => "PermissionDenied",
        ErrorKind::QuotaExceeded => "QuotaExceeded",
        ErrorKind::Busy => "Busy",
        ErrorKind::Closed => "Closed",
        ErrorKind::Forked => "Forked",
        ErrorKind::Cancelled => "Cancelled",
        ErrorKind::NotFound => "NotFound",
        ErrorKind::WrongKey => "WrongKey",
        ErrorKind::Corrupt => "Corrupt",
        ErrorKind::DataLoss => "DataLoss",
        ErrorKind::UnknownFormat => "UnknownFormat",
        ErrorKind::BackupInvalid => "BackupInvalid",
        ErrorKind::MigrationFailed => "MigrationFailed",
        ErrorKind::DiskFull => "DiskFull",
        ErrorKind::Io => "Io",
        ErrorKind::CommitUnknown => "CommitUnknown",
    }
}

/// The metatable of error objects.
static METATABLE: Place = Place::new();

/// Pushes the error object of `failure`, which names the place that called us, in place of everything else.
pub(crate) fn push(call: &Call, failure: &Failure) {
    push_placeless(call, failure);
    if !matches!(failure, Failure::Raised { .. }) {
        let _ = call.protected(1, 1, &set_position);
    }
}

/// Sets where an error object is from, unless it says so already. May raise.
fn set_position(stack: Stack) {
    if stack.kind(1) != ffi::LUA_TTABLE {
        return;
    }
    stack.push_bytes(b"where");
    stack.push_member(1);
    if stack.is_missing(-1) {
        // Level 0 is the protected call, 1 the function of this module, 2 its caller.
        push_position(stack, 2);
        stack.set_field(1, "where");
    }
    stack.set_top(1);
}

/// Pushes the error object of `failure`, which may be raised elsewhere, in place of everything else.
pub(crate) fn push_placeless(call: &Call, failure: &Failure) {
    let (kind, message) = match failure {
        Failure::Raised { .. } => return,
        Failure::Error(error) => (kind_name(error.kind()), error.message()),
        Failure::NoRoom => ("Invalid", "a value is nested too deep for the room on Lua's stack"),
        Failure::Panic(message) => ("Panic", message.as_str()),
    };
    call.set_top(0);
    // Without memory for the object, Lua's own error is on top instead: raised just the same.
    let _ = call.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        stack.push_bytes(kind.as_bytes());
        stack.set_field(1, "kind");
        stack.push_bytes(message.as_bytes());
        stack.set_field(1, "message");
        stack.set_metatable(1, &METATABLE);
    });
}

/// The Lua side of this module, whose lines say nothing to a user.
const OWN_SOURCES: [&[u8]; 4] = [
    b"/llmspell_state/methods.lua",
    b"/llmspell_state/tasks.lua",
    b"/llmspell_state/loop.lua",
    b"/llmspell_state/futures.lua",
];

/// The first level from `level` on that is not of this module.
fn users_level(stack: Stack, mut level: c_int) -> c_int {
    /// No call of this module is deeper in its own code.
    const DEEPEST: c_int = 20;
    while level < DEEPEST {
        // SAFETY: plain data, which Lua fills; what it points to lives as long as the function that is active.
        let is_own = unsafe {
            let mut info = std::mem::zeroed::<ffi::lua_Debug>();
            if ffi::lua_getstack(stack.raw(), level, &raw mut info) == 0 {
                return level;
            }
            if ffi::lua_getinfo(stack.raw(), c"S".as_ptr(), &raw mut info) == 0 || info.source.is_null() {
                return level;
            }
            let source = std::ffi::CStr::from_ptr(info.source).to_bytes();
            // Lua 5.1 counts calls that ended by calling another function.
            source == b"=(tail call)" || OWN_SOURCES.iter().any(|own| source.ends_with(own))
        };
        if !is_own {
            return level;
        }
        level += 1;
    }
    level
}

/// Pushes `file:line` of the user's code at `level` or below it, or nil.
fn push_position(stack: Stack, level: c_int) {
    /// Lua shortens the file's name to 60 bytes.
    const SHOWN: usize = 100;
    unsafe { ffi::luaL_where(stack.raw(), users_level(stack, level)) };
    // A copy: Lua 5.1 may run a finalizer before it copies, which may let go of the string.
    let (mut copy, mut len) = ([0; SHOWN], 0);
    if let Some(text) = stack.bytes(-1) {
        let text = text.strip_suffix(b": ").unwrap_or(text);
        len = text.len().min(SHOWN);
        copy[..len].copy_from_slice(&text[..len]);
    }
    if len == 0 {
        stack.push_nil();
    } else {
        stack.push_bytes(&copy[..len]);
    }
}

/// Whether the value on top is an error object of kind `Conflict`.
fn is_conflict(stack: Stack) -> bool {
    if stack.kind(-1) != ffi::LUA_TTABLE || !stack.has_metatable(-1, &METATABLE) {
        return false;
    }
    let table = stack.top();
    let mut found = false;
    stack.push_nil();
    while !found && stack.next(table) {
        found = stack.bytes(-2) == Some(b"kind") && stack.bytes(-1) == Some(b"Conflict");
        stack.pop(1);
    }
    stack.set_top(table);
    found
}

/// `failure(kind, message)` makes an error object.
pub(crate) fn failure(call: &Call) -> Returned {
    let name = call.text(1)?;
    let Some(kind) = ErrorKind::ALL.into_iter().find(|kind| kind_name(*kind) == name) else {
        return Err(call.bad_argument(1, "no kind of errors"));
    };
    push_placeless(call, &Error::new(kind, call.text(2)?).into());
    Ok(1)
}

/// `is_conflict(e)`: whether it may be tried again.
#[allow(clippy::unnecessary_wraps)] // as every function
pub(crate) fn is_conflict_of(call: &Call) -> Returned {
    call.set_top(1);
    call.push_boolean(is_conflict(**call));
    Ok(1)
}

/// `raise(e)`: raises it, an error object of ours as one of the place that called the module.
pub(crate) fn raise(call: &Call) -> Returned {
    call.set_top(1);
    if call.kind(1) == ffi::LUA_TTABLE && call.has_metatable(1, &METATABLE) {
        call.protected(1, 1, &set_position)?;
    }
    Err(Failure::raised(**call))
}

/// Puts the metatable into the registry. May raise.
pub(crate) fn register(stack: Stack) {
    stack.push_table(0, 3);
    stack.push_function(tostring);
    stack.set_field(-2, "__tostring");
    stack.push_function(concat);
    stack.set_field(-2, "__concat");
    stack.push_bytes(b"llmspell_state.Error");
    stack.set_field(-2, "__name");
    stack.set_place(&METATABLE);
}

/// `Conflict: the message at file:line`.
unsafe extern "C-unwind" fn tostring(state: *mut lua_State) -> usize {
    // SAFETY: called by Lua; owns nothing, so it may raise.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        ffi::lua_settop(state, 1);
        push_field(state, c"kind");
        ffi::lua_pushstring(state, c": ".as_ptr());
        push_field(state, c"message");
        let has_position = push_field(state, c"where");
        if has_position {
            ffi::lua_pushstring(state, c" at ".as_ptr());
            ffi::lua_insert(state, -2);
        }
        ffi::lua_concat(state, ffi::lua_gettop(state) - 1);
    }
    1
}

/// Pushes a field of the error object at index 1 as text; nothing when it is nil.
unsafe fn push_field(state: *mut lua_State, name: &std::ffi::CStr) -> bool {
    unsafe {
        ffi::lua_pushstring(state, name.as_ptr());
        ffi::lua_rawget(state, 1);
        if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
            ffi::lua_settop(state, -2);
            return false;
        }
        ffi::luaL_tolstring(state, -1, std::ptr::null_mut());
        ffi::lua_remove(state, -2);
    }
    true
}

unsafe extern "C-unwind" fn concat(state: *mut lua_State) -> usize {
    // SAFETY: called by Lua; owns nothing, so it may raise.
    unsafe {
        ffi::lua_settop(state, 2);
        ffi::luaL_tolstring(state, 1, std::ptr::null_mut());
        ffi::luaL_tolstring(state, 2, std::ptr::null_mut());
        ffi::lua_concat(state, 2);
    }
    1
}

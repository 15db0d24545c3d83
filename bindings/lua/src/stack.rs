//! Lua's stack: the part of its C interface that this crate uses, each call with what it may do.
//!
//! Indices are the callers' business: they name only what they pushed or were given.

use llmspell_state_persistence::Number;
use mlua::ffi;
use std::os::raw::{c_char, c_int, c_void};

/// Whether this Lua keeps integers and floats apart.
pub(crate) const HAS_INTEGERS: bool = cfg!(any(feature = "lua53", feature = "lua54"));
/// Without integers, whole numbers are exact up to 2^53.
pub(crate) const EXACT: u64 = 1 << 53;

/// A function for Lua. It answers the number of its results in a whole register: `LuaJIT` reads all 64 bits, of which C leaves
/// the upper half undefined when the answer is an `int`.
pub(crate) type Function = unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> usize;

/// The same function with the type that Lua's interface names.
pub(crate) fn declared(function: Function) -> ffi::lua_CFunction {
    // SAFETY: only Lua calls it, and reads an `int`, which is the lower half of the answer.
    unsafe { std::mem::transmute::<Function, ffi::lua_CFunction>(function) }
}

/// A place in the registry, known by its address, so that no name can clash with it and no string is made to find it.
pub(crate) struct Place(u8);

impl Place {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    fn address(&'static self) -> *const c_void {
        (&raw const self.0).cast()
    }
}

/// A running function's view of a Lua state.
#[derive(Clone, Copy)]
pub(crate) struct Stack(*mut ffi::lua_State);

/// Calls that cannot raise.
impl Stack {
    /// # Safety
    /// `state` is valid, and stays so while the value is used.
    pub(crate) unsafe fn new(state: *mut ffi::lua_State) -> Self {
        Self(state)
    }

    pub(crate) fn raw(self) -> *mut ffi::lua_State {
        self.0
    }

    pub(crate) fn top(self) -> c_int {
        unsafe { ffi::lua_gettop(self.0) }
    }

    pub(crate) fn set_top(self, top: c_int) {
        unsafe { ffi::lua_settop(self.0, top) }
    }

    pub(crate) fn pop(self, n: c_int) {
        self.set_top(-n - 1);
    }

    /// One of `ffi::LUA_T…`.
    pub(crate) fn kind(self, index: c_int) -> c_int {
        unsafe { ffi::lua_type(self.0, index) }
    }

    pub(crate) fn is_missing(self, index: c_int) -> bool {
        self.kind(index) <= ffi::LUA_TNIL
    }

    /// The name of the type of what is at `index`.
    pub(crate) fn kind_name(self, index: c_int) -> &'static str {
        let name = unsafe { std::ffi::CStr::from_ptr(ffi::lua_typename(self.0, self.kind(index))) };
        name.to_str().unwrap_or("unknown")
    }

    /// The bytes of a string; numbers are not strings here. They live as long as the string stays on the stack.
    pub(crate) fn bytes(&self, index: c_int) -> Option<&[u8]> {
        if self.kind(index) != ffi::LUA_TSTRING {
            return None;
        }
        let mut len = 0;
        // SAFETY: of a string that is one already, this makes and raises nothing.
        unsafe {
            let start = ffi::lua_tolstring(self.0, index, &raw mut len);
            Some(std::slice::from_raw_parts(start.cast(), len))
        }
    }

    pub(crate) fn boolean(self, index: c_int) -> bool {
        unsafe { ffi::lua_toboolean(self.0, index) != 0 }
    }

    /// The number at `index`. Where Lua has no integers, a whole number that it knows exactly is one.
    pub(crate) fn number(self, index: c_int) -> Option<Number> {
        if self.kind(index) != ffi::LUA_TNUMBER {
            return None;
        }
        let float = unsafe { ffi::lua_tonumber(self.0, index) };
        #[cfg(any(feature = "lua53", feature = "lua54"))]
        if unsafe { ffi::lua_isinteger(self.0, index) } != 0 {
            return Some(Number::Int(unsafe { ffi::lua_tointegerx(self.0, index, std::ptr::null_mut()) }));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // whole and in range
        if !HAS_INTEGERS
            && float.fract() == 0.0
            && float.abs() <= EXACT as f64
            && float.to_bits() != (-0.0_f64).to_bits()
        {
            return Some(Number::Int(float as i64));
        }
        Some(Number::Float(float))
    }

    /// A whole number, also one that is written as a float.
    pub(crate) fn integer(self, index: c_int) -> Option<i64> {
        match self.number(index)? {
            Number::Int(int) => Some(int),
            #[allow(clippy::cast_possible_truncation)] // whole and in range
            Number::Float(float) => (float.fract() == 0.0 && float.abs() < 9e18).then_some(float as i64),
        }
    }

    /// The thread of Lua at `index`; null for anything else.
    pub(crate) fn thread(self, index: c_int) -> *mut ffi::lua_State {
        unsafe { ffi::lua_tothread(self.0, index) }
    }

    /// Pushes the main thread, where it is known: before Lua 5.2 only the main thread itself knows that it is.
    pub(crate) fn push_main_thread(self) -> bool {
        #[cfg(any(feature = "lua53", feature = "lua54"))]
        unsafe {
            ffi::lua_rawgeti(self.0, ffi::LUA_REGISTRYINDEX, ffi::LUA_RIDX_MAINTHREAD) == ffi::LUA_TTHREAD
        }
        #[cfg(not(any(feature = "lua53", feature = "lua54")))]
        unsafe {
            ffi::lua_pushthread(self.0) == 1
        }
    }

    pub(crate) fn is_main_thread(self) -> bool {
        let is_main = unsafe { ffi::lua_pushthread(self.0) } == 1;
        self.pop(1);
        is_main
    }

    pub(crate) fn userdata(self, index: c_int) -> *mut c_void {
        unsafe { ffi::lua_touserdata(self.0, index) }
    }

    /// The length of a table or a userdata, without metamethods.
    pub(crate) fn raw_len(self, index: c_int) -> usize {
        unsafe { ffi::lua_rawlen(self.0, index) }
    }

    /// Pushes item `n` of a table, without metamethods.
    pub(crate) fn push_item(self, table: c_int, n: usize) {
        #[allow(clippy::cast_possible_wrap)] // a table has fewer items
        unsafe {
            ffi::lua_rawgeti(self.0, table, n as ffi::lua_Integer);
        }
    }

    /// Replaces the key on top with the next key and its value, or removes it and answers false.
    pub(crate) fn next(self, table: c_int) -> bool {
        // SAFETY: the key is one that `next` gave, and no code ran that could have changed the table.
        unsafe { ffi::lua_next(self.0, table) != 0 }
    }

    pub(crate) fn push_nil(self) {
        unsafe { ffi::lua_pushnil(self.0) }
    }

    pub(crate) fn push_boolean(self, value: bool) {
        unsafe { ffi::lua_pushboolean(self.0, c_int::from(value)) }
    }

    pub(crate) fn push_integer(self, value: i64) {
        #[cfg(any(feature = "lua53", feature = "lua54"))]
        unsafe {
            ffi::lua_pushinteger(self.0, value);
        }
        // Callers that must not round have checked before.
        #[cfg(not(any(feature = "lua53", feature = "lua54")))]
        #[allow(clippy::cast_precision_loss)]
        self.push_float(value as f64);
    }

    pub(crate) fn push_count(self, value: u64) {
        self.push_integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(crate) fn push_float(self, value: f64) {
        unsafe { ffi::lua_pushnumber(self.0, value) }
    }

    pub(crate) fn push_copy(self, index: c_int) {
        unsafe { ffi::lua_pushvalue(self.0, index) }
    }

    /// Moves the value on top down to `index`.
    pub(crate) fn move_top(self, index: c_int) {
        unsafe { ffi::lua_insert(self.0, index) }
    }

    /// Pushes what the registry holds at `place`.
    pub(crate) fn push_place(self, place: &'static Place) {
        unsafe {
            ffi::lua_rawgetp(self.0, ffi::LUA_REGISTRYINDEX, place.address());
        }
    }

    /// Whether the registry holds something at `place`.
    pub(crate) fn has_place(self, place: &'static Place) -> bool {
        self.push_place(place);
        let missing = self.is_missing(-1);
        self.pop(1);
        !missing
    }

    /// Whether the metatable of what is at `index` is the one that the registry holds at `place`.
    pub(crate) fn has_metatable(self, index: c_int, place: &'static Place) -> bool {
        if unsafe { ffi::lua_getmetatable(self.0, index) } == 0 {
            return false;
        }
        self.push_place(place);
        let same = unsafe { ffi::lua_rawequal(self.0, -1, -2) } != 0;
        self.pop(2);
        same
    }

    /// Calls the function below its `arguments`. On false, the error is on top in place of all of them.
    pub(crate) fn try_call(self, arguments: c_int, results: c_int) -> bool {
        unsafe { ffi::lua_pcall(self.0, arguments, results, 0) == ffi::LUA_OK }
    }
}

/// Calls that can raise: only where no frame in between owns anything.
impl Stack {
    pub(crate) fn need_room(self, slots: c_int) {
        unsafe { ffi::luaL_checkstack(self.0, slots, c"a value is nested too deep".as_ptr()) }
    }

    pub(crate) fn push_bytes(self, bytes: &[u8]) {
        unsafe {
            ffi::lua_pushlstring(self.0, bytes.as_ptr().cast::<c_char>(), bytes.len());
        }
    }

    /// Pushes the null of this module, which is also that of other libraries.
    pub(crate) fn push_null(self) {
        unsafe { ffi::lua_pushlightuserdata(self.0, std::ptr::null_mut()) }
    }

    pub(crate) fn push_function(self, function: Function) {
        unsafe { ffi::lua_pushcfunction(self.0, declared(function)) }
    }

    /// Pushes `function` with the value on top as its only upvalue, in place of it.
    pub(crate) fn push_closure(self, function: Function) {
        unsafe { ffi::lua_pushcclosure(self.0, declared(function), 1) }
    }

    pub(crate) fn push_table(self, items: usize, members: usize) {
        let room = |n: usize| c_int::try_from(n).unwrap_or(c_int::MAX);
        unsafe { ffi::lua_createtable(self.0, room(items), room(members)) }
    }

    /// A block of memory that Lua collects.
    pub(crate) fn push_userdata(self, bytes: usize) -> *mut c_void {
        #[cfg(feature = "lua54")]
        unsafe {
            ffi::lua_newuserdatauv(self.0, bytes, 0)
        }
        #[cfg(not(feature = "lua54"))]
        unsafe {
            ffi::lua_newuserdata(self.0, bytes)
        }
    }

    /// Replaces the key on top by the table's value, without metamethods.
    pub(crate) fn push_member(self, table: c_int) {
        unsafe {
            ffi::lua_rawget(self.0, table);
        }
    }

    /// `table[key] = value` with key and value from the top, without metamethods.
    pub(crate) fn set_member(self, table: c_int) {
        unsafe { ffi::lua_rawset(self.0, table) }
    }

    /// `table[name] = value` with the value from the top, without metamethods.
    pub(crate) fn set_field(self, table: c_int, name: &str) {
        let table = unsafe { ffi::lua_absindex(self.0, table) };
        self.push_bytes(name.as_bytes());
        self.move_top(-2);
        self.set_member(table);
    }

    /// `table[n] = value` with the value from the top, without metamethods.
    pub(crate) fn set_item(self, table: c_int, n: u32) {
        unsafe { ffi::lua_rawseti(self.0, table, ffi::lua_Integer::from(n)) }
    }

    /// Gives what is at `index` the metatable that the registry holds at `place`.
    pub(crate) fn set_metatable(self, index: c_int, place: &'static Place) {
        let index = unsafe { ffi::lua_absindex(self.0, index) };
        self.push_place(place);
        // A script with the debug library may have put anything there.
        if self.kind(-1) == ffi::LUA_TTABLE {
            unsafe {
                ffi::lua_setmetatable(self.0, index);
            }
        } else {
            self.pop(1);
        }
    }

    /// Moves the value on top into the registry.
    pub(crate) fn set_place(self, place: &'static Place) {
        unsafe { ffi::lua_rawsetp(self.0, ffi::LUA_REGISTRYINDEX, place.address()) }
    }
}

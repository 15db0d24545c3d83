//! Userdata: what Lua holds of a state, a scope, a transaction, a watch, a view, an iterator, and binary.
//!
//! A script with the debug library can give any userdata any metatable, so a metatable proves nothing. Every block of ours
//! starts with a seal that is drawn at random once per process and that no script can read.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::merge::{self, Marker, Merging};
use crate::queue;
use crate::stack::{Function, Place, Stack};
use llmspell_state_persistence::{Differences, Items, Keys, Retry, Scope, State, Transaction, View, Waiter, Watch};
use mlua::ffi;
use std::hash::{BuildHasher as _, RandomState};
use std::os::raw::c_int;
use std::sync::{Arc, Mutex, OnceLock};

/// What a userdata holds.
pub(crate) enum Object {
    State(State),
    Scope(Scope),
    Transaction(Transaction),
    /// A listing and where it came from. A thread of the core may be fetching its next page.
    Keys(Arc<Mutex<Keys>>, Owner),
    Items(Arc<Mutex<Items>>, Owner),
    Differences(Arc<Mutex<Differences>>, Owner),
    Watch(Watch, Scope),
    View(View),
    Retry(Retry),
    /// A wait for a watch to have something.
    Waiter(Watch, Waiter),
    /// A merge whose conflicts a script answers; nothing while it goes on.
    Merging(Option<Box<Merging>>),
    Marker(&'static Marker),
    Queue(queue::Held),
}

/// Whose listing it is.
pub(crate) enum Owner {
    Scope(Scope),
    Transaction(Transaction),
    View(View),
}

pub(crate) static STATE: Place = Place::new();
pub(crate) static SCOPE: Place = Place::new();
pub(crate) static TRANSACTION: Place = Place::new();
pub(crate) static WATCH: Place = Place::new();
pub(crate) static VIEW: Place = Place::new();
pub(crate) static MARKER: Place = Place::new();
static INTERNAL: Place = Place::new();
static BINARY: Place = Place::new();

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Seal([u64; 2]);

impl Seal {
    fn of_slots() -> Self {
        static SEAL: OnceLock<Seal> = OnceLock::new();
        *SEAL.get_or_init(Self::draw)
    }

    fn of_binary() -> Self {
        static SEAL: OnceLock<Seal> = OnceLock::new();
        *SEAL.get_or_init(Self::draw)
    }

    fn draw() -> Self {
        Self([RandomState::new().hash_one(0), RandomState::new().hash_one(1)])
    }
}

#[repr(C)]
struct Slot {
    seal: Seal,
    /// Nothing after it was collected: a finalizer can be called by hand, and a value can outlive its finalizer.
    object: Option<Object>,
}

// Lua promises no more.
const _: () = assert!(align_of::<Slot>() <= 8);

/// The slot in the userdata at `index`.
#[inline]
fn slot(stack: Stack, index: c_int) -> Option<*mut Slot> {
    if stack.kind(index) != ffi::LUA_TUSERDATA || stack.raw_len(index) != size_of::<Slot>() {
        return None;
    }
    let slot = stack.userdata(index).cast::<Slot>();
    // SAFETY: the block is large enough for a seal, and Lua aligns its blocks for any scalar.
    (unsafe { (*slot).seal } == Seal::of_slots()).then_some(slot)
}

/// The object in the userdata at `index`. To be let go before Lua can run, which may finalize it.
#[inline]
#[allow(clippy::mut_from_ref)] // the object is not part of the call; the lifetime says until when Lua keeps it
pub(crate) fn object(call: &Call, index: c_int) -> Option<&mut Object> {
    // SAFETY: sealed, so it is a slot of ours; one reference at a time because every function takes one object.
    slot(**call, index).and_then(|slot| unsafe { (*slot).object.as_mut() })
}

/// The queue in the userdata at `index`, for as long as Lua does not run.
pub(crate) fn held_queue<'s>(stack: Stack, index: c_int) -> Option<&'s queue::Held> {
    // SAFETY: sealed, and only looked at.
    match slot(stack, index).and_then(|slot| unsafe { (*slot).object.as_ref() }) {
        Some(Object::Queue(held)) => Some(held),
        _ => None,
    }
}

/// Pushes a userdata that holds `object`.
pub(crate) fn push(stack: Stack, object: Object) -> Result<(), Failure> {
    let metatable = match object {
        Object::State(_) => &STATE,
        Object::Scope(_) => &SCOPE,
        Object::Transaction(_) => &TRANSACTION,
        Object::Watch(..) => &WATCH,
        Object::View(_) => &VIEW,
        Object::Marker(_) => &MARKER,
        Object::Keys(..)
        | Object::Items(..)
        | Object::Differences(..)
        | Object::Retry(_)
        | Object::Waiter(..)
        | Object::Merging(_)
        | Object::Queue(_) => &INTERNAL,
    };
    stack.protected(0, 1, &|stack: Stack| push_slot(stack, metatable))?;
    if let Some(slot) = slot(stack, -1) {
        // SAFETY: sealed above. The slot is filled here, outside the protected call, which must own nothing.
        unsafe { (*slot).object = Some(object) };
    }
    Ok(())
}

/// Pushes a userdata that holds nothing yet. May raise.
fn push_slot(stack: Stack, metatable: &'static Place) {
    let slot = stack.push_userdata(size_of::<Slot>()).cast::<Slot>();
    // SAFETY: fresh memory of that size.
    unsafe { slot.write(Slot { seal: Seal::of_slots(), object: None }) };
    stack.set_metatable(-1, metatable);
}

/// Adds the markers to the table on top. May raise.
pub(crate) fn push_markers(stack: Stack) {
    for marker in &merge::MARKERS {
        push_slot(stack, &MARKER);
        if let Some(slot) = slot(stack, -1) {
            // SAFETY: sealed above.
            unsafe { (*slot).object = Some(Object::Marker(marker)) };
        }
        stack.set_field(-2, marker.name);
    }
}

/// `__gc`: lets go of the object.
#[allow(clippy::unnecessary_wraps)] // as every function
pub(crate) fn collect(call: &Call) -> Returned {
    if let Some(slot) = slot(**call, 1) {
        // SAFETY: sealed; taking leaves the slot empty before the object's end can run anything.
        drop(unsafe { (*slot).object.take() });
    }
    Ok(0)
}

/// The head of bytes that are written as binary whatever they look like; they fill the rest of the block.
#[repr(C)]
struct Binary {
    seal: Seal,
}

/// Pushes binary with the bytes of the string at `index`. May raise.
pub(crate) fn push_binary(stack: Stack, index: c_int) {
    let len = stack.bytes(index).map_or(0, <[u8]>::len);
    let binary = stack.push_userdata(size_of::<Binary>() + len).cast::<Binary>();
    // Making the block may have run a finalizer, which may have put something else in the string's place.
    let bytes = stack.bytes(index).filter(|bytes| bytes.len() == len);
    // SAFETY: fresh memory of that size; the bytes come right behind the head, and nothing can run meanwhile.
    unsafe {
        binary.write(Binary { seal: Seal::of_binary() });
        let rest = binary.add(1).cast::<u8>();
        match bytes {
            Some(bytes) => rest.copy_from_nonoverlapping(bytes.as_ptr(), len),
            None => rest.write_bytes(0, len),
        }
    }
    stack.set_metatable(-1, &BINARY);
}

/// The bytes of the binary at `index`.
pub(crate) fn binary(stack: &Stack, index: c_int) -> Option<&[u8]> {
    let size = if stack.kind(index) == ffi::LUA_TUSERDATA { stack.raw_len(index) } else { 0 };
    let len = size.checked_sub(size_of::<Binary>())?;
    let binary = stack.userdata(index).cast::<Binary>();
    // SAFETY: the block is large enough for the head, and the bytes are the rest of it.
    unsafe {
        let sealed = (*binary).seal == Seal::of_binary();
        sealed.then(|| std::slice::from_raw_parts(binary.add(1).cast(), len))
    }
}

/// Functions by name.
pub(crate) type Functions = &'static [(&'static str, Function)];

/// What a kind of userdata can do.
pub(crate) struct Class {
    pub(crate) place: &'static Place,
    pub(crate) name: &'static str,
    pub(crate) metamethods: &'static [Functions],
    pub(crate) methods: &'static [Functions],
}

impl Class {
    /// Puts the class into the registry. May raise.
    pub(crate) fn register(&self, stack: Stack) {
        stack.push_table(0, 8);
        push_functions(stack, self.metamethods);
        stack.push_table(0, 32);
        push_functions(stack, self.methods);
        stack.set_field(-2, "__index");
        stack.push_bytes(self.name.as_bytes());
        stack.set_field(-2, "__name");
        // `getmetatable` answers this, so that a script cannot change the class by accident.
        stack.push_bytes(self.name.as_bytes());
        stack.set_field(-2, "__metatable");
        stack.set_place(self.place);
    }
}

/// Adds `{name = {methods = , metatable = }}` of classes to the table on top. May raise.
pub(crate) fn push_classes(stack: Stack, classes: &[&Class]) {
    for class in classes {
        stack.push_table(0, 2);
        stack.push_place(class.place);
        if stack.kind(-1) == ffi::LUA_TTABLE {
            stack.push_bytes(b"__index");
            stack.push_member(-2);
            stack.set_field(-3, "methods");
        }
        stack.set_field(-2, "metatable");
        stack.set_field(-2, class.name);
    }
}

/// Adds functions to the table on top. May raise.
pub(crate) fn push_functions(stack: Stack, groups: &[Functions]) {
    for (name, function) in groups.iter().copied().flatten() {
        stack.push_function(*function);
        stack.set_field(-2, name);
    }
}

/// What scripts do not see, or only inside a function.
static INTERNAL_CLASS: Class =
    Class { place: &INTERNAL, name: "Internal", metamethods: &[&[function!("__gc", collect)]], methods: &[] };
static BINARY_CLASS: Class = Class {
    place: &BINARY,
    name: "Binary",
    metamethods: &[&[function!("__tostring", bytes), function!("__len", len)]],
    methods: &[],
};

/// Puts the classes that have no file of their own into the registry. May raise.
pub(crate) fn register(stack: Stack) {
    INTERNAL_CLASS.register(stack);
    BINARY_CLASS.register(stack);
    merge::MARKER_CLASS.register(stack);
}

fn own_binary(call: &Call) -> Result<&[u8], Failure> {
    binary(call, 1).ok_or_else(|| call.bad_self("Binary"))
}

fn bytes(call: &Call) -> Returned {
    // A copy: making the string may run a finalizer, which may let go of the binary.
    let bytes = &*own_binary(call)?.to_vec();
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(bytes))?;
    Ok(1)
}

fn len(call: &Call) -> Returned {
    call.push_count(own_binary(call)?.len() as u64);
    Ok(1)
}

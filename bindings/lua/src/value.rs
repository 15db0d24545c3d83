//! Values between Lua and their stored form; the only file that knows both worlds.
//!
//! Tables are read and made raw: no metamethod runs.

use crate::call::Call;
use crate::error::Failure;
use crate::handle;
use crate::stack::{EXACT, HAS_INTEGERS, Place, Stack};
use llmspell_state_persistence::value::{Node, Step, Tape, ValueError, Writer};
use llmspell_state_persistence::{Document, Entry, Number, Origin};
use mlua::ffi;
use std::os::raw::c_int;

/// The metatable of arrays: it tells an empty one from an empty object.
static ARRAY: Place = Place::new();

/// Puts the mark of arrays into the registry. May raise.
pub(crate) fn register(stack: Stack) {
    stack.push_table(0, 0);
    stack.set_place(&ARRAY);
}

/// Marks the table at `index` as an array. May raise.
pub(crate) fn mark_array(stack: Stack, index: c_int) {
    stack.set_metatable(index, &ARRAY);
}

/// The string at `index` when it is UTF-8. It lives as long as something keeps the string.
pub(crate) fn text(stack: &Stack, index: c_int) -> Option<&str> {
    std::str::from_utf8(stack.bytes(index)?).ok()
}

/// The stored form of the value at `index`.
pub(crate) fn read(call: &Call, index: c_int, max_bytes: usize) -> Result<Document, Failure> {
    let mut walk = Walk::new(call, max_bytes);
    walk.value(index)?;
    Ok(walk.writer.finish())
}

/// The stored form of every member of the table at `index`, by name. The names live as long as the table stays on the stack.
pub(crate) fn read_members(call: &Call, index: c_int, max_bytes: usize) -> Result<Vec<(&str, Document)>, Failure> {
    let mut members = Vec::new();
    call.push_nil();
    while call.next(index) {
        let Some(key) = text(call, -2) else {
            return Err(bad_member(**call).into());
        };
        let mut walk = Walk::new(call, max_bytes);
        walk.value(call.top()).map_err(|stop| stop.at(|| Step::Key(key.to_owned())))?;
        members.push((key, walk.writer.finish()));
        call.pop(1);
    }
    Ok(members)
}

/// The texts of the array at `index`, or what is wrong with it. They live as long as the table stays on the stack.
pub(crate) fn read_texts(stack: &Stack, index: c_int) -> Result<Vec<&str>, String> {
    stack.push_nil();
    let len = if stack.next(index) { count_rest(*stack, index, 0)? } else { 0 };
    (1..=len)
        .map(|n| {
            stack.push_item(index, n);
            let (text, kind) = (text(stack, -1), stack.kind_name(-1));
            stack.pop(1);
            text.ok_or_else(|| format!("item {n} is not a key: UTF-8 string expected, got {kind}"))
        })
        .collect()
}

/// Why a walk ends early.
enum Stop {
    Invalid(ValueError),
    NoRoom,
}

impl From<ValueError> for Stop {
    fn from(error: ValueError) -> Self {
        Self::Invalid(error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Invalid(error) => error.into(),
            Stop::NoRoom => Self::NoRoom,
        }
    }
}

impl Stop {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(ValueError::invalid(message))
    }

    /// The same, seen from outside of the step.
    fn at(self, step: impl FnOnce() -> Step) -> Self {
        match self {
            Self::Invalid(error) => Self::Invalid(error.at(step())),
            Self::NoRoom => Self::NoRoom,
        }
    }
}

/// A walk over a Lua value. Calls nothing that can raise, for the writer is alive.
struct Walk {
    stack: Stack,
    writer: Writer,
    /// How far the stack may have grown where another level begins.
    last: c_int,
}

impl Walk {
    fn new(call: &Call, max_bytes: usize) -> Self {
        /// Of the 20 slots that Lua promises. A level keeps two, the innermost takes at most four more, and callers have one or two.
        const PROMISED: c_int = 14;
        let last = if call.has_room { c_int::MAX } else { call.top() + PROMISED };
        Self { stack: **call, writer: Writer::new(max_bytes), last }
    }

    fn value(&mut self, index: c_int) -> Result<(), Stop> {
        let stack = self.stack;
        match stack.kind(index) {
            ffi::LUA_TBOOLEAN => self.writer.bool(stack.boolean(index)),
            ffi::LUA_TNUMBER => match stack.number(index) {
                Some(Number::Int(int)) => self.writer.int(int),
                Some(Number::Float(float)) => self.writer.float(float)?,
                None => {}
            },
            ffi::LUA_TSTRING => {
                let bytes = stack.bytes(index).unwrap_or_default();
                match std::str::from_utf8(bytes) {
                    Ok(text) => self.writer.str(text)?,
                    Err(_) => self.writer.binary(bytes)?,
                }
            }
            ffi::LUA_TTABLE => self.table(index)?,
            ffi::LUA_TLIGHTUSERDATA if stack.userdata(index).is_null() => self.writer.null(),
            ffi::LUA_TNIL | ffi::LUA_TNONE => {
                return Err(Stop::invalid("nil is not a value; State.null stores a null, and delete removes a key"));
            }
            _ => match handle::binary(&stack, index) {
                Some(bytes) => self.writer.binary(bytes)?,
                None => return Err(Stop::invalid(format!("a {} cannot be stored", stack.kind_name(index)))),
            },
        }
        Ok(())
    }

    /// The first key decides: a string makes it an object, a number an array.
    fn table(&mut self, index: c_int) -> Result<(), Stop> {
        let stack = self.stack;
        if stack.top() > self.last {
            return Err(Stop::NoRoom);
        }
        let marked = stack.has_metatable(index, &ARRAY);
        stack.push_nil();
        if !stack.next(index) {
            if marked {
                self.writer.begin_array()?;
                self.writer.end_array();
            } else {
                self.writer.begin_object()?;
                self.writer.end_object();
            }
            return Ok(());
        }
        match stack.kind(-2) {
            ffi::LUA_TSTRING if marked => Err(Stop::invalid(format!("an array has the key {}", key_text(stack)))),
            ffi::LUA_TSTRING => self.object(index),
            ffi::LUA_TNUMBER => self.array(index),
            _ => Err(Stop::invalid(bad_key(stack))),
        }
    }

    /// With the first key and its value on top.
    fn object(&mut self, table: c_int) -> Result<(), Stop> {
        let stack = self.stack;
        self.writer.begin_object()?;
        loop {
            let Some(key) = text(&stack, -2) else { return Err(bad_member(stack).into()) };
            self.writer.key(key)?;
            self.value(stack.top()).map_err(|stop| stop.at(|| Step::Key(key.to_owned())))?;
            stack.pop(1);
            if !stack.next(table) {
                break;
            }
        }
        self.writer.end_object();
        Ok(())
    }

    /// With the first key and its value on top. Lua gives the items in order unless some lie in the table's hash part.
    fn array(&mut self, table: c_int) -> Result<(), Stop> {
        let stack = self.stack;
        self.writer.begin_array()?;
        let mut written = 0;
        let mut more = true;
        while more && position(stack) == Some(written + 1) {
            written += 1;
            self.value(stack.top()).map_err(|stop| stop.at(|| Step::Index(written)))?;
            stack.pop(1);
            more = stack.next(table);
        }
        if more {
            let len = count_rest(stack, table, written).map_err(Stop::invalid)?;
            for n in written + 1..=len {
                stack.push_item(table, n);
                self.value(stack.top()).map_err(|stop| stop.at(|| Step::Index(n)))?;
                stack.pop(1);
            }
        }
        self.writer.end_array();
        Ok(())
    }
}

/// The length of an array of which `seen` items and the pair on top are known: its keys must be exactly 1 to n.
fn count_rest(stack: Stack, table: c_int, mut seen: usize) -> Result<usize, String> {
    let mut last = 0;
    loop {
        last = last.max(position(stack).ok_or_else(|| bad_key(stack))?);
        seen += 1;
        stack.pop(1);
        if !stack.next(table) {
            break;
        }
    }
    if last == seen {
        return Ok(seen);
    }
    let missing = (1..=last).find(|n| {
        stack.push_item(table, *n);
        let missing = stack.is_missing(-1);
        stack.pop(1);
        missing
    });
    Err(format!(
        "item {} of an array of {last} is missing; State.null fills a hole, string keys make an object",
        missing.unwrap_or(last)
    ))
}

/// The key below the top, when it can be an array's.
fn position(stack: Stack) -> Option<usize> {
    let key = stack.integer(-2)?;
    // More items than that do not fit into memory, and Lua 5.1 counts with an int.
    usize::try_from(key).ok().filter(|n| (1..1 << 31).contains(n))
}

#[cold]
fn bad_key(stack: Stack) -> String {
    match stack.kind(-2) {
        ffi::LUA_TSTRING => {
            format!("array items and the key {} in one table; use one or the other", key_text(stack))
        }
        ffi::LUA_TNUMBER => format!(
            "the key {} is a number; the keys of an array are 1 to n, those of an object are strings",
            key_text(stack)
        ),
        _ => format!("a key is a {}; the keys of an object are strings", stack.kind_name(-2)),
    }
}

#[cold]
fn bad_member(stack: Stack) -> ValueError {
    ValueError::invalid(match stack.kind(-2) {
        ffi::LUA_TSTRING => format!("the key {} is not valid UTF-8", key_text(stack)),
        _ => bad_key(stack),
    })
}

/// The key below the top, shortened for a message.
#[cold]
fn key_text(stack: Stack) -> String {
    match (stack.bytes(-2), stack.number(-2)) {
        (Some(bytes), _) => format!("\"{:.40}\"", bytes.escape_ascii().to_string()),
        (_, Some(Number::Int(int))) => int.to_string(),
        (_, Some(Number::Float(float))) => float.to_string(),
        _ => String::new(),
    }
}

/// Pushes a stored value.
pub(crate) fn push(stack: Stack, document: &Document) -> Result<(), Failure> {
    let tape = readable(document)?;
    match tape.nodes().first() {
        Some(Node::Bool(value)) => stack.push_boolean(*value),
        Some(Node::Int(value)) => stack.push_integer(*value),
        Some(Node::Float(value)) => stack.push_float(*value),
        _ => stack.protected(0, 1, &|stack: Stack| make(stack, tape))?,
    }
    Ok(())
}

/// Pushes a number.
pub(crate) fn push_number(stack: Stack, number: Number) -> Result<(), Failure> {
    match number {
        Number::Int(int) => {
            check_exact(int)?;
            stack.push_integer(int);
        }
        Number::Float(float) => stack.push_float(float),
    }
    Ok(())
}

/// The parsed value, once it is known that this Lua can hold it.
pub(crate) fn readable(document: &Document) -> Result<&Tape, Failure> {
    let tape = document.tape()?;
    if !HAS_INTEGERS {
        for node in tape.nodes() {
            if let Node::Int(int) = node {
                check_exact(*int)?;
            }
        }
    }
    Ok(tape)
}

fn check_exact(int: i64) -> Result<(), Failure> {
    if HAS_INTEGERS || int.unsigned_abs() <= EXACT {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the stored integer {int} is beyond 2^53 and this Lua has no integers: it would be rounded; read it with Lua 5.3 or newer"
    )))
}

/// Pushes a parsed value. May raise.
pub(crate) fn make(stack: Stack, tape: &Tape) {
    Make { stack, tape, nodes: tape.nodes().iter() }.value();
}

/// An array of texts. May raise.
pub(crate) fn make_names(stack: Stack, names: &[String]) {
    stack.push_table(names.len(), 0);
    stack.set_metatable(-1, &ARRAY);
    for (n, name) in (1..).zip(names) {
        stack.push_bytes(name.as_bytes());
        stack.set_item(-2, n);
    }
}

/// A key and the names that lead to its scope, which are called `path_name`, as a table. May raise.
pub(crate) fn make_place(stack: Stack, path_name: &str, path: &[String], key: &str) {
    stack.push_table(0, 5);
    make_names(stack, path);
    stack.set_field(-2, path_name);
    stack.push_bytes(key.as_bytes());
    stack.set_field(-2, "key");
}

/// An array of them. May raise.
pub(crate) fn make_places(stack: Stack, path_name: &str, places: &[(Vec<String>, String)]) {
    stack.push_table(places.len(), 0);
    stack.set_metatable(-1, &ARRAY);
    for (n, (path, key)) in (1..).zip(places) {
        make_place(stack, path_name, path, key);
        stack.set_item(-2, n);
    }
}

/// A field of the table on top. Times are seconds, as `os.time` counts them. May raise.
#[allow(clippy::cast_precision_loss)] // exact for as long as there will be computers
pub(crate) fn set_time(stack: Stack, name: &str, ms: i64) {
    stack.push_float(ms as f64 / 1000.0);
    stack.set_field(-2, name);
}

/// Who, in the course of what, and why, as fields of the table on top. May raise.
pub(crate) fn set_origin(stack: Stack, origin: &Origin) {
    for (name, part) in [("actor", &origin.actor), ("run", &origin.run), ("reason", &origin.reason)] {
        if let Some(part) = part {
            stack.push_bytes(part.as_bytes());
            stack.set_field(-2, name);
        }
    }
}

/// The entry as a table. May raise.
pub(crate) fn make_entry(stack: Stack, entry: &Entry, tape: &Tape) {
    stack.push_table(0, 5);
    make(stack, tape);
    stack.set_field(-2, "value");
    stack.push_count(entry.version());
    stack.set_field(-2, "version");
    set_time(stack, "created", entry.created_ms());
    set_time(stack, "updated", entry.updated_ms());
    if let Some(ms) = entry.expires_ms() {
        set_time(stack, "expires", ms);
    }
}

/// A walk over a parsed value that makes Lua's. May raise, so nothing here owns anything.
struct Make<'t> {
    stack: Stack,
    tape: &'t Tape,
    nodes: std::slice::Iter<'t, Node>,
}

impl Make<'_> {
    fn value(&mut self) {
        let stack = self.stack;
        match self.nodes.next() {
            Some(Node::Null) | None => stack.push_null(),
            Some(Node::Bool(value)) => stack.push_boolean(*value),
            Some(Node::Int(value)) => stack.push_integer(*value),
            Some(Node::Float(value)) => stack.push_float(*value),
            Some(Node::Str(span) | Node::Binary(span)) => stack.push_bytes(self.tape.bytes(*span)),
            Some(Node::Array { len }) => {
                stack.need_room(4);
                stack.push_table(*len as usize, 0);
                stack.set_metatable(-1, &ARRAY);
                for n in 1..=*len {
                    self.value();
                    stack.set_item(-2, n);
                }
            }
            Some(Node::Object { len }) => {
                stack.need_room(4);
                stack.push_table(0, *len as usize);
                for _ in 0..*len {
                    self.value();
                    self.value();
                    stack.set_member(-3);
                }
            }
        }
    }
}

//! Writes canonical text straight from the objects of a language, without a tree in between.

use super::{BINARY, Document, looks_like_binary};
use crate::error::shorten;
use crate::{Error, ErrorKind, Result, limits};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write as _;

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into an array, counted as the language counts.
    Index(usize),
}

/// Something in a value that cannot be stored. Whoever walks the value adds the path on the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    kind: ErrorKind,
    message: String,
    /// Innermost step first.
    path: Vec<Step>,
}

impl ValueError {
    /// An `Invalid` value.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.into(), path: Vec::new() }
    }

    /// The same error, one step further out.
    #[must_use]
    pub fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        const SHOWN: usize = 16;
        let mut path = String::from("$");
        for step in error.path.iter().rev().take(SHOWN) {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Key(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && key.len() <= 40 => {
                    write!(path, ".{key}")
                }
                Step::Key(key) => write!(path, "[{}]", shorten(key)),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        if error.path.len() > SHOWN {
            path.push('…');
        }
        Error::new(error.kind, format!("{path}: {}", error.message))
    }
}

/// Builds a [`Document`] piece by piece; separators are its own business.
///
/// ```
/// # use llmspell_state_persistence::value::Writer;
/// let mut writer = Writer::new(1024);
/// writer.begin_object()?;
/// writer.key("tags")?;
/// writer.begin_array()?;
/// writer.int(1);
/// writer.str("x")?;
/// writer.end_array();
/// writer.end_object();
/// assert_eq!(writer.finish().text(), r#"{"tags":[1,"x"]}"#);
/// # Ok::<(), llmspell_state_persistence::value::ValueError>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    text: Vec<u8>,
    depth: usize,
    max_bytes: usize,
}

impl Writer {
    /// A writer that refuses text longer than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { text: Vec::with_capacity(64), depth: 0, max_bytes }
    }

    /// The finished document. Every array and object must have been ended.
    pub fn finish(self) -> Document {
        debug_assert_eq!(self.depth, 0);
        // Everything written is ASCII or comes from a `str`.
        Document::trusted(String::from_utf8(self.text).unwrap_or_default())
    }

    fn separate(&mut self) {
        if !matches!(self.text.last(), None | Some(b'[' | b'{' | b':')) {
            self.text.push(b',');
        }
    }

    /// Whether `more` bytes would fit: for a walker that has to copy before it can write.
    ///
    /// # Errors
    /// `QuotaExceeded` when they would not.
    pub fn check_room(&self, more: usize) -> Result<(), ValueError> {
        check_size(self.text.len() + more, self.max_bytes)
    }

    /// Writes null.
    pub fn null(&mut self) {
        self.separate();
        self.text.extend_from_slice(b"null");
    }

    /// Writes a boolean.
    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.text.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i64) {
        self.separate();
        self.plain(&value);
    }

    /// Writes a float: the shortest text that reads back exactly.
    ///
    /// # Errors
    /// NaN and infinities have no text.
    pub fn float(&mut self, value: f64) -> Result<(), ValueError> {
        if !value.is_finite() {
            return Err(ValueError::invalid(format!("{value} cannot be stored; a float must be finite")));
        }
        self.separate();
        self.plain(&value);
        Ok(())
    }

    /// Writes text.
    ///
    /// # Errors
    /// `QuotaExceeded` when it does not fit.
    pub fn str(&mut self, value: &str) -> Result<(), ValueError> {
        self.check_room(value.len())?;
        self.separate();
        self.plain(value);
        Ok(())
    }

    /// Numbers and strings are written by `serde_json`, which writes to a `Vec` without failing.
    fn plain<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        let written = serde_json::to_writer(&mut self.text, value);
        debug_assert!(written.is_ok());
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// `QuotaExceeded` when they do not fit, `Invalid` when nested too deep (they are an object on JSON surfaces).
    pub fn binary(&mut self, value: &[u8]) -> Result<(), ValueError> {
        self.check_room(value.len() / 3 * 4)?;
        self.begin_object()?;
        self.raw_key(BINARY)?;
        self.text.push(b'"');
        self.text.extend_from_slice(BASE64_STANDARD.encode(value).as_bytes());
        self.text.push(b'"');
        self.end_object();
        Ok(())
    }

    /// Starts an array.
    ///
    /// # Errors
    /// `Invalid` when nested deeper than [`limits::VALUE_DEPTH`], `QuotaExceeded` when there is no room.
    pub fn begin_array(&mut self) -> Result<(), ValueError> {
        self.begin(b'[')
    }

    /// Ends the innermost array.
    pub fn end_array(&mut self) {
        self.end(b']');
    }

    /// Starts an object.
    ///
    /// # Errors
    /// As for [`Writer::begin_array`].
    pub fn begin_object(&mut self) -> Result<(), ValueError> {
        self.begin(b'{')
    }

    /// Ends the innermost object.
    pub fn end_object(&mut self) {
        self.end(b'}');
    }

    fn begin(&mut self, open: u8) -> Result<(), ValueError> {
        if self.depth == limits::VALUE_DEPTH {
            return Err(ValueError::invalid(format!(
                "nested deeper than {} levels, or it contains itself (a cycle)",
                limits::VALUE_DEPTH
            )));
        }
        self.check_room(0)?;
        self.separate();
        self.depth += 1;
        self.text.push(open);
        Ok(())
    }

    fn end(&mut self, close: u8) {
        self.depth -= 1;
        self.text.push(close);
    }

    /// Writes the key of the next value of an object, any text.
    ///
    /// # Errors
    /// `QuotaExceeded` when it does not fit.
    pub fn key(&mut self, key: &str) -> Result<(), ValueError> {
        if looks_like_binary(key) { self.raw_key(&format!("${key}")) } else { self.raw_key(key) }
    }

    fn raw_key(&mut self, key: &str) -> Result<(), ValueError> {
        self.str(key)?;
        self.text.push(b':');
        Ok(())
    }

    /// Writes a JSON tree, in which binary has its `{"$binary": …}` form.
    pub(super) fn value(&mut self, value: &serde_json::Value) -> Result<(), ValueError> {
        match value {
            serde_json::Value::Null => self.null(),
            serde_json::Value::Bool(value) => self.bool(*value),
            serde_json::Value::String(value) => self.str(value)?,
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => self.int(int),
                (None, Some(float)) if number.is_f64() => self.float(float)?,
                _ => return Err(ValueError::invalid(format!("{number} is outside the signed 64-bit range"))),
            },
            serde_json::Value::Array(items) => {
                self.begin_array()?;
                for (index, item) in items.iter().enumerate() {
                    self.value(item).map_err(|e| e.at(Step::Index(index)))?;
                }
                self.end_array();
            }
            serde_json::Value::Object(members) => {
                check_binary(members)?;
                self.begin_object()?;
                for (key, member) in members {
                    self.raw_key(key)?;
                    self.value(member).map_err(|e| e.at(Step::Key(key.clone())))?;
                }
                self.end_object();
            }
        }
        // A caller that writes many small pieces must not pass the bound unseen.
        self.check_room(0)
    }
}

/// An object with the key `$binary` must be exactly the form of binary.
fn check_binary(members: &serde_json::Map<String, serde_json::Value>) -> Result<(), ValueError> {
    match members.get(BINARY) {
        None => Ok(()),
        Some(serde_json::Value::String(text)) if members.len() == 1 && BASE64_STANDARD.decode(text).is_ok() => Ok(()),
        Some(_) => Err(ValueError::invalid(
            "an object with the key \"$binary\" must hold nothing but padded base64 text; write \"$$binary\" for a key of that name",
        )),
    }
}

/// Refuses text of `bytes` when it is longer than `max_bytes`.
pub(super) fn check_size(bytes: usize, max_bytes: usize) -> Result<(), ValueError> {
    if bytes <= max_bytes {
        return Ok(());
    }
    Err(ValueError {
        kind: ErrorKind::QuotaExceeded,
        message: format!(
            "the value needs {bytes} bytes or more; the most is {max_bytes} (setting 'max_value_bytes'); store it in parts"
        ),
        path: Vec::new(),
    })
}

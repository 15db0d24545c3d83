//! What can be stored: JSON and binary, kept as one canonical JSON text that every language reads.
//!
//! The text is compact JSON (RFC 8259). Integers are in the signed 64-bit range and have neither fraction nor exponent,
//! floats always have one, so `1` and `1.0` stay different; objects keep the order in which they were written.
//! Binary is `{"$binary": "<base64>"}` (RFC 4648, padded); an object's own key of that shape (`$binary`, `$$binary`, …)
//! is written with one more `$` in front.

mod tape;
mod update;
mod writer;

pub use tape::{Node, Tape};
pub use update::Number;
pub(crate) use update::{Update, array_len};
pub use writer::{Step, ValueError, Writer};

use crate::{Error, Result};
use serde::de::DeserializeSeed;
use std::sync::OnceLock;

/// The key that marks binary on JSON surfaces.
const BINARY: &str = "$binary";

/// Whether an object's own key needs one more `$` in stored text.
fn looks_like_binary(key: &str) -> bool {
    key.starts_with('$') && key.trim_start_matches('$') == "binary"
}

/// A value in its stored form, checked once: canonical JSON text and, once asked for, its parsed [`Tape`].
#[derive(Debug)]
pub struct Document {
    text: Box<str>,
    tape: OnceLock<Tape>,
}

impl Document {
    /// Text that is known to be canonical: made by [`Writer`], or read from a row whose check was right.
    pub(crate) fn trusted(text: String) -> Self {
        Self { text: text.into_boxed_str(), tape: OnceLock::new() }
    }

    /// Checks a JSON value and writes its canonical text, at most `max_bytes` long.
    ///
    /// # Errors
    /// `Invalid` names the path of what cannot be stored; `QuotaExceeded` when it is too long.
    pub fn from_value(value: &serde_json::Value, max_bytes: usize) -> Result<Self> {
        let mut writer = Writer::new(max_bytes);
        writer.value(value)?;
        Ok(writer.finish())
    }

    /// The canonical JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value as a JSON tree; binary in its `{"$binary": …}` form. Null for text that was not written by this crate, which
    /// [`Document::parse`] tells apart.
    pub fn to_value(&self) -> serde_json::Value {
        self.parse().unwrap_or_default()
    }

    /// The value as a JSON tree; see [`Document::to_value`].
    ///
    /// # Errors
    /// `Corrupt` when the text is not what this crate writes.
    pub fn parse(&self) -> Result<serde_json::Value> {
        // serde_json's own bound on depth is one less than ours; the tape's is ours.
        serde_json::from_str(&self.text).or_else(|_| Ok(self.to_tape()?.to_value()))
    }

    /// The parsed form, made on first use and kept.
    ///
    /// # Errors
    /// `Corrupt` when the text is not what this crate writes.
    pub fn tape(&self) -> Result<&Tape> {
        if let Some(tape) = self.tape.get() {
            return Ok(tape);
        }
        let mut tape = self.to_tape()?;
        tape.shrink();
        Ok(self.tape.get_or_init(|| tape))
    }

    /// The parsed form, for a reader that keeps something better.
    ///
    /// # Errors
    /// As [`Document::tape`].
    pub fn to_tape(&self) -> Result<Tape> {
        let mut input = serde_json::Deserializer::from_str(&self.text);
        input.disable_recursion_limit();
        let mut tape = Tape::for_text(&self.text);
        tape::Build::whole(&mut tape)
            .deserialize(&mut input)
            .and_then(|()| input.end())
            .map_err(|e| Error::corrupt(format!("a stored value is not the text that this library writes: {e}")))?;
        Ok(tape)
    }

    /// Bytes of memory that this document holds.
    pub(crate) fn footprint(&self) -> usize {
        self.text.len() + self.tape.get().map_or(0, Tape::footprint)
    }
}

impl Clone for Document {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), tape: OnceLock::new() }
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What `set` and its like take: a JSON value, or a document that a binding wrote.
pub trait IntoDocument {
    /// The checked, stored form.
    ///
    /// # Errors
    /// `Invalid` or `QuotaExceeded`, see [`Document::from_value`].
    fn into_document(self, max_bytes: usize) -> Result<Document>;
}

impl IntoDocument for Document {
    fn into_document(self, max_bytes: usize) -> Result<Document> {
        writer::check_size(self.text.len(), max_bytes)?;
        Ok(self)
    }
}

impl IntoDocument for serde_json::Value {
    fn into_document(self, max_bytes: usize) -> Result<Document> {
        Document::from_value(&self, max_bytes)
    }
}

impl IntoDocument for &serde_json::Value {
    fn into_document(self, max_bytes: usize) -> Result<Document> {
        Document::from_value(self, max_bytes)
    }
}

macro_rules! into_document_as_value {
    ($($plain:ty),*) => {$(
        impl IntoDocument for $plain {
            fn into_document(self, max_bytes: usize) -> Result<Document> {
                Document::from_value(&self.into(), max_bytes)
            }
        }
    )*};
}
into_document_as_value!(bool, i32, i64, u32, &str, String);

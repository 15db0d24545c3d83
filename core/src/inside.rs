//! What the fuzz targets ask of inner parts. Only with the feature `harness`.

use crate::engine::{LogRow, OnRow, Operation};
use crate::key::Pattern;
use crate::store::codec::{self, Packed};
use crate::store::delta::Base;
use crate::value::{Number, Update, array_len};
use crate::{Document, Entry, Result, StateConfig};

/// A row of the log as its columns say.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// `seq`, `version`, `time_ms`, `scope` and `prev`.
    pub numbers: [i64; 5],
    /// Its key.
    pub key: &'a str,
    /// A set; otherwise a deletion.
    pub set: bool,
    /// When it expires.
    pub expires_ms: Option<i64>,
    /// How the value is encoded.
    pub flags: i64,
    /// The value's bytes.
    pub value: &'a [u8],
}

impl Row<'_> {
    fn log_row(&self, check: i64) -> LogRow<'_> {
        let [seq, version, time_ms, scope, prev] = self.numbers;
        let operation = if self.set { Operation::Set } else { Operation::Delete };
        let Self { key, expires_ms, flags, value, .. } = *self;
        let origin = [None; 3];
        LogRow { seq, version, time_ms, scope, key, operation, prev, expires_ms, flags, value, origin, check }
    }

    /// The check that belongs to it.
    pub fn check(&self) -> i64 {
        codec::check(&self.log_row(0))
    }

    /// Compares it with a check.
    ///
    /// # Errors
    /// `Corrupt` when they do not fit.
    pub fn verify(&self, check: i64) -> Result<()> {
        codec::verify(&self.log_row(check))
    }

    /// Its value, of at most `max_bytes`, from a log that has one row more.
    ///
    /// # Errors
    /// `Corrupt` when it has none.
    pub fn unpack_from(&self, base: &Row<'_>, max_bytes: usize) -> Result<Document> {
        let [row, base] = [self, base].map(|row| codec::seal(row.log_row(0)));
        let rows = |seq, look: OnRow<'_>| if seq == base.seq { look(&base).map(|()| true) } else { Ok(false) };
        codec::unpack(&row, &rows, max_bytes).map(|(document, _)| document)
    }

    /// Its value, of at most `max_bytes`.
    ///
    /// # Errors
    /// `Corrupt` when it has none.
    pub fn unpack(&self, check: i64, max_bytes: usize) -> Result<Document> {
        codec::unpack(&self.log_row(check), &|_, _| Ok(false), max_bytes).map(|(document, _)| document)
    }
}

/// The flags and bytes that are stored for a document.
pub fn pack(document: &Document, compress: bool) -> (i64, Vec<u8>) {
    let packed = Packed::new(document, compress);
    (packed.flags, packed.bytes(document).to_vec())
}

/// The same for a document after another one of the same key, which was stored as a row.
pub fn pack_next(document: &Document, before: &Document, row: &Row<'_>) -> (i64, Vec<u8>) {
    let row = codec::seal(row.log_row(0));
    let before = Entry::pending(before.clone(), 0, None).with_base(Base::of(&row, before.text().len()));
    let packed = Packed::next(document, true, row.scope, Some(&before));
    (packed.flags, packed.bytes(document).to_vec())
}

/// A document of text that nobody has checked, as it comes from a forged row.
pub fn forged(text: &str) -> Document {
    Document::trusted(text.to_owned())
}

/// What an increment makes of a value.
///
/// # Errors
/// As the verb's.
pub fn increment(current: Option<&Document>, by: Number) -> Result<Document> {
    Update::Increment(by.checked()?).apply(current, usize::MAX)
}

/// What an append makes of a value, and the new number of items.
///
/// # Errors
/// As the verb's.
pub fn append(current: Option<&Document>, item: &Document, max_bytes: usize) -> Result<(Document, u64)> {
    let list = Update::Append(item.clone()).apply(current, max_bytes)?;
    let len = array_len(list.text());
    Ok((list, len))
}

/// What a merge makes of a value.
///
/// # Errors
/// As the verb's.
pub fn merge(current: Option<&Document>, patch: &Document, max_bytes: usize) -> Result<Document> {
    Update::Merge(patch.clone()).apply(current, max_bytes)
}

/// The end of the range of keys that can match.
pub fn upper_bound(pattern: &Pattern) -> Option<String> {
    pattern.upper_bound()
}

/// Refuses settings that are out of range or contradict each other.
///
/// # Errors
/// `Invalid` names the setting.
pub fn check(config: &StateConfig) -> Result<()> {
    config.check()
}

//! Stored bytes: how a value's text becomes the bytes of a log row and back, and the check that covers the row.
//! No other module but `delta`, a part of it, knows them.

use super::delta::{self, Base, DELTA, Rows};
use crate::engine::{LogRow, ScopeId};
use crate::harness::sabotaged;
use crate::{Document, Entry, Error, Origin, Result};
use std::borrow::Cow;
use std::cell::RefCell;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zstd::bulk::{Compressor, Decompressor};

/// The value's text as it is.
const PLAIN: i64 = 0;
/// The value's text as one zstd frame (RFC 8878) that tells its content's size.
pub(super) const ZSTD: i64 = 1;
/// Both of it, of a value that is stored as its difference from another.
const DELTA_ZSTD: i64 = DELTA | ZSTD;
/// Shorter text is not worth compressing, in bytes.
const COMPRESS_FROM: usize = 1024;
/// Fast: the next level saves little more and takes twice as long.
const LEVEL: i32 = 1;

thread_local! {
    /// Making a context costs more than compressing a small value with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

/// One zstd frame, where that saves an eighth at least and there is memory for it.
pub(super) fn compress(text: &[u8]) -> Option<Vec<u8>> {
    // Nothing while the thread ends: then the text is stored as it is.
    let frame = COMPRESSOR.try_with(|context| context.borrow_mut().as_mut()?.compress(text).ok()).ok().flatten();
    frame.filter(|frame| frame.len() + text.len() / 8 < text.len())
}

/// The content of a frame, at most `size` bytes.
fn decompress(frame: &[u8], size: usize) -> Option<Vec<u8>> {
    match DECOMPRESSOR.try_with(|context| context.borrow_mut().as_mut()?.decompress(frame, size).ok()) {
        Ok(text) => text,
        Err(_) => zstd::bulk::decompress(frame, size).ok(),
    }
}

/// A value's stored bytes.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) flags: i64,
    /// Nothing where the document's own text is stored.
    bytes: Option<Vec<u8>>,
    /// The row that has the rest of the value.
    pub(crate) base: Option<Box<Base>>,
}

impl Packed {
    /// Packs a value as a whole, compressed where that is wanted and saves enough.
    pub(crate) fn new(document: &Document, wanted: bool) -> Self {
        let text = document.text().as_bytes();
        let frame = (wanted && text.len() >= COMPRESS_FROM).then(|| compress(text)).flatten();
        Self { flags: if frame.is_some() { ZSTD } else { PLAIN }, bytes: frame, base: None }
    }

    /// Packs the next value of a key, as its difference from an earlier one where that is wanted and saves enough.
    pub(crate) fn next(document: &Document, wanted: bool, scope: ScopeId, before: Option<&Entry>) -> Self {
        let delta = before.filter(|_| wanted && delta::is_worth_it(document.text())).and_then(|before| {
            // A key may have got its value in another scope.
            let base = before.base().filter(|base| base.scope == scope)?;
            delta::pack(document.text().as_bytes(), before.document().text().as_bytes(), base)
        });
        match delta {
            Some((flags, bytes, base)) => Self { flags, bytes: Some(bytes), base: Some(base) },
            None => Self::new(document, wanted),
        }
    }

    /// The bytes to store for `document`, from which this was made.
    pub(crate) fn bytes<'a>(&'a self, document: &'a Document) -> &'a [u8] {
        self.bytes.as_deref().unwrap_or(document.text().as_bytes())
    }
}

/// The check of a row: 64-bit XXH3 over every column but the check itself.
pub(crate) fn check(row: &LogRow<'_>) -> i64 {
    let numbers = [
        row.seq,
        row.version,
        row.time_ms,
        row.scope,
        row.operation as i64,
        row.prev,
        // Distinct from every time: a row that never expires.
        row.expires_ms.unwrap_or(i64::MIN),
        row.flags,
    ];
    let mut fixed = [0; 64];
    for (place, number) in fixed.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    // Each part seeds the next, so that bytes cannot move between key and value unseen.
    let seed = xxh3_64_with_seed(row.key.as_bytes(), xxh3_64(&fixed));
    // Nothing differs from an empty text, and one part from another.
    let seed = row.origin.iter().zip(1..).fold(seed, |seed, (part, place)| {
        part.map_or(seed, |part| xxh3_64_with_seed(part.as_bytes(), seed.wrapping_add(place)))
    });
    xxh3_64_with_seed(row.value, seed).cast_signed()
}

/// Who made a change, and why.
pub(crate) fn origin(row: &LogRow<'_>) -> Origin {
    let [actor, run, reason] = row.origin.map(|part| part.map(str::to_owned));
    Origin { actor, run, reason }
}

/// The row with the check that belongs to it.
pub(crate) fn seal(row: LogRow<'_>) -> LogRow<'_> {
    LogRow { check: check(&row), ..row }
}

/// The value of a row, after its check, and what the next value of its key may be stored as a difference from. `rows` finds the
/// row from which this one differs.
///
/// # Errors
/// `Corrupt` names the row.
pub(crate) fn unpack(row: &LogRow<'_>, rows: Rows<'_>, max_bytes: usize) -> Result<(Document, Option<Box<Base>>)> {
    let (text, base) = if matches!(row.flags, DELTA | DELTA_ZSTD) {
        verify(row)?;
        let (text, base) = delta::unpack(row, rows, max_bytes)?;
        (text, Some(base))
    } else {
        let text = unpack_whole(row, max_bytes)?.into_owned();
        let base = Base::of(row, text.len());
        (text, base)
    };
    let text = String::from_utf8(text).map_err(|_| damaged(row, "its value is not text"))?;
    Ok((Document::trusted(text), base))
}

/// The text of a row that stores it whole, after its check.
pub(super) fn unpack_whole<'r>(row: &LogRow<'r>, max_bytes: usize) -> Result<Cow<'r, [u8]>> {
    verify(row)?;
    match row.flags {
        PLAIN | ZSTD => inflate(row, row.value, max_bytes),
        DELTA | DELTA_ZSTD => Err(damaged(row, "it is itself stored as a difference")),
        _ => Err(damaged(row, "its encoding is unknown")),
    }
}

/// The row from which a row differs, where its value is stored as a difference.
pub(crate) fn base_of(row: &LogRow<'_>) -> Option<i64> {
    if matches!(row.flags, DELTA | DELTA_ZSTD) { delta::base_of(row) } else { None }
}

/// Bytes of a row as they were before they were compressed, if they were.
pub(super) fn inflate<'r>(row: &LogRow<'_>, bytes: &'r [u8], max_bytes: usize) -> Result<Cow<'r, [u8]>> {
    if row.flags & ZSTD == 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    // The frame's own word for its size is not trusted beyond what any value may have.
    let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= max_bytes);
    let size = size.ok_or_else(|| damaged(row, "its compressed value is larger than any value may be"))?;
    decompress(bytes, size).map(Cow::Owned).ok_or_else(|| damaged(row, "its value does not decompress"))
}

pub(super) fn damaged(row: &LogRow<'_>, why: &str) -> Error {
    Error::corrupt(format!("log row {}: {why}; restore from a backup", row.seq))
}

/// Compares a row with its check.
///
/// # Errors
/// `Corrupt` names the row.
pub(crate) fn verify(row: &LogRow<'_>) -> Result<()> {
    if check(row) != row.check && !sabotaged("no-check") {
        return Err(Error::corrupt(format!("log row {} does not match its check; restore from a backup", row.seq)));
    }
    // Its check is right, so somebody else wrote it.
    if !row.operation.has_value() && !row.value.is_empty() {
        return Err(Error::corrupt(format!(
            "log row {} takes a key away and has a value; restore from a backup",
            row.seq
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Operation;

    fn row<'a>(key: &'a str, value: &'a [u8]) -> LogRow<'a> {
        let row = LogRow {
            seq: 7,
            version: 5,
            time_ms: 1,
            scope: 1,
            key,
            operation: Operation::Set,
            prev: 3,
            expires_ms: None,
            flags: PLAIN,
            value,
            origin: [None; 3],
            check: 0,
        };
        seal(row)
    }

    #[test]
    fn a_change_of_any_column_is_seen() {
        let good = row("key", b"\"value\"");
        assert!(verify(&good).is_ok());
        for bad in [
            LogRow { seq: 8, ..good },
            LogRow { version: 6, ..good },
            LogRow { time_ms: 2, ..good },
            LogRow { scope: 2, ..good },
            LogRow { key: "kez", ..good },
            LogRow { prev: 4, ..good },
            LogRow { expires_ms: Some(9), ..good },
            LogRow { flags: ZSTD, ..good },
            LogRow { value: b"\"valuf\"", ..good },
            LogRow { key: "key\"", value: b"value\"", ..good },
            LogRow { origin: [Some(""), None, None], ..good },
            LogRow { origin: [None, Some(""), None], ..good },
            LogRow { origin: [Some("somebody"), None, None], ..good },
        ] {
            assert!(verify(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_forged_deletion_with_a_value_is_refused() {
        let row = LogRow { operation: Operation::Delete, ..row("key", b"1") };
        assert!(verify(&LogRow { check: check(&row), ..row }).is_err());
        let row = LogRow { value: b"", ..row };
        assert!(verify(&LogRow { check: check(&row), ..row }).is_ok());
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_memory_is_taken() {
        let bomb = zstd::bulk::compress(&vec![b' '; 1 << 20], LEVEL).unwrap();
        let row = LogRow { flags: ZSTD, ..row("key", &bomb) };
        let row = LogRow { check: check(&row), ..row };
        let nobody: Rows<'_> = &|_, _| Ok(false);
        assert!(unpack(&row, nobody, 1 << 16).is_err());
        assert!(unpack(&row, nobody, 1 << 20).is_ok());
    }
}

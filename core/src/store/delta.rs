//! A value stored as its difference from an earlier one of its key: a value that grows costs what it grew by.
//!
//! The bytes are a header and what stands between the beginning and the end that both texts share. The earlier row, the base, is
//! always stored whole, so that no value is more than one row away, however long its history.

use super::codec::{self, ZSTD};
use crate::engine::{LogRow, OnRow, ScopeId};
use crate::harness::sabotaged;
use crate::{Error, ErrorKind, Result};
use std::borrow::Cow;

/// Marks such a row; beside `ZSTD` where what it adds is one frame.
pub(super) const DELTA: i64 = 2;
/// Shorter text is stored whole, in bytes: a page of the file would not be saved.
const DELTA_FROM: usize = 4096;
/// What a text adds is not worth compressing when it is shorter, in bytes.
const COMPRESS_FROM: usize = 128;
/// What bytes are compared by first: long enough for the widest instructions.
const CHUNK: usize = 256;

/// A row that is stored whole, as far as the next value of its key needs it to be stored as a difference from it. An entry
/// keeps it; for an entry that is stored whole, it is the entry's own row.
#[derive(Debug)]
pub(crate) struct Base {
    pub(super) seq: i64,
    pub(super) check: i64,
    pub(super) scope: ScopeId,
    /// Bytes that it is stored in.
    bytes: usize,
    /// Bytes that the differences from it are stored in so far.
    spent: usize,
    /// Its text: so much of the beginning of the entry's, …
    prefix: usize,
    /// … this, …
    middle: Box<[u8]>,
    /// … so much of the end of the entry's.
    suffix: usize,
}

impl Base {
    /// A row with its check that stores a text of `len` bytes whole; nothing if it is too short to be worth it.
    pub(crate) fn of(row: &LogRow<'_>, len: usize) -> Option<Box<Self>> {
        (len >= DELTA_FROM).then(|| {
            Box::new(Self {
                seq: row.seq,
                check: row.check,
                scope: row.scope,
                bytes: row.value.len(),
                spent: 0,
                prefix: len,
                middle: Box::default(),
                suffix: 0,
            })
        })
    }

    /// Bytes of memory that it holds.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.middle.len()
    }

    /// The base's text, in pieces, from that of its entry.
    fn pieces<'t>(&'t self, entry: &'t [u8]) -> Pieces<'t> {
        Pieces([&entry[..self.prefix], &self.middle, &entry[entry.len() - self.suffix..]])
    }
}

/// Whether a text is long enough to be stored as a difference.
pub(super) fn is_worth_it(text: &str) -> bool {
    text.len() >= DELTA_FROM
}

/// A text of which parts lie elsewhere.
struct Pieces<'t>([&'t [u8]; 3]);

impl Pieces<'_> {
    fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    /// Bytes at the beginning that a text has as well.
    fn common_prefix(&self, text: &[u8]) -> usize {
        let mut same = 0;
        for piece in self.0 {
            let found = common_prefix(piece, &text[same..]);
            same += found;
            if found < piece.len() {
                break;
            }
        }
        same
    }

    /// Bytes at the end that a text has as well.
    fn common_suffix(&self, text: &[u8]) -> usize {
        let mut same = 0;
        for piece in self.0.iter().rev() {
            let found = common_suffix(piece, &text[..text.len() - same]);
            same += found;
            if found < piece.len() {
                break;
            }
        }
        same
    }

    fn between(&self, from: usize, to: usize) -> Box<[u8]> {
        let mut bytes = Vec::with_capacity(to - from);
        let mut start = 0;
        for piece in self.0 {
            let place = |at: usize| at.saturating_sub(start).min(piece.len());
            bytes.extend_from_slice(&piece[place(from)..place(to)]);
            start += piece.len();
        }
        bytes.into_boxed_slice()
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK));
    let same = chunks.take_while(|(a, b)| a == b).count() * CHUNK;
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.rchunks_exact(CHUNK).zip(b.rchunks_exact(CHUNK));
    let same = chunks.take_while(|(a, b)| a == b).count() * CHUNK;
    let rest = a[..a.len() - same].iter().rev().zip(b[..b.len() - same].iter().rev());
    same + rest.take_while(|(a, b)| a == b).count()
}

/// What a row says of its base, before the bytes that it adds. Numbers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    seq: i64,
    /// The check of the base, so that no other row is taken for it.
    check: i64,
    /// Bytes that all differences from the base are stored in up to this one, it included.
    spent: u32,
    prefix: u32,
    suffix: u32,
}

impl Header {
    const BYTES: usize = 28;

    fn write(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.seq.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.check.to_le_bytes());
        for (place, number) in bytes[16..].chunks_exact_mut(4).zip([self.spent, self.prefix, self.suffix]) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The header, and the rest of the bytes.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (seq, bytes) = bytes.split_first_chunk()?;
        let (check, bytes) = bytes.split_first_chunk()?;
        let (spent, bytes) = bytes.split_first_chunk()?;
        let (prefix, bytes) = bytes.split_first_chunk()?;
        let (suffix, bytes) = bytes.split_first_chunk()?;
        let [spent, prefix, suffix] = [spent, prefix, suffix].map(|number| u32::from_le_bytes(*number));
        let (seq, check) = (i64::from_le_bytes(*seq), i64::from_le_bytes(*check));
        Some((Self { seq, check, spent, prefix, suffix }, bytes))
    }
}

/// A text as its difference from the base of an entry with the text `before`: flags, bytes, and the base as the new entry has it.
/// Nothing where storing it whole is better.
pub(super) fn pack(text: &[u8], before: &[u8], base: &Base) -> Option<(i64, Vec<u8>, Box<Base>)> {
    let pieces = if sabotaged("wrong-difference") { Pieces([before, &[], &[]]) } else { base.pieces(before) };
    let len = pieces.len();
    let prefix = pieces.common_prefix(text);
    // What both share may overlap: "aa" and "aaa" begin and end alike.
    let suffix = pieces.common_suffix(text).min(len.min(text.len()) - prefix);
    // Half of the base as well: a value that has shrunk would be slow to read, and drag along in memory what it has lost.
    if (prefix + suffix) * 2 < text.len().max(len) {
        return None;
    }
    let middle = &text[prefix..text.len() - suffix];
    let frame = (middle.len() >= COMPRESS_FROM).then(|| codec::compress(middle)).flatten();
    let flags = if frame.is_some() { DELTA | ZSTD } else { DELTA };
    let middle = frame.map_or(Cow::Borrowed(middle), Cow::Owned);
    let bytes = Header::BYTES + middle.len();
    let spent = base.spent + bytes;
    // A new base when the differences have come to what the old one takes: of a value that grows, both then need the least.
    if spent > base.bytes {
        return None;
    }
    // Nor where the whole value would hardly need more, if it compresses like the base.
    if bytes * 2 > base.bytes.saturating_mul(text.len()) / len {
        return None;
    }
    let number = |number: usize| u32::try_from(number).ok();
    let header = Header {
        seq: base.seq,
        check: base.check,
        spent: number(spent)?,
        prefix: number(prefix)?,
        suffix: number(suffix)?,
    };
    let base = Base { spent, prefix, middle: pieces.between(prefix, len - suffix), suffix, ..*base };
    Some((flags, [header.write().as_slice(), &middle].concat(), Box::new(base)))
}

/// Looks at the row with a number, and says whether it is there.
pub(crate) type Rows<'f> = &'f dyn Fn(i64, OnRow<'_>) -> Result<bool>;

/// The text of a row that is a difference, at most `max_bytes`, and its base as its entry has it.
pub(super) fn unpack(row: &LogRow<'_>, rows: Rows<'_>, max_bytes: usize) -> Result<(Vec<u8>, Box<Base>)> {
    let damaged = |why: &str| codec::damaged(row, why);
    let (header, middle) = Header::read(row.value).ok_or_else(|| damaged("it does not say from what it differs"))?;
    if header.seq >= row.seq {
        return Err(damaged("it differs from a row that came later"));
    }
    if (header.spent as usize) < row.value.len() {
        return Err(damaged("it counts fewer bytes than it has"));
    }
    let mut found = None;
    rows(header.seq, &mut |base| {
        found = Some(header.apply(row, middle, base, max_bytes)?);
        Ok(())
    })?;
    found.ok_or_else(|| damaged(&format!("log row {}, from which it differs, is missing", header.seq)))
}

/// The row from which a row that is a difference differs.
pub(super) fn base_of(row: &LogRow<'_>) -> Option<i64> {
    Header::read(row.value).map(|(header, _)| header.seq)
}

impl Header {
    fn apply(
        self,
        row: &LogRow<'_>,
        middle: &[u8],
        base: &LogRow<'_>,
        max_bytes: usize,
    ) -> Result<(Vec<u8>, Box<Base>)> {
        let damaged = |why: &str| codec::damaged(row, why);
        if (base.scope, base.key, base.check) != (row.scope, row.key, self.check) {
            return Err(damaged("it differs from a row of another key"));
        }
        let mut text = codec::unpack_whole(base, max_bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::Corrupt => damaged_base(row, &error),
                _ => error,
            })?
            .into_owned();
        let (prefix, suffix) = (self.prefix as usize, self.suffix as usize);
        let to = text.len().checked_sub(suffix).filter(|to| prefix <= *to);
        let to = to.ok_or_else(|| damaged("it shares more with another than that has"))?;
        let most = max_bytes.checked_sub(prefix + suffix);
        let middle = codec::inflate(row, middle, most.unwrap_or(0))?;
        if most.is_none_or(|most| middle.len() > most) {
            return Err(damaged("its value is larger than any value may be"));
        }
        let replaced = text.splice(prefix..to, middle.iter().copied()).collect();
        let base = Base {
            seq: base.seq,
            check: base.check,
            scope: base.scope,
            bytes: base.value.len(),
            spent: self.spent as usize,
            prefix,
            middle: replaced,
            suffix,
        };
        Ok((text, Box::new(base)))
    }
}

/// Both rows are named: the one that was asked for, and the one to blame.
fn damaged_base(row: &LogRow<'_>, error: &Error) -> Error {
    Error::corrupt(format!("log row {} differs from a damaged one: {}", row.seq, error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Operation;
    use crate::{Document, ErrorKind};
    use proptest::prelude::*;

    const MOST: usize = 1 << 20;

    fn row(seq: i64, flags: i64, value: &[u8]) -> LogRow<'_> {
        codec::seal(LogRow {
            seq,
            version: seq,
            time_ms: 1,
            scope: 1,
            key: "k",
            operation: Operation::Set,
            prev: 0,
            expires_ms: None,
            flags,
            value,
            origin: [None; 3],
            check: 0,
        })
    }

    /// A base of any length that is never too costly.
    fn base(text: &str) -> Base {
        let row = row(1, 0, text.as_bytes());
        let (prefix, middle) = (text.len(), Box::default());
        Base { seq: 1, check: row.check, scope: 1, bytes: usize::MAX >> 40, spent: 0, prefix, middle, suffix: 0 }
    }

    /// What a row holds, with these rows in the log.
    fn read(row: &LogRow<'_>, log: &[LogRow<'_>], max_bytes: usize) -> Result<(Document, Option<Box<Base>>)> {
        let rows = |seq, look: OnRow<'_>| {
            let found = log.iter().find(|row| row.seq == seq);
            found.map_or(Ok(()), look).map(|()| found.is_some())
        };
        codec::unpack(row, &rows, max_bytes)
    }

    fn refused(row: &LogRow<'_>, log: &[LogRow<'_>], words: &str) {
        let error = read(&codec::seal(*row), log, MOST).expect_err(words);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(words) && error.message().contains("log row 9"), "{error}");
    }

    /// A conversation of so many turns.
    fn turns(count: usize) -> String {
        let turns: Vec<String> = (0..count).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", n * 7_919)).collect();
        format!("[{}]", turns.join(","))
    }

    /// A base and a text that differs from it a little: flags and bytes.
    fn sample() -> (String, i64, Vec<u8>) {
        let (old, new) = (turns(300), turns(301));
        let (flags, bytes, _) = pack(new.as_bytes(), old.as_bytes(), &base(&old)).unwrap();
        assert_eq!(read(&row(9, flags, &bytes), &[row(1, 0, old.as_bytes())], MOST).unwrap().0.text(), new);
        (old, flags, bytes)
    }

    #[test]
    fn a_change_of_any_byte_is_seen() {
        let (old, flags, bytes) = sample();
        let good = row(9, flags, &bytes);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let error = read(&LogRow { value: &bad, ..good }, &[row(1, 0, old.as_bytes())], MOST).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        }
    }

    #[test]
    fn a_forged_header_is_refused() {
        let (old, flags, bytes) = sample();
        let whole = row(1, 0, old.as_bytes());
        let (header, rest) = Header::read(&bytes).unwrap();
        let len = u32::try_from(old.len()).unwrap();
        for (forged, words) in [
            (Header { seq: 2, ..header }, "log row 2, from which it differs, is missing"),
            (Header { seq: 9, ..header }, "came later"),
            (Header { seq: i64::MAX, ..header }, "came later"),
            (Header { seq: i64::MIN, ..header }, "is missing"),
            (Header { check: header.check ^ 1, ..header }, "of another key"),
            (Header { spent: 0, ..header }, "counts fewer bytes"),
            (Header { prefix: len + 1, ..header }, "shares more"),
            (Header { prefix: u32::MAX, ..header }, "shares more"),
            (Header { suffix: len, ..header }, "shares more"),
            (Header { suffix: u32::MAX, ..header }, "shares more"),
            (Header { prefix: u32::MAX, suffix: u32::MAX, ..header }, "shares more"),
        ] {
            let value = [forged.write().as_slice(), rest].concat();
            refused(&row(9, flags, &value), &[whole], words);
        }
        for end in 0..Header::BYTES {
            refused(&row(9, flags, &bytes[..end]), &[whole], "does not say from what");
        }
        refused(&row(9, DELTA | ZSTD, &bytes), &[whole], "compressed value");
        refused(&row(9, DELTA | 8, &bytes), &[whole], "encoding is unknown");
    }

    #[test]
    fn only_a_sound_row_of_the_same_key_that_is_stored_whole_is_a_base() {
        let (old, flags, bytes) = sample();
        let whole = row(1, 0, old.as_bytes());
        let differing = |base: LogRow<'_>| {
            let (header, rest) = Header::read(&bytes).unwrap();
            [Header { check: base.check, ..header }.write().as_slice(), rest].concat()
        };
        for (base, words) in [
            (LogRow { key: "l", ..whole }, "of another key"),
            (LogRow { scope: 2, ..whole }, "of another key"),
            (LogRow { flags: DELTA, ..whole }, "itself stored as a difference"),
            (LogRow { flags: 16, ..whole }, "encoding is unknown"),
            (LogRow { operation: Operation::Delete, ..whole }, "takes a key away and has a value"),
            (LogRow { operation: Operation::Delete, value: b"", ..whole }, "shares more"),
        ] {
            let base = codec::seal(base);
            refused(&row(9, flags, &differing(base)), &[base], words);
        }
        let mut damaged = old.clone().into_bytes();
        damaged[9] ^= 1;
        refused(&row(9, flags, &bytes), &[LogRow { value: &damaged, ..whole }], "log row 1 does not match its check");
    }

    #[test]
    fn a_value_that_is_too_large_is_refused_before_memory_is_taken() {
        let (old, flags, bytes) = sample();
        let whole = row(1, 0, old.as_bytes());
        let len = turns(301).len();
        assert!(read(&row(9, flags, &bytes), &[whole], len).is_ok());
        assert_eq!(read(&row(9, flags, &bytes), &[whole], len - 1).unwrap_err().kind(), ErrorKind::Corrupt);
        let bomb = zstd::bulk::compress(&vec![b' '; MOST], 1).unwrap();
        let (header, _) = Header::read(&bytes).unwrap();
        let value = [Header { spent: u32::MAX, ..header }.write().as_slice(), &bomb].concat();
        refused(&row(9, DELTA | ZSTD, &value), &[whole], "larger than any value");
    }

    #[test]
    fn bytes_that_are_no_text_together_are_refused() {
        let (old, new) = (format!("{}ä", "x".repeat(100)), format!("{}ö", "x".repeat(100)));
        let (flags, bytes, _) = pack(new.as_bytes(), old.as_bytes(), &base(&old)).unwrap();
        let whole = row(1, 0, old.as_bytes());
        let (mut header, rest) = Header::read(&bytes).unwrap();
        assert_eq!((header.prefix, rest), (101, &"ö".as_bytes()[1..]), "both begin with the same byte");
        header.prefix -= 1;
        let value = [header.write().as_slice(), rest].concat();
        refused(&row(9, flags, &value), &[whole], "is not text");
    }

    #[test]
    fn a_growing_value_is_stored_whole_the_more_rarely_the_longer_it_is() {
        let mut whole = Vec::new();
        let (mut before, mut base) = (String::new(), None::<Box<Base>>);
        for count in 200..2_000 {
            let text = turns(count);
            let delta = base.as_ref().and_then(|base| pack(text.as_bytes(), before.as_bytes(), base));
            base = Some(delta.map_or_else(
                || {
                    whole.push(count);
                    Base::of(&row(1, 0, text.as_bytes()), text.len()).unwrap()
                },
                |(_, _, base)| base,
            ));
            before = text;
        }
        let gaps: Vec<usize> = whole.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[0] > 5 && gaps.len() < 60, "{gaps:?}");
    }

    #[test]
    fn what_is_mostly_new_is_stored_whole() {
        let (old, new) = (turns(300), turns(301));
        let costly = Base { bytes: 60, ..base(&old) };
        assert!(pack(new.as_bytes(), old.as_bytes(), &costly).is_none(), "half of it");
        let spent = Base { bytes: old.len(), spent: old.len(), ..base(&old) };
        assert!(pack(new.as_bytes(), old.as_bytes(), &spent).is_none(), "as much as the base already");
        assert!(pack(turns(700).as_bytes(), old.as_bytes(), &base(&old)).is_none(), "less than half is shared");
        assert!(pack(turns(100).as_bytes(), old.as_bytes(), &base(&old)).is_none(), "less than half is left");
    }

    proptest! {
        /// Characters of every length, cut in their middle wherever two texts part.
        #[test]
        fn what_was_packed_is_read(
            start in "[aäöü€😀😁]{0,600}", end in "[aäöü€😀😁]{0,600}", middles in prop::array::uniform3("[aäöü€😀😁]{0,40}"),
        ) {
            let [old, first, second] = middles.map(|middle| format!("{start}{middle}{end}"));
            let log = [row(1, 0, old.as_bytes())];
            let (mut before, mut base) = (&old, Box::new(base(&old)));
            for text in [&first, &second] {
                let Some((flags, bytes, next)) = pack(text.as_bytes(), before.as_bytes(), &base) else { break };
                let (read, found) = read(&row(9, flags, &bytes), &log, MOST)?;
                prop_assert_eq!(read.text(), text);
                for base in [&*next, &*found.unwrap()] {
                    let pieces = base.pieces(text.as_bytes());
                    prop_assert_eq!(&*pieces.between(0, pieces.len()), old.as_bytes());
                }
                (before, base) = (text, next);
            }
        }

        #[test]
        fn what_is_shared_is_found_byte_by_byte(a in "[ab]{0,900}", b in "[ab]{0,9}", at in 0..900_usize) {
            let at = at.min(a.len());
            let other = [&a[..at], &b, &a[at..]].concat();
            let (a, other) = (a.as_bytes(), other.as_bytes());
            let slow = a.iter().zip(other).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_prefix(a, other), slow);
            let slow = a.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_suffix(a, other), slow);
        }
    }
}

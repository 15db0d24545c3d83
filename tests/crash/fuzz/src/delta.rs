//! Rows that store a difference: what was packed comes back, forged ones are refused or read, none ends the process.

use crate::value::MOST;
use crate::{Target, choice, two_texts};
use llmspell_state_persistence::ErrorKind;
use llmspell_state_persistence::inside::{Row, forged, pack, pack_next};

/// A choice; then how often the first text is repeated, where the second one goes, and both with a NUL between, or what a forged
/// row has after the name of its base.
pub const TARGET: Target =
    Target { name: "delta", run, words: &["\0\0\0\0", "\u{1}\0\0\0", "ä", "€", "😀", "abc"] };

fn run(data: &[u8]) {
    let (kind, rest) = choice(data);
    if kind % 2 == 0 { there_and_back(kind, rest) } else { forge(kind, rest) }
}

fn row(seq: i64, flags: i64, value: &[u8]) -> Row<'_> {
    Row { numbers: [seq, seq, 1, 1, seq - 1], key: "k", set: true, expires_ms: None, flags, value }
}

fn there_and_back(kind: u8, data: &[u8]) {
    let (times, rest) = choice(data);
    let (place, rest) = choice(rest);
    let (text, other) = two_texts(rest);
    let text = text.repeat(usize::from(times).min(MOST / text.len().max(1)));
    let at = text.len() * usize::from(place) / 256;
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (start, end) = text.split_at(at);
    let changed = format!("{start}{other}{}", if kind & 2 == 0 { end } else { "" });
    let (before, document) = (forged(&text), forged(&changed));
    let (flags, bytes) = pack(&before, kind & 4 == 0);
    let base = row(1, flags, &bytes);
    let (flags, bytes) = pack_next(&document, &before, &base);
    let read = row(2, flags, &bytes).unpack_from(&base, 2 * MOST).expect("what was packed can be unpacked");
    assert!(read == document, "what was packed");
}

fn forge(kind: u8, data: &[u8]) {
    let text = "0123456789ä".repeat(100);
    let base = row(1, 0, text.as_bytes());
    let value = [1_i64.to_le_bytes().as_slice(), &base.check().to_le_bytes(), data].concat();
    match row(2, 2 + i64::from(kind >> 1 & 1), &value).unpack_from(&base, MOST) {
        Ok(document) => assert!(document.text().len() <= MOST, "{} bytes", document.text().len()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
}

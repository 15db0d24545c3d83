//! Stored rows: damaged ones are noticed, forged ones are refused or read, none ends the process.

use crate::value::{MOST, WORDS, check_canonical, document, read};
use crate::{Target, choice};
use llmspell_state_persistence::ErrorKind;
use llmspell_state_persistence::inside::{Row, pack};

/// A choice, eleven bytes that decide about the columns, the value's bytes.
pub const TARGET: Target = Target { name: "row", run, words: WORDS };

/// Bytes before the value.
const COLUMNS: usize = 11;

fn run(data: &[u8]) {
    let (kind, rest) = choice(data);
    let (columns, rest) = rest.split_at(rest.len().min(COLUMNS));
    let column = |index: usize| columns.get(index).copied().unwrap_or_default();
    let number = |index: usize| i64::from(column(index)) << (column(index) % 57);
    let key: String = columns.iter().map(|byte| char::from(*byte)).collect();
    // Bytes as they are, compressed for whoever forges a row that decompresses, or what a value is packed to.
    let compressed = zstd::bulk::compress(rest, 1).expect("there is memory for a short frame");
    let stored = || {
        let text = String::from_utf8_lossy(rest).repeat(usize::from(column(9) % 32));
        let document = read(&text).or_else(|| Some(text.into())).and_then(|value| document(&value))?;
        let (flags, bytes) = pack(&document, column(8) % 2 == 0);
        Some((document, flags, bytes))
    };
    let stored = if kind % 3 == 2 { stored() } else { None };
    let (flags, value) = match (&stored, kind % 3) {
        (Some((_, flags, bytes)), _) => (*flags, bytes.as_slice()),
        (None, 1) => (1, compressed.as_slice()),
        (None, _) => (number(7), rest),
    };
    let row = Row {
        numbers: [number(0), number(1), number(2), number(3), number(4)],
        key: &key,
        set: column(5) != 0,
        expires_ms: Some(number(6)).filter(|expires| *expires != 0),
        flags,
        value,
    };
    let check = row.check();
    assert!(row.set || row.value.is_empty() || row.verify(check).is_err(), "a deletion with a value");
    if row.set || row.value.is_empty() {
        row.verify(check).expect("a row fits its check");
    }
    match row.unpack(check, MOST) {
        Ok(document) => {
            assert!(document.text().len() <= MOST.max(value.len()), "{} bytes", document.text().len());
            let _ = (document.parse(), document.tape().is_ok());
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
    if let Some((document, ..)) = stored.as_ref().filter(|_| row.set) {
        let read = row.unpack(check, MOST).expect("what was packed can be unpacked");
        assert_eq!(read, *document, "what was packed");
        check_canonical(&read);
    }
    check_damage(&row, check, usize::from(column(10)));
}

/// One bit of one column is another.
fn check_damage(row: &Row<'_>, check: i64, place: usize) {
    let noticed = |damaged: &Row<'_>, what: &str| {
        let error = damaged.verify(check).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    };
    let mut damaged = row.clone();
    damaged.numbers[place % 5] ^= 1 << (place % 64);
    noticed(&damaged, "another number");
    noticed(&Row { flags: row.flags ^ 1 << (place % 64), ..row.clone() }, "another encoding");
    noticed(&Row { set: !row.set, ..row.clone() }, "another operation");
    noticed(&Row { expires_ms: Some(row.expires_ms.unwrap_or(0) ^ 1), ..row.clone() }, "another time to expire");
    noticed(&Row { key: &format!("{}x", row.key), ..row.clone() }, "another key");
    let mut value = row.value.to_vec();
    value.push(0);
    noticed(&Row { value: &value, ..row.clone() }, "a longer value");
    value.pop();
    if !value.is_empty() {
        let at = place % value.len();
        value[at] ^= 1 << (place % 8);
        noticed(&Row { value: &value, ..row.clone() }, "another value");
    }
}

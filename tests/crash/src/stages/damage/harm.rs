//! Damage to one file.

use crate::Failure;
use fastrand::Rng;
use rusqlite::{Connection, OpenFlags};
use std::fmt;
use std::fs;
use std::path::Path;

const PAGE: usize = 4096;
const BLOCK: usize = 512;
/// A page of the log with its header.
const FRAME: usize = PAGE + 24;

/// What was done to which file.
#[derive(Debug)]
pub(super) struct Harm {
    pub(super) file: &'static str,
    what: String,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// What the store's files are called, each as often as it shall be damaged.
const FILES: [(&str, u32); 5] =
    [("store.db", 55), ("store.db-wal", 30), ("store.db-shm", 4), ("store.db-mark", 8), ("store.db-ballast", 3)];

/// What may be wrong with a row although its page is as it was written.
const ROW: [&str; 10] = [
    "value = '7'",
    "version = version + 1",
    "time = time + 1",
    "key = key || 'x'",
    "scope_id = scope_id + 1",
    "operation = 1 - operation",
    "prev = prev + 1",
    "flags = 1 - flags",
    "expires_at = 1",
    "row_check = row_check + 1",
];

/// What may be wrong with how far a watch is kept.
const CURSOR: [&str; 4] = [
    "seq = seq + 1000000",
    "version = version + 1000000",
    "seq = seq + 1000000, version = version + 1",
    "version = version - 1",
];

/// Changes a row that a key points at, or that of a named watch, through pages with good checks.
fn change_row(path: &Path, random: &mut Rng) -> Result<Harm, Failure> {
    let database = Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, "llmspell-state")?;
    if random.u32(0..8) == 0 {
        let change = CURSOR[random.usize(0..CURSOR.len())];
        database.execute(&format!("UPDATE cursor SET {change}"), [])?;
        return Ok(Harm { file: "store.db", what: format!("the named watch: {change}") });
    }
    let change = ROW[random.usize(0..ROW.len())];
    let any =
        "SELECT seq FROM entry WHERE live ORDER BY seq LIMIT 1 OFFSET ?1 % (SELECT count(*) FROM entry WHERE live)";
    let seq: i64 = database.query_row(any, [random.u32(..)], |row| row.get(0))?;
    database.execute(&format!("UPDATE log SET {change} WHERE seq = ?1"), [seq])?;
    Ok(Harm { file: "store.db", what: format!("row {seq}: {change}") })
}

/// Damages one of the files in `dir`.
pub(super) fn harm(dir: &Path, random: &mut Rng) -> Result<Harm, Failure> {
    if random.u32(0..16) == 0 {
        return change_row(&dir.join("store.db"), random);
    }
    let there: Vec<(&'static str, u32)> =
        FILES.into_iter().filter(|(file, _)| dir.join(file).metadata().is_ok_and(|file| file.len() > 0)).collect();
    let mut pick = random.u32(0..there.iter().map(|(_, often)| often).sum());
    let file = there.iter().find(|(_, often)| {
        let found = pick < *often;
        pick = pick.saturating_sub(*often);
        found
    });
    let (file, _) = *file.ok_or_else(|| Failure::new("no file to damage"))?;
    let path = dir.join(file);
    let mut bytes = fs::read(&path)?;
    let what = change(&mut bytes, file, random);
    fs::write(path, bytes)?;
    Ok(Harm { file, what })
}

/// A place where something is: most of a log is room for what is to come.
fn place(bytes: &[u8], file: &str, random: &mut Rng) -> usize {
    let end =
        if file.ends_with("-wal") { bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1 } else { bytes.len() };
    // The head of a file decides most.
    if random.u32(0..6) == 0 { random.usize(0..end.min(128)) } else { random.usize(0..end) }
}

fn change(bytes: &mut Vec<u8>, file: &str, random: &mut Rng) -> String {
    let step = if file.ends_with("-wal") { FRAME } else { PAGE };
    let at = place(bytes, file, random);
    match random.u32(0..16) {
        0..5 => {
            let bit = random.u32(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        5 => {
            for _ in 0..3 {
                let at = place(bytes, file, random);
                bytes[at] ^= 1 << random.u32(0..8);
            }
            "three bits flipped".into()
        }
        6..8 => {
            bytes[at] = random.u8(..);
            format!("byte {at} is {}", bytes[at])
        }
        8 => fill(bytes, at / BLOCK * BLOCK, BLOCK, random),
        9 => fill(bytes, at / PAGE * PAGE, PAGE, random),
        10 => {
            let at = random.usize(0..bytes.len());
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        11 => {
            let pages = random.usize(0..=bytes.len() / PAGE);
            bytes.truncate(pages * PAGE);
            format!("cut to {pages} pages")
        }
        12 => {
            let more = random.usize(1..3 * PAGE);
            let zero = random.bool();
            let random_byte = |random: &mut Rng| if zero { 0 } else { random.u8(..) };
            bytes.extend(std::iter::repeat_with(|| random_byte(random)).take(more));
            format!("{more} bytes longer")
        }
        kind => copy_step(bytes, at / step, step, kind == 13, random),
    }
}

/// Overwrites a run of bytes.
fn fill(bytes: &mut [u8], from: usize, len: usize, random: &mut Rng) -> String {
    let to = (from + len).min(bytes.len());
    let zero = random.bool();
    for byte in &mut bytes[from..to] {
        *byte = if zero { 0 } else { random.u8(..) };
    }
    format!("bytes {from} to {to} {}", if zero { "zeroed" } else { "random" })
}

/// Puts one page (or frame of the log) in the place of another, or both in each other's.
fn copy_step(bytes: &mut [u8], one: usize, step: usize, swap: bool, random: &mut Rng) -> String {
    let head = if step == FRAME { 32 } else { 0 };
    let count = bytes.len().saturating_sub(head) / step;
    if count < 2 {
        return fill(bytes, 0, BLOCK, random);
    }
    let (one, other) = (one.min(count - 1), random.usize(0..count));
    let range = |index: usize| head + index * step..head + (index + 1) * step;
    let (first, second) = (bytes[range(one)].to_vec(), bytes[range(other)].to_vec());
    bytes[range(one)].copy_from_slice(&second);
    if swap {
        bytes[range(other)].copy_from_slice(&first);
    }
    format!("page {other} put in the place of {one}{}", if swap { " and the other way round" } else { "" })
}

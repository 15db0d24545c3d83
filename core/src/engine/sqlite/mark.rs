//! The high-water mark: the newest acknowledged version, in a small file beside the store.
//!
//! One damaged bit in the log makes SQLite drop every later commit without a word, and an older copy that is put in the place
//! of the store looks as good as the present. A store that holds less than its mark has lost acknowledged writes.

use super::file::{self, beside, from_io, write_at};
use crate::{Error, ErrorKind, Result, SyncMode, clock, harness};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The first bytes of every mark.
const MAGIC: [u8; 8] = *b"LLSTmark";
/// Magic, store, version, safe version, boot and check, in bytes.
const LEN: usize = 8 + 36 + 8 + 8 + 36 + 8;

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    /// The identity of the store, so that the mark of another file says nothing about this one.
    store: [u8; 36],
    /// The newest acknowledged version.
    version: i64,
    /// The newest one that a power cut cannot take away.
    safe: i64,
    /// The boot of the machine in which that was written; zeroes where the system does not tell.
    boot: [u8; 36],
}

impl Words {
    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let (words, check) = bytes.split_at_mut(LEN - 8);
        let parts: [&[u8]; 5] =
            [&MAGIC, &self.store, &self.version.to_le_bytes(), &self.safe.to_le_bytes(), &self.boot];
        let mut at = 0;
        for part in parts {
            words[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        check.copy_from_slice(&xxh3_64(words).to_le_bytes());
        bytes
    }

    /// Nothing for bytes that are no mark, or a damaged one.
    fn decode(bytes: &[u8; LEN]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (first, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*first)
        }
        let rest = &mut bytes.as_slice();
        let magic: [u8; 8] = take(rest)?;
        let words = Self {
            store: take(rest)?,
            version: i64::from_le_bytes(take(rest)?),
            safe: i64::from_le_bytes(take(rest)?),
            boot: take(rest)?,
        };
        let check = u64::from_le_bytes(take(rest)?);
        (magic == MAGIC && check == xxh3_64(&bytes[..LEN - 8])).then_some(words)
    }

    /// The version that the store must hold at least: without `FULL`, a power cut may have taken the newest ones.
    fn owed(&self) -> i64 {
        if self.boot == [0; 36] || self.boot != this_boot() { self.safe } else { self.version }
    }
}

/// The mark of an open store.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    /// Nothing until the file beside it is known to be a store.
    file: Option<File>,
    words: Words,
    synced: bool,
}

impl Mark {
    /// Reads the mark beside the store at `path`; one that is missing owes nothing. To be called before the store is read:
    /// other processes may be raising both.
    pub(super) fn open(path: &Path, sync_mode: SyncMode) -> Result<Self> {
        let path = beside(path, "-mark");
        let file = match file::open(&path, false) {
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        // A mark that is too short, or damaged, says nothing: it takes a second damage to lose a write unseen.
        let found = file.as_ref().and_then(|file| {
            let mut bytes = [0; LEN];
            file.read_exact_at(&mut bytes, 0).ok()?;
            Words::decode(&bytes)
        });
        let words = found.unwrap_or(Words { store: [0; 36], version: 0, safe: 0, boot: [0; 36] });
        Ok(Self { path, file, words, synced: sync_mode == SyncMode::Full })
    }

    /// Refuses to make a new store where one was: its file was emptied, or damage hides what was in it. Whoever starts anew on
    /// purpose removes the file.
    ///
    /// # Errors
    /// `DataLoss` when commits of that store were acknowledged.
    pub(super) fn owes_nothing(&self, path: &Path) -> Result<()> {
        match self.words.owed() {
            0 => Ok(()),
            owed => Err(Error::new(
                ErrorKind::DataLoss,
                format!(
                    "{} is empty, but version {owed} of the store in it was acknowledged; restore a backup. To start anew, \
                     remove it, or open it once with accept_rollback = true",
                    path.display()
                ),
            )),
        }
    }

    /// Compares the mark with what the store holds, and lets it start from there.
    ///
    /// # Errors
    /// `DataLoss` when acknowledged commits are missing, unless the caller accepts that.
    pub(super) fn compare(&mut self, store_id: &str, version: i64, accept_rollback: bool, path: &Path) -> Result<()> {
        let store = identity(store_id);
        if self.words.store == store {
            let owed = self.words.owed();
            if version < owed && !accept_rollback && !harness::sabotaged("no-mark") {
                return Err(Error::new(
                    ErrorKind::DataLoss,
                    format!(
                        "{} holds commits up to version {version}, but version {owed} was acknowledged: the newest commits \
                         are missing. If an older copy was put here on purpose, open it once with accept_rollback = true; \
                         otherwise restore a backup",
                        path.display()
                    ),
                ));
            }
            if version == self.words.version && self.words.boot == this_boot() {
                return Ok(());
            }
        }
        // What another process has acknowledged meanwhile it writes here again at its next commit.
        let safe = if self.words.store == store { self.words.safe.min(version) } else { 0 };
        self.words = Words { store, version, safe, boot: this_boot() };
        if self.file.is_none() {
            self.file = Some(file::open(&self.path, true)?);
        }
        self.write().map_err(|e| from_io("writing", &self.path, e))
    }

    /// Raises the mark to a version that is committed. The commit stands whatever comes of this, and the next one tries again;
    /// a lower mark only promises less.
    pub(super) fn raise(&mut self, version: i64) {
        self.words.version = version;
        if self.synced {
            self.words.safe = version;
        }
        let _ = self.write();
    }

    /// After everything was synced.
    pub(super) fn all_safe(&mut self) {
        self.words.safe = self.words.version;
        let _ = self.write();
    }

    fn write(&self) -> std::io::Result<()> {
        match &self.file {
            Some(file) => write_at(file, &self.path, 0, &self.words.encode()),
            None => Ok(()),
        }
    }
}

fn identity(store_id: &str) -> [u8; 36] {
    let mut store = [0; 36];
    for (place, byte) in store.iter_mut().zip(store_id.bytes()) {
        *place = byte;
    }
    store
}

/// Tells one boot of the machine from another; zeroes where the system does not.
fn this_boot() -> [u8; 36] {
    identity(&clock::boot().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words { store: identity("a store"), version: 7, safe: 5, boot: this_boot() }
    }

    #[test]
    fn a_mark_reads_as_it_was_written_and_a_damaged_one_says_nothing() {
        let bytes = words().encode();
        assert_eq!(Words::decode(&bytes), Some(words()));
        for bit in 0..LEN * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Words::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn after_a_power_cut_only_what_was_synced_is_owed() {
        assert_eq!(words().owed(), 7);
        assert_eq!(Words { boot: identity("before the power cut"), ..words() }.owed(), 5);
    }
}

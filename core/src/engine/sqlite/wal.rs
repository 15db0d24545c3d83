//! The write-ahead log seen from outside: a mapping of its index that tells whether anybody has committed, and the file
//! itself, kept large enough that a commit does not change its size.

use super::file::{self, beside, from_io, write_at};
use super::guard::Guard;
use crate::Result;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// A page of the database with its header in the log, in bytes.
pub(super) const FRAME: u64 = 4096 + 24;
/// The header of the log file, in bytes.
pub(super) const HEADER: u64 = 32;
/// Room that a commit should find ready, in bytes.
const ROOM: u64 = 16 * FRAME;
/// The log grows in steps of what it holds already, between these bounds, in bytes.
const STEP: std::ops::RangeInclusive<u64> = 64 * FRAME..=1024 * FRAME;

/// The wal-index header (`wal.c`, `WalIndexHdr`), in 32-bit words: two copies, the second written first.
const WORDS: usize = 12;
const CHANGE: usize = 2;
const LAST_FRAME: usize = 4;
/// Byte offset of the first copy's checksum, which differs whenever anything in the header does.
const CHECKSUM: usize = 40;
const MAPPED: usize = 4096;

/// One consistent reading of the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexHeader {
    /// Grows by one with every commit.
    pub(super) change: u32,
    /// Frames in the log.
    pub(super) last_frame: u32,
    pub(super) stamp: u64,
}

/// A read-only mapping of the wal-index (`-shm`).
#[derive(Debug)]
pub(super) struct WalIndex {
    start: *const libc::c_void,
    path: PathBuf,
    /// Stays open, and its lock held, until after SQLite's last close; see [`super::guard`].
    file: Mutex<Option<File>>,
}

// SAFETY: the mapping is only read, through atomics, and lives as long as the value.
#[allow(unsafe_code)]
unsafe impl Send for WalIndex {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for WalIndex {}

#[allow(unsafe_code)]
impl WalIndex {
    /// Maps the index that SQLite has made for the database at `path`.
    pub(super) fn map(path: &Path) -> Result<Self> {
        let path = beside(path, "-shm");
        let file = File::open(&path).map_err(|e| from_io("opening", &path, e))?;
        Guard::take_wal_index(&file, &path)?;
        // SAFETY: a fresh mapping of an open file, at least one page long since SQLite has written its header. SQLite never
        // shortens the index while it is in use, which the guard's lock says it is.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), MAPPED, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(from_io("mapping", &path, std::io::Error::last_os_error()));
        }
        Ok(Self { start: start.cast_const(), path, file: Mutex::new(Some(file)) })
    }

    /// A number that differs after every commit of any process.
    pub(super) fn stamp(&self) -> u64 {
        // SAFETY: inside the mapping and aligned to 8 bytes; other processes write there, hence atomic.
        unsafe { (*self.start.byte_add(CHECKSUM).cast::<AtomicU64>()).load(Ordering::Acquire) }
    }

    /// Makes sure that the index still has its name: others that make a new one would neither see our locks nor our commits.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file::check_named(file, &self.path).map(drop),
            None => Ok(()),
        }
    }

    /// After SQLite's last close: lets go of the file. The mapping stays readable, and stands still. Were the file closed
    /// only when the last handle is dropped, a store opened meanwhile would lose its locks on it.
    pub(super) fn release(&self) {
        if let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Guard::leave_wal_index(&file);
        }
    }

    fn word(&self, index: usize) -> u32 {
        debug_assert!(index < 2 * WORDS);
        // SAFETY: inside the mapping and aligned to 4 bytes; other processes write there, hence atomic.
        unsafe { (*self.start.cast::<AtomicU32>().add(index)).load(Ordering::Relaxed) }
    }

    /// The header, unless it is being written at this moment. A writer writes the second copy, then the first; so when the
    /// first, read before the second, equals it, neither was half written.
    pub(super) fn header(&self) -> Option<IndexHeader> {
        let stamp = self.stamp();
        let first: [u32; WORDS] = std::array::from_fn(|i| self.word(i));
        fence(Ordering::SeqCst);
        let second: [u32; WORDS] = std::array::from_fn(|i| self.word(WORDS + i));
        let consistent = first == second && stamp == self.stamp();
        consistent.then(|| IndexHeader { change: first[CHANGE], last_frame: first[LAST_FRAME], stamp })
    }
}

#[allow(unsafe_code)]
impl Drop for WalIndex {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nobody can hold a reference into it.
        unsafe { libc::munmap(self.start.cast_mut(), MAPPED) };
    }
}

/// The log file (`-wal`).
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    file: File,
}

impl Wal {
    /// Opens the log that SQLite has made for the database at `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = beside(path, "-wal");
        let failed = |e| from_io("opening", &path, e);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        Ok(Self { path, file })
    }

    /// Makes sure that the log still has its name, and tells its size in bytes.
    pub(super) fn check(&self) -> Result<u64> {
        file::check_named(&self.file, &self.path).map(|metadata| metadata.len())
    }

    /// Adds zeroes behind the log unless `frames` leave room for another commit, so that most commits find
    /// the file large enough and their sync has no change of size to write (measured: 2 to 8 times faster).
    ///
    /// Only inside the write transaction: nobody else may append. SQLite takes zeroes for the end of the log.
    pub(super) fn make_room(&self, frames: u32) -> Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        let size = self.check()?;
        let used = HEADER + u64::from(frames) * FRAME;
        if used + ROOM <= size {
            return Ok(());
        }
        if size == 0 {
            // The disk may still have the log that was emptied. Zeroes over a part of it would bring back another part, older
            // than the database.
            file::sync(&self.file, &self.path).map_err(|e| from_io("emptying", &self.path, e))?;
        }
        let from = size.max(used);
        let to = from + used.clamp(*STEP.start(), *STEP.end());
        let mut at = from;
        while at < to {
            let len = ZEROES.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
            write_at(&self.file, &self.path, at, &ZEROES[..len]).map_err(|e| from_io("enlarging", &self.path, e))?;
            at += len as u64;
        }
        Ok(())
    }
}

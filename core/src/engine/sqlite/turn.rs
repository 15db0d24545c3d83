//! Whose turn it is, among all processes, to write and to move the log.
//!
//! SQLite asks for that with POSIX locks on the wal-index, and a `close` of that file by anybody in the process drops them all,
//! also in the middle of a commit: another SQLite in the process does that, or a program that reads the files of the store.
//! Another process then commits, or moves the log, at the same time, and what was acknowledged is overwritten. So processes
//! take turns by locks of their own, which belong to a descriptor, on a file that SQLite does not know.

use super::file;
use super::guard::{self, Bytes};
use crate::{Result, fork, harness};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of the mark that nothing is ever written to.
const WRITING: Bytes = Bytes { start: 0x4000_0000, len: 1 };
const MOVING: Bytes = Bytes { start: 0x4000_0001, len: 1 };

/// One kind of turn.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    bytes: Bytes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    /// Forks of this process before the file was opened.
    forks: u64,
    /// Calls of this process whose turn it is. Among them SQLite's own locks decide, which it keeps in memory.
    holders: u32,
}

/// A turn that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Held<'t>(&'t Turn);

impl Turn {
    /// The turns of those who write to the store at `path`.
    pub(super) fn of_writing(path: &Path) -> Self {
        Self { path: file::beside(path, "-mark"), bytes: WRITING, state: Mutex::default() }
    }

    /// The turns of those who move its log into the database.
    pub(super) fn of_moving(path: &Path) -> Self {
        Self { bytes: MOVING, ..Self::of_writing(path) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn unless another process has it.
    pub(super) fn take(&self) -> Result<Option<Held<'_>>> {
        let mut state = self.state();
        if state.holders == 0 && guard::HAS_OWN_LOCKS && !harness::sabotaged("no-turn") {
            // A child of a fork shares the descriptor, and with it would keep the turn of a parent that dies.
            let forks = fork::forks();
            // Nor does a file that has lost its name say anything to those who come later.
            let is_ours = state.forks == forks;
            let kept = state.file.take().filter(|_| is_ours);
            let file = match kept.filter(|file| file.metadata().is_ok_and(|file| file.nlink() > 0)) {
                Some(file) => file,
                None => file::open(&self.path, true)?,
            };
            let free = guard::lock(&file, self.bytes, true).map_err(|e| file::from_io("locking", &self.path, e))?;
            (state.file, state.forks) = (Some(file), forks);
            if !free {
                return Ok(None);
            }
        }
        state.holders += 1;
        Ok(Some(Held(self)))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.holders -= 1;
        if state.holders == 0
            && let Some(file) = &state.file
        {
            // Should it fail, the file's end ends the lock.
            if guard::unlock(file, self.0.bytes).is_err() {
                state.file = None;
            }
        }
    }
}

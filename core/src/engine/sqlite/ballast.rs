//! Space that is kept back for a full disk: on one, SQLite can neither delete nor move its log into the database.

use super::file::{self, beside, from_io};
use crate::harness::{self, Event};
use crate::{Result, limits};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The space kept back for a store, shared by all processes that have it open.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    file: File,
}

impl Ballast {
    /// Takes the space for the store at `path`, if the disk has it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = beside(path, "-ballast");
        let file = file::open(&path, true)?;
        let ballast = Self { path, file };
        ballast.take()?;
        Ok(ballast)
    }

    /// Whether the space is there, or could be taken again just now.
    ///
    /// # Errors
    /// `Io` when the disk does not say.
    pub(super) fn take(&self) -> Result<bool> {
        let failed = |e| from_io("enlarging", &self.path, e);
        let size = self.file.metadata().map_err(failed)?.len();
        if size >= limits::BALLAST_BYTES {
            return Ok(true);
        }
        // Only when as much again is free: what was given up a moment ago must not be taken back from those who delete.
        match self.resize(2 * limits::BALLAST_BYTES).and_then(|()| self.file.set_len(limits::BALLAST_BYTES)) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                // It may have taken what little there was.
                self.release();
                Ok(false)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Whether there is space kept back that could be given.
    pub(super) fn is_held(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.len() > 0)
    }

    /// Gives the space back to the disk.
    pub(super) fn release(&self) {
        if harness::sabotaged("keep-ballast") {
            return;
        }
        // Where this fails, the disk stays as full as it was.
        let _ = self.resize(0);
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        harness::event(&Event::Resize { path: &self.path, len })?;
        if len == 0 { self.file.set_len(0) } else { allocate(&self.file, len) }
    }
}

/// Makes a file as long as this, with blocks on the disk for all of it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: a plain system call on an open descriptor.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let blocks = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.write_all_at(&blocks, 0)
}

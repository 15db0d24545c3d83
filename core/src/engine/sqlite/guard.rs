//! Locks of our own on the store's files, which no other part of this process can drop.
//!
//! SQLite's locks are POSIX locks: they belong to the process, and any `close` of the database file, by whomever in the
//! process, drops them all. Another process then believes that it is alone, and deletes the log under us. So a store keeps
//! descriptors of its own with open-file-description locks on the very bytes that SQLite locks to say "in use"
//! (`os_unix.c`: `SHARED_FIRST`, `UNIX_SHM_DMS`), and closes them only after SQLite has closed everything.

use super::file::{beside, check_named, from_io, remove};
use super::shm;
use crate::{Error, ErrorKind, Result, harness};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The bytes that every user of a database holds a shared lock on.
const SHARED: Bytes = Bytes { start: 0x4000_0002, len: 510 };
/// Beyond SQLite's bytes: shared users of the store hold it for reading, an exclusive one for writing.
const OCCUPIED: Bytes = Bytes { start: 0x4000_0200, len: 1 };
/// The byte of the wal-index that every user of it holds a shared lock on.
const WAL_INDEX_USED: Bytes = Bytes { start: 128, len: 1 };

/// A part of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    pub(super) start: libc::off_t,
    pub(super) len: libc::off_t,
}

/// Whether the system has locks that belong to descriptors.
pub(super) const HAS_OWN_LOCKS: bool = cfg!(target_os = "linux");

/// The locks of one open store.
#[derive(Debug)]
pub(super) struct Guard {
    path: PathBuf,
    database: File,
}

impl Guard {
    /// Says that this process uses the store, alone or with others.
    pub(super) fn take(path: &Path, database: File, exclusive: bool) -> Result<Self> {
        if lock(&database, OCCUPIED, exclusive).map_err(|e| from_io("locking", path, e))? {
            return Ok(Self { path: path.to_owned(), database });
        }
        let other =
            if exclusive { "is open in another process" } else { "is open in another process with exclusive = true" };
        Err(Error::new(ErrorKind::Busy, format!("{} {other}; close it there first", path.display())))
    }

    /// Whether nobody else uses the database at this moment.
    pub(super) fn is_alone(&self) -> Result<bool> {
        let failed = |e| from_io("locking", &self.path, e);
        let alone = lock(&self.database, SHARED, true).map_err(failed)?;
        set_lock(&self.database, SHARED, Lock::None).map_err(failed)?;
        Ok(alone)
    }

    /// Takes part in the shared use of the database file, waiting up to `patience` for a process that is just leaving.
    ///
    /// Only once the file is in write-ahead mode: SQLite changes the mode as its only user, which this lock would prevent.
    pub(super) fn share(&self, patience: Duration) -> Result<()> {
        if harness::sabotaged("no-guard") {
            return Ok(());
        }
        let start = Instant::now();
        while !lock(&self.database, SHARED, false).map_err(|e| from_io("locking", &self.path, e))? {
            if start.elapsed() > patience {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("{} is locked by another program", self.path.display()),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Takes part in the use of the wal-index.
    pub(super) fn take_wal_index(wal_index: &File, path: &Path) -> Result<()> {
        if harness::sabotaged("no-guard") {
            return Ok(());
        }
        match lock(wal_index, WAL_INDEX_USED, false) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(ErrorKind::Busy, format!("{} is locked by another program", path.display()))),
            Err(e) => Err(from_io("locking", path, e)),
        }
    }

    /// Makes sure that the database file still has its name.
    pub(super) fn check(&self) -> Result<()> {
        check_named(&self.database, &self.path).map(drop)
    }

    /// After SQLite's last close: ends the part in the use of the wal-index.
    pub(super) fn leave_wal_index(wal_index: &File) {
        // A child of a fork shares the lock: closing our descriptor alone would leave it locked for as long as the child lives.
        let _ = set_lock(wal_index, WAL_INDEX_USED, Lock::None);
    }

    /// After SQLite's last close: removes the emptied log and the wal-index if nobody else uses the store, as SQLite
    /// itself would have done if this guard had not been there.
    pub(super) fn leave(self) {
        let alone = lock(&self.database, SHARED, true).unwrap_or(false);
        let wal = beside(&self.path, "-wal");
        if alone && wal.metadata().is_ok_and(|wal| wal.len() == 0) {
            // Whatever stays is found and used by the next open.
            let _ = remove(&wal);
            let _ = remove(&beside(&self.path, "-shm"));
        }
        if alone {
            let _ = remove(&beside(&self.path, "-ballast"));
        }
        // As for the wal-index: children of a fork share these locks.
        let _ = set_lock(&self.database, SHARED, Lock::None);
        let _ = set_lock(&self.database, OCCUPIED, Lock::None);
    }
}

impl Drop for Guard {
    /// After SQLite's last close, also when opening has failed.
    fn drop(&mut self) {
        shm::release(&self.path);
    }
}

/// Lets go of bytes that this descriptor has locked.
pub(super) fn unlock(file: &File, bytes: Bytes) -> io::Result<()> {
    set_lock(file, bytes, Lock::None).map(drop)
}

/// Tries to lock bytes for this descriptor, for reading or for writing.
pub(super) fn lock(file: &File, bytes: Bytes, for_writing: bool) -> io::Result<bool> {
    set_lock(file, bytes, if for_writing { Lock::Write } else { Lock::Read })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    None,
    Read,
    Write,
}

/// Tries to give bytes this lock.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_lock(file: &File, bytes: Bytes, lock: Lock) -> io::Result<bool> {
    use std::os::fd::AsRawFd as _;
    let kind = match lock {
        Lock::None => libc::F_UNLCK,
        Lock::Read => libc::F_RDLCK,
        Lock::Write => libc::F_WRLCK,
    };
    // SAFETY: flock is plain data for which all zeroes is a value (l_pid must be 0 here); the descriptor is open.
    let answer = unsafe {
        let mut wanted: libc::flock = std::mem::zeroed();
        #[allow(clippy::cast_possible_truncation)] // both constants fit; their types differ between platforms
        {
            wanted.l_type = kind as libc::c_short;
            wanted.l_whence = libc::SEEK_SET as libc::c_short;
        }
        wanted.l_start = bytes.start;
        wanted.l_len = bytes.len;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted)
    };
    if answer == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Without open-file-description locks SQLite's own have to do.
#[cfg(not(target_os = "linux"))]
fn set_lock(_: &File, _: Bytes, lock: Lock) -> io::Result<bool> {
    Ok(lock != Lock::Write)
}

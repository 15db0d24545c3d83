//! The locks on the wal-index, by which those who use a store at the same time keep out of each other's way: who writes, who moves
//! the log, and which part of it readers still need.
//!
//! SQLite takes them as POSIX locks, and a `close` of the wal-index by anybody in the process drops them all, in the middle of a
//! commit or of a read: another SQLite in the process does that, or a program that reads the files of the store. Another process
//! then commits at the same time, or starts the log over under a reader. So the locks are taken here, on the same bytes
//! (`os_unix.c`: `UNIX_SHM_BASE`), but for a descriptor of our own; any other SQLite, in this process or not, respects them.

use super::file::{self, FileId, from_io};
use super::guard::{self, Bytes};
use crate::{ErrorKind, Result, fork, harness};
use rusqlite::ffi;
use std::ffi::c_int;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many locks there are.
const LOCKS: usize = ffi::SQLITE_SHM_NLOCK as usize;
/// The byte of the first one.
const FIRST: libc::off_t = 120;

/// Of every wal-index that this process uses, the locks. They stay until [`release`]: were their descriptor closed with the last
/// connection, and opened again with the next, that would drop what another SQLite in this process has locked.
static ALL: Mutex<Vec<Arc<Locks>>> = Mutex::new(Vec::new());

/// Whether the locks are taken here rather than by SQLite: not where the system has none that belong to descriptors, nor over a
/// layer that tests put in the place of the system's.
pub(super) fn are_ours() -> bool {
    guard::HAS_OWN_LOCKS && harness::vfs().is_none() && !harness::sabotaged("posix-locks")
}

/// Lets go of the wal-index of a database to which this process has closed all connections.
pub(super) fn release(database: &Path) {
    let path = file::beside(database, "-shm");
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|locks| locks.path != path || Arc::strong_count(locks) > 1);
}

/// The locks of one wal-index, shared by all connections of this process.
struct Locks {
    path: PathBuf,
    id: FileId,
    /// The database that it is the index of.
    database: FileId,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Arc<File>,
    /// Forks of this process before the file was opened.
    forks: u64,
    /// Those from before, which stay open: closing one would drop what another SQLite in this process has locked.
    earlier: Vec<Arc<File>>,
    locks: [Lock; LOCKS],
}

/// How one lock is held in this process.
#[derive(Default)]
struct Lock {
    held: Held,
    /// The descriptor that it is held for.
    file: Option<Arc<File>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Held {
    #[default]
    Free,
    Shared(u32),
    Exclusive,
}

/// Opens the wal-index at a path.
fn open(path: &Path) -> Result<(File, FileId)> {
    let file = file::open(path, false)?;
    let metadata = file.metadata().map_err(|e| from_io("looking at", path, e))?;
    Ok((file, FileId::of(&metadata)))
}

/// What the system knows the file at a path by.
fn identify(path: &Path) -> Result<FileId> {
    path.symlink_metadata().map(|metadata| FileId::of(&metadata)).map_err(|e| from_io("looking at", path, e))
}

impl Locks {
    /// Those of the wal-index of a database, which is opened only if it is not open yet.
    fn of(database: &Path, path: &Path) -> Result<Arc<Self>> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let (database, there) = (identify(database)?, identify(path)?);
        if let Some(locks) = all.iter().find(|locks| locks.id == there) {
            return Ok(Arc::clone(locks));
        }
        let is_old = |locks: &Arc<Self>| locks.path == path && locks.database == database;
        all.retain(|locks| !is_old(locks) || Arc::strong_count(locks) > 1);
        if all.iter().any(is_old) {
            // SQLite keeps to the one that it has mapped for this database, also what a fork has left of its parent's.
            return Err(file::replaced(path));
        }
        let (file, id) = open(path)?;
        let inner =
            Inner { file: Arc::new(file), forks: fork::forks(), earlier: Vec::new(), locks: Default::default() };
        let locks = Arc::new(Self { path: path.to_owned(), id, database, inner: Mutex::new(inner) });
        all.push(Arc::clone(&locks));
        Ok(locks)
    }

    /// Locks some of them, if nobody else holds them in another way.
    fn take(&self, which: Which, exclusive: bool) -> Result<bool> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = &inner.locks[which.range()];
        if !exclusive && let Held::Shared(holders) = mine[0].held {
            inner.locks[which.first].held = Held::Shared(holders + 1);
            return Ok(true);
        }
        if mine.iter().any(|lock| lock.held != Held::Free) {
            return Ok(false);
        }
        let file = inner.current(self)?;
        if !guard::lock(&file, which.bytes(), exclusive).map_err(|e| from_io("locking", &self.path, e))? {
            return Ok(false);
        }
        let held = if exclusive { Held::Exclusive } else { Held::Shared(1) };
        for lock in &mut inner.locks[which.range()] {
            *lock = Lock { held, file: Some(Arc::clone(&file)) };
        }
        Ok(true)
    }

    /// Lets go of locks that were taken together.
    fn give(&self, which: Which) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Held::Shared(holders @ 2..) = inner.locks[which.first].held {
            inner.locks[which.first].held = Held::Shared(holders - 1);
            return Ok(());
        }
        if let Some(file) = &inner.locks[which.first].file {
            guard::unlock(file, which.bytes()).map_err(|e| from_io("unlocking", &self.path, e))?;
        }
        inner.locks[which.range()].fill_with(Lock::default);
        Ok(())
    }
}

impl Inner {
    /// The descriptor for the next lock. A child of a fork shares that of its parent, with which it would keep the locks of one that
    /// dies, and count as the same holder: so after a fork both take new ones.
    fn current(&mut self, of: &Locks) -> Result<Arc<File>> {
        let forks = fork::forks();
        // A file that has lost its name says nothing to those who come later; what is written then is refused.
        if self.forks != forks && self.file.metadata().is_ok_and(|file| file.nlink() > 0) {
            let (file, id) = open(&of.path)?;
            if id != of.id {
                return Err(file::replaced(&of.path));
            }
            self.earlier.push(std::mem::replace(&mut self.file, Arc::new(file)));
            self.forks = forks;
        }
        Ok(Arc::clone(&self.file))
    }
}

/// Neighbouring locks.
#[derive(Clone, Copy)]
struct Which {
    first: usize,
    count: usize,
}

impl Which {
    fn range(self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }

    /// The same as a set of bits.
    fn bits(self) -> u16 {
        self.range().fold(0, |bits, lock| bits | 1 << lock)
    }

    #[allow(clippy::cast_possible_wrap)] // there are eight
    fn bytes(self) -> Bytes {
        Bytes { start: FIRST + self.first as libc::off_t, len: self.count as libc::off_t }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What one connection has locked.
pub(super) struct Holder {
    database: PathBuf,
    path: PathBuf,
    /// Nothing before the first lock: the wal-index may have to be made first.
    locks: Option<Arc<Locks>>,
    shared: u16,
    exclusive: u16,
}

impl Holder {
    /// Of a connection to the database at a path.
    pub(super) fn new(database: &Path) -> Self {
        let path = file::beside(database, "-shm");
        Self { database: database.to_owned(), path, locks: None, shared: 0, exclusive: 0 }
    }

    /// What SQLite asks of `xShmLock` (<https://sqlite.org/c3ref/io_methods.html>).
    pub(super) fn lock(&mut self, offset: c_int, count: c_int, flags: c_int) -> c_int {
        let (Ok(first), Ok(count)) = (usize::try_from(offset), usize::try_from(count)) else {
            return ffi::SQLITE_IOERR_SHMLOCK;
        };
        if count == 0 || first + count > LOCKS {
            return ffi::SQLITE_IOERR_SHMLOCK;
        }
        let (which, exclusive) = (Which { first, count }, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0);
        let done = if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            self.give(which).map(|()| true)
        } else {
            self.take(which, exclusive)
        };
        match done {
            Ok(true) => ffi::SQLITE_OK,
            Ok(false) => ffi::SQLITE_BUSY,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => ffi::SQLITE_READONLY,
            Err(_) if self.locks.is_none() => ffi::SQLITE_CANTOPEN,
            Err(_) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }

    /// After SQLite has let go of the wal-index: a connection that comes back to it may find another one.
    pub(super) fn leave(&mut self) {
        for first in 0..LOCKS {
            // What cannot be let go of now ends with the descriptor.
            let _ = self.give(Which { first, count: 1 });
        }
        self.locks = None;
    }

    fn take(&mut self, which: Which, exclusive: bool) -> Result<bool> {
        if !exclusive && self.shared & which.bits() != 0 {
            return Ok(true);
        }
        let locks = match &mut self.locks {
            Some(locks) => locks,
            none => none.insert(Locks::of(&self.database, &self.path)?),
        };
        let taken = locks.take(which, exclusive)?;
        if taken {
            *(if exclusive { &mut self.exclusive } else { &mut self.shared }) |= which.bits();
        }
        Ok(taken)
    }

    fn give(&mut self, which: Which) -> Result<()> {
        let bits = which.bits();
        if (self.shared | self.exclusive) & bits == 0 {
            return Ok(());
        }
        self.locks.as_ref().map_or(Ok(()), |locks| locks.give(which))?;
        self.shared &= !bits;
        self.exclusive &= !bits;
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    const SHARED: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED;
    const EXCLUSIVE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const NOT_SHARED: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED;
    const NOT_EXCLUSIVE: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE;

    /// A directory with the wal-index of a database, and the path of that.
    fn wal_index() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("store.db");
        for path in [database.clone(), file::beside(&database, "-shm")] {
            std::fs::write(path, [0; 4096]).unwrap();
        }
        (directory, database)
    }

    #[test]
    fn connections_of_one_process_keep_each_other_out() {
        let (_directory, database) = wal_index();
        let (mut one, mut other) = (Holder::new(&database), Holder::new(&database));
        assert_eq!([one.lock(3, 1, SHARED), other.lock(3, 1, SHARED)], [ffi::SQLITE_OK; 2]);
        assert_eq!(one.lock(3, 1, NOT_SHARED), ffi::SQLITE_OK);
        assert_eq!(one.lock(2, 4, EXCLUSIVE), ffi::SQLITE_BUSY, "the other still reads");
        assert_eq!(one.lock(4, 4, EXCLUSIVE), ffi::SQLITE_OK);
        for lock in 4..8 {
            assert_eq!(other.lock(lock, 1, SHARED), ffi::SQLITE_BUSY);
        }
        assert_eq!(one.lock(4, 4, NOT_EXCLUSIVE), ffi::SQLITE_OK);
        assert_eq!([other.lock(7, 1, SHARED), other.lock(3, 1, NOT_SHARED)], [ffi::SQLITE_OK; 2]);
        assert_eq!(one.lock(3, 4, EXCLUSIVE), ffi::SQLITE_OK);
        assert_eq!(one.lock(7, 2, SHARED), ffi::SQLITE_IOERR_SHMLOCK, "there are eight");
    }

    #[test]
    fn a_close_of_the_file_drops_no_lock_and_other_descriptors_are_kept_out() {
        let (_directory, database) = wal_index();
        let mut holder = Holder::new(&database);
        let bytes = |start| Bytes { start, len: 1 };
        let foreign = file::open(&file::beside(&database, "-shm"), false).unwrap();
        assert_eq!([holder.lock(0, 1, EXCLUSIVE), holder.lock(4, 1, SHARED)], [ffi::SQLITE_OK; 2]);
        std::fs::read(file::beside(&database, "-shm")).unwrap();
        assert!(!guard::lock(&foreign, bytes(120), false).unwrap());
        assert!(guard::lock(&foreign, bytes(124), false).unwrap());
        assert!(!guard::lock(&foreign, bytes(124), true).unwrap());
        assert_eq!(holder.lock(0, 1, NOT_EXCLUSIVE), ffi::SQLITE_OK);
        assert!(guard::lock(&foreign, bytes(120), true).unwrap());
        assert_eq!(holder.lock(0, 1, EXCLUSIVE), ffi::SQLITE_BUSY);
    }

    #[test]
    fn a_second_wal_index_of_a_database_is_refused_as_long_as_the_first_is_in_use() {
        let (_directory, database) = wal_index();
        let (mut old, mut new) = (Holder::new(&database), Holder::new(&database));
        assert_eq!(old.lock(3, 1, SHARED), ffi::SQLITE_OK);
        let path = file::beside(&database, "-shm");
        std::fs::rename(&path, file::beside(&database, "-kept")).unwrap();
        assert_eq!(new.lock(3, 1, SHARED), ffi::SQLITE_CANTOPEN, "it is missing");
        std::fs::write(&path, [0; 4096]).unwrap();
        assert_eq!(new.lock(3, 1, SHARED), ffi::SQLITE_CANTOPEN, "it is another one");
        assert_eq!(old.lock(3, 1, NOT_SHARED), ffi::SQLITE_OK);
        old.leave();
        assert_eq!(new.lock(0, 1, EXCLUSIVE), ffi::SQLITE_OK);
        drop(new);
        assert_eq!(old.lock(0, 1, EXCLUSIVE), ffi::SQLITE_OK, "who leaves lets go of everything");
    }
}

//! A disk that fails on demand: the nth operation of a kind, once or from then on; and what of it a power cut would leave.

use super::{Observer, Op, Vfs};
use llmspell_state_persistence::harness::{self, Event};
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// What fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the operation of that name fails as the system would let it
pub enum Kind {
    Open,
    Read,
    Write,
    /// A write for which there is no space.
    Full,
    /// The same, of which half is written.
    Short,
    Sync,
    Truncate,
    Delete,
    FileSize,
    Access,
    Lock,
    /// A lock that somebody else holds.
    Busy,
    ShmMap,
    /// Memory that is missing for whatever operation.
    Memory,
    /// What the core does past SQLite.
    Beside,
    /// A named point of the core, after which the disk is dead.
    Point,
}

impl Kind {
    /// All of them; on a dead disk an operation fails as the first that it is.
    pub const ALL: [Self; 16] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Beside,
        Self::Full,
        Self::Short,
        Self::Sync,
        Self::Truncate,
        Self::Delete,
        Self::FileSize,
        Self::Access,
        Self::Lock,
        Self::Busy,
        Self::ShmMap,
        Self::Memory,
        Self::Point,
    ];

    /// The result code of an operation of SQLite that this kind is about; nothing for others.
    fn code(self, op: &Op<'_>) -> Option<c_int> {
        let takes_lock = |flags: c_int| flags & ffi::SQLITE_SHM_LOCK != 0;
        let code = match (self, op) {
            (Self::Open, Op::Open(_)) => ffi::SQLITE_CANTOPEN,
            (Self::Read, Op::Read { .. }) => ffi::SQLITE_IOERR_READ,
            (Self::Write, Op::Write { .. }) => ffi::SQLITE_IOERR_WRITE,
            (Self::Full | Self::Short, Op::Write { .. }) => ffi::SQLITE_FULL,
            (Self::Sync, Op::Sync { .. }) => ffi::SQLITE_IOERR_FSYNC,
            (Self::Truncate, Op::Truncate { .. }) => ffi::SQLITE_IOERR_TRUNCATE,
            (Self::Delete, Op::Delete { .. }) => ffi::SQLITE_IOERR_DELETE,
            (Self::FileSize, Op::FileSize(_)) => ffi::SQLITE_IOERR_FSTAT,
            (Self::Access, Op::Access { .. }) => ffi::SQLITE_IOERR_ACCESS,
            (Self::Lock, Op::Lock { .. }) => ffi::SQLITE_IOERR_LOCK,
            (Self::Lock, Op::CheckReservedLock(_)) => ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
            (Self::Lock, Op::ShmLock { flags, .. }) if takes_lock(*flags) => ffi::SQLITE_IOERR_SHMLOCK,
            (Self::Busy, Op::Lock { .. }) => ffi::SQLITE_BUSY,
            (Self::Busy, Op::ShmLock { flags, .. }) if takes_lock(*flags) => ffi::SQLITE_BUSY,
            (Self::ShmMap, Op::ShmMap { .. }) => ffi::SQLITE_IOERR_SHMMAP,
            // Where SQLite's own files ask for memory. Letting a lock go never fails.
            (Self::Memory, Op::Open(_) | Op::ShmMap { .. } | Op::Lock { .. } | Op::Read { .. }) => {
                ffi::SQLITE_IOERR_NOMEM
            }
            (Self::Memory, Op::ShmLock { flags, .. }) if takes_lock(*flags) => ffi::SQLITE_IOERR_NOMEM,
            _ => return None,
        };
        Some(code)
    }

    /// The same for what the core does itself.
    fn error(self, event: &Event<'_>) -> Option<io::Error> {
        let code = match (self, event) {
            (Self::Beside, Event::Write { .. } | Event::Resize { .. } | Event::Sync(_) | Event::Remove(_))
            | (Self::Point, Event::Point(_)) => libc::EIO,
            (Self::Full | Self::Short, Event::Write { .. } | Event::Resize { len: 1.., .. }) => libc::ENOSPC,
            _ => return None,
        };
        Some(io::Error::from_raw_os_error(code))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// How often it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Times {
    /// The nth operation.
    Once,
    /// The nth and all later operations of that kind.
    Ever,
    /// The nth, and after it every operation of any kind: the disk is gone.
    Dead,
}

impl Times {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Once, Self::Ever, Self::Dead];
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The operation that fails, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Fault {
    pub kind: Kind,
    pub nth: u32,
    pub times: Times,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.nth, self.times)
    }
}

/// What came of a fault.
#[derive(Debug, Clone, Default)]
pub struct Hit {
    /// The operations that failed.
    pub failed: u32,
    /// The first of them.
    pub first: String,
    /// How many operations of each kind there were.
    pub seen: BTreeMap<Kind, u32>,
    /// Whether one failed between the points around a commit.
    pub in_commit: bool,
}

/// Bytes of a file as they would be after a power cut, and what is not synced yet.
#[derive(Debug, Default)]
struct Shadow {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

impl Shadow {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write(at, bytes) => {
                    let end = at + bytes.len();
                    self.durable.resize(self.durable.len().max(end), 0);
                    self.durable[at..end].copy_from_slice(&bytes);
                }
                Change::Size(len) => self.durable.resize(len, 0),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    fault: Option<Fault>,
    armed: bool,
    hit: Hit,
    committing: bool,
    files: BTreeMap<PathBuf, Shadow>,
}

/// The disk below one directory, from the time that it is made until it is dropped.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

type Disks = RwLock<Vec<(PathBuf, Arc<Mutex<Inner>>)>>;

static DISKS: Disks = RwLock::new(Vec::new());

thread_local! {
    /// The disk of this thread: named points do not say of which store they are.
    static HERE: std::cell::RefCell<Option<Arc<Mutex<Inner>>>> = const { std::cell::RefCell::new(None) };
}

thread_local! {
    static MEANWHILE: std::cell::RefCell<Option<Box<dyn FnOnce()>>> = const { std::cell::RefCell::new(None) };
}

/// Runs `work`, and `meanwhile` within it, once a write of this thread has begun; if none does, not at all.
pub fn with_a_write<T>(meanwhile: impl FnOnce() + 'static, work: impl FnOnce() -> T) -> T {
    MEANWHILE.set(Some(Box::new(meanwhile)));
    let done = work();
    MEANWHILE.set(None);
    done
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk that a file is on.
fn disk_of(path: &Path) -> Option<Arc<Mutex<Inner>>> {
    let disks = DISKS.read().unwrap_or_else(PoisonError::into_inner);
    disks.iter().find(|(dir, _)| path.parent() == Some(dir)).map(|(_, inner)| Arc::clone(inner))
}

impl Disk {
    /// Writes `files` into an empty directory, which fails on demand from now on. One thread, this one, has named points.
    pub fn new(dir: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<Self> {
        install();
        let mut inner = Inner::default();
        for (name, bytes) in files {
            std::fs::write(dir.join(name), bytes)?;
            inner.files.insert(dir.join(name), Shadow { durable: bytes.clone(), pending: Vec::new() });
        }
        let inner = Arc::new(Mutex::new(inner));
        let mut disks = DISKS.write().unwrap_or_else(PoisonError::into_inner);
        assert!(disks.iter().all(|(other, _)| other != dir), "a directory is on one disk");
        disks.push((dir.to_owned(), Arc::clone(&inner)));
        drop(disks);
        let disk = Self { dir: dir.to_owned(), inner };
        disk.points_here();
        Ok(disk)
    }

    /// Counts the named points that this thread passes, too.
    pub fn points_here(&self) {
        HERE.set(Some(Arc::clone(&self.inner)));
    }

    /// Counts from now on, and lets `fault` happen.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut inner = lock(&self.inner);
        (inner.fault, inner.armed, inner.hit) = (fault, true, Hit::default());
    }

    /// Lets everything pass from now on, and tells what has happened.
    pub fn disarm(&self) -> Hit {
        let mut inner = lock(&self.inner);
        (inner.fault, inner.armed) = (None, false);
        std::mem::take(&mut inner.hit)
    }

    /// The files as a power cut would leave them now: of what was not synced nothing is there. A failed sync loses what it
    /// should have written: the system takes those pages for written afterwards.
    pub fn durable(&self) -> BTreeMap<String, Vec<u8>> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        lock(&self.inner).files.iter().filter_map(|(path, file)| Some((name(path)?, file.durable.clone()))).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        HERE.set(None);
        DISKS.write().unwrap_or_else(PoisonError::into_inner).retain(|(dir, _)| *dir != self.dir);
    }
}

impl Inner {
    /// Counts an operation of some kinds, and tells with which of them it fails. An operation that is several kinds fails as
    /// the one that is asked for; on a dead disk as whatever it is first.
    fn strike(&mut self, kinds: &[Kind], what: &dyn Fn() -> String) -> Option<Kind> {
        if !self.armed || kinds.is_empty() {
            return None;
        }
        for kind in kinds {
            *self.hit.seen.entry(*kind).or_default() += 1;
        }
        let fault = self.fault?;
        let dead = fault.times == Times::Dead && self.hit.failed > 0;
        let struck = if dead {
            *kinds.first()?
        } else {
            let kind = *kinds.iter().find(|kind| **kind == fault.kind)?;
            let count = self.hit.seen.get(&kind).copied().unwrap_or(0);
            if count < fault.nth || count > fault.nth && fault.times == Times::Once {
                return None;
            }
            kind
        };
        self.hit.failed += 1;
        self.hit.in_commit |= self.committing;
        if self.hit.first.is_empty() {
            self.hit.first = what();
        }
        Some(struck)
    }

    /// Follows what is written.
    fn follow(&mut self, op: &Op<'_>) {
        match op {
            Op::Write { file, offset, bytes } => self.write(&file.path, *offset, bytes),
            Op::Truncate { file, size } => self.resize(&file.path, *size),
            Op::Sync { file, .. } => {
                if let Some(shadow) = self.files.get_mut(&file.path) {
                    shadow.sync();
                }
            }
            Op::Delete { path, .. } => {
                self.files.remove(*path);
            }
            Op::Open(file) if file.flags & ffi::SQLITE_OPEN_CREATE != 0 => {
                self.files.entry(file.path.clone()).or_default();
            }
            _ => {}
        }
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        if let Ok(at) = usize::try_from(offset) {
            self.files.entry(path.to_owned()).or_default().pending.push(Change::Write(at, bytes.to_owned()));
        }
    }

    fn resize(&mut self, path: &Path, len: u64) {
        if let Ok(len) = usize::try_from(len) {
            self.files.entry(path.to_owned()).or_default().pending.push(Change::Size(len));
        }
    }
}

/// SQLite's side of all disks.
struct Watcher;

impl Observer for Watcher {
    fn before(&self, op: &Op<'_>) -> Result<(), c_int> {
        let Some(inner) = disk_of(path_of(op)) else { return Ok(()) };
        let mut inner = lock(&inner);
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.code(op).is_some()).collect();
        let Some(kind) = inner.strike(&kinds, &|| told(op)) else {
            inner.follow(op);
            return Ok(());
        };
        match op {
            Op::Write { file, offset, bytes } if kind == Kind::Short => {
                let half = &bytes[..bytes.len() / 2];
                // Its closing drops the locks of this process on the file. Nobody else wants them here.
                let written = std::fs::OpenOptions::new().write(true).open(&file.path);
                if written.and_then(|short| short.write_all_at(half, *offset)).is_ok() {
                    inner.write(&file.path, *offset, half);
                }
            }
            Op::Sync { file, .. } => {
                if let Some(shadow) = inner.files.get_mut(&file.path) {
                    shadow.pending.clear();
                }
            }
            _ => {}
        }
        Err(kind.code(op).unwrap_or(ffi::SQLITE_IOERR))
    }

    /// Nobody else uses these stores: a lock that is not to be had will not be had later.
    fn waits(&self) -> bool {
        false
    }
}

fn path_of<'a>(op: &Op<'a>) -> &'a Path {
    match op {
        Op::Open(file)
        | Op::Close(file)
        | Op::FileSize(file)
        | Op::CheckReservedLock(file)
        | Op::Read { file, .. }
        | Op::Write { file, .. }
        | Op::Truncate { file, .. }
        | Op::Sync { file, .. }
        | Op::Lock { file, .. }
        | Op::Unlock { file, .. }
        | Op::ShmMap { file, .. }
        | Op::ShmLock { file, .. }
        | Op::ShmUnmap { file, .. } => &file.path,
        Op::Delete { path, .. } | Op::Access { path, .. } => path,
    }
}

/// An operation for people.
fn told(op: &Op<'_>) -> String {
    let name = path_of(op).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = match op {
        Op::Read { offset, len, .. } => format!("read of {len} bytes at {offset}"),
        Op::Write { offset, bytes, .. } => format!("write of {} bytes at {offset}", bytes.len()),
        Op::Truncate { size, .. } => format!("truncation to {size}"),
        Op::ShmMap { region, .. } => format!("mapping of region {region}"),
        Op::ShmLock { offset, count, .. } => format!("lock {offset}+{count}"),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase(),
    };
    format!("{what} of {name}")
}

/// The core's side of all disks.
fn watch(event: &Event<'_>) -> io::Result<()> {
    let path = match event {
        Event::Write { path, .. } | Event::Resize { path, .. } | Event::Sync(path) | Event::Remove(path) => Some(*path),
        Event::Point(_) => None,
    };
    let Some(inner) = path.map_or_else(|| HERE.with_borrow(Clone::clone), disk_of) else { return Ok(()) };
    if let Event::Point("write.begun") = event
        && let Some(meanwhile) = MEANWHILE.take()
    {
        meanwhile();
    }
    let mut inner = lock(&inner);
    match event {
        Event::Point("write.applied") => inner.committing = true,
        Event::Point("write.committed") => inner.committing = false,
        _ => {}
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.error(event).is_some()).collect();
    if let Some(kind) = inner.strike(&kinds, &|| shown(event)) {
        if let Event::Sync(path) = event
            && let Some(shadow) = inner.files.get_mut(*path)
        {
            shadow.pending.clear();
        }
        return kind.error(event).map_or(Ok(()), Err);
    }
    match event {
        Event::Write { path, offset, bytes } => inner.write(path, *offset, bytes),
        Event::Resize { path, len } => inner.resize(path, *len),
        Event::Sync(path) => {
            if let Some(shadow) = inner.files.get_mut(*path) {
                shadow.sync();
            }
        }
        Event::Remove(path) => {
            inner.files.remove(*path);
        }
        Event::Point(_) => {}
    }
    Ok(())
}

fn shown(event: &Event<'_>) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match event {
        Event::Point(name) => format!("point {name}"),
        Event::Write { path, offset, bytes } => {
            format!("the core's write of {} bytes at {offset} of {}", bytes.len(), name(path))
        }
        Event::Resize { path, len } => format!("the core's sizing to {len} of {}", name(path)),
        Event::Sync(path) => format!("the core's sync of {}", name(path)),
        Event::Remove(path) => format!("the core's removal of {}", name(path)),
    }
}

/// Opens stores of this process through failing disks from now on.
fn install() {
    static VFS: OnceLock<&'static Vfs> = OnceLock::new();
    VFS.get_or_init(|| {
        let vfs = Vfs::register("failing");
        vfs.observe(Some(Arc::new(Watcher)));
        harness::use_vfs(Some(vfs.name()));
        harness::watch(watch);
        vfs
    });
}

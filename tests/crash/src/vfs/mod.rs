//! An SQLite VFS over the system's own that asks an observer before every operation on a file.
//!
//! It changes nothing by itself: what the observer lets pass goes on to the file (<https://sqlite.org/vfs.html>).

pub mod fault;
mod file;
pub mod record;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_vfs};
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A file that SQLite has open.
#[derive(Debug)]
pub struct Opened {
    /// Its name; empty for a temporary file without one.
    pub path: PathBuf,
    /// Tells one opening from another.
    pub handle: u64,
    /// What SQLite has asked for: `SQLITE_OPEN_WAL`, `SQLITE_OPEN_CREATE` and others.
    pub flags: c_int,
}

/// An operation that SQLite is about to do.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the fields are the arguments of SQLite's methods
pub enum Op<'a> {
    Open(&'a Opened),
    Close(&'a Opened),
    Read { file: &'a Opened, offset: u64, len: usize },
    Write { file: &'a Opened, offset: u64, bytes: &'a [u8] },
    Truncate { file: &'a Opened, size: u64 },
    Sync { file: &'a Opened, flags: c_int },
    FileSize(&'a Opened),
    Lock { file: &'a Opened, level: c_int },
    Unlock { file: &'a Opened, level: c_int },
    CheckReservedLock(&'a Opened),
    ShmMap { file: &'a Opened, region: c_int, extend: bool },
    ShmLock { file: &'a Opened, offset: c_int, count: c_int, flags: c_int },
    ShmUnmap { file: &'a Opened, delete: bool },
    Delete { path: &'a Path, sync_directory: bool },
    Access { path: &'a Path, flags: c_int },
}

/// What is asked before every operation, on whatever thread it happens.
pub trait Observer: Send + Sync {
    /// Lets the operation pass, or is its outcome: an extended result code of SQLite.
    ///
    /// # Errors
    /// The result code with which the operation ends, not having touched the file. SQLite ignores those of `Close`.
    fn before(&self, op: &Op<'_>) -> Result<(), c_int>;

    /// Whether SQLite's waiting for others takes time. It need not where there are no others, and waits up to ten seconds.
    fn waits(&self) -> bool {
        true
    }
}

/// A registered VFS. It lives as long as the process: SQLite may use it at any time.
pub struct Vfs {
    name: CString,
    base: *mut sqlite3_vfs,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    handles: AtomicU64,
}

// SAFETY: `base` points to SQLite's own VFS, which is never changed and lives as long as the process.
#[allow(unsafe_code)]
unsafe impl Send for Vfs {}
// SAFETY: as above; everything else is shared through locks and atomics.
#[allow(unsafe_code)]
unsafe impl Sync for Vfs {}

impl Vfs {
    /// Registers a VFS of that name, which nobody has used before. It is not the default one: `harness::use_vfs` names
    /// it.
    #[allow(unsafe_code)]
    pub fn register(name: &str) -> &'static Self {
        let name = CString::new(name).expect("a name without zeroes");
        // SAFETY: SQLite's library may be initialised at any time; it always has a default VFS on Unix.
        let base = unsafe {
            ffi::sqlite3_initialize();
            ffi::sqlite3_vfs_find(std::ptr::null())
        };
        assert!(!base.is_null(), "SQLite has no default VFS");
        let vfs: &'static Self =
            Box::leak(Box::new(Self { name, base, observer: RwLock::new(None), handles: AtomicU64::new(0) }));
        // SAFETY: `base` is SQLite's own VFS.
        let (file_size, longest_name) = unsafe { ((*base).szOsFile, (*base).mxPathname) };
        let raw = Box::leak(Box::new(sqlite3_vfs {
            // Version 2: the system calls below the base are the base's affair.
            iVersion: 2,
            szOsFile: file_size + file::HEAD,
            mxPathname: longest_name,
            pNext: std::ptr::null_mut(),
            zName: vfs.name.as_ptr(),
            pAppData: std::ptr::from_ref(vfs).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: `raw` is complete and never freed.
        let done = unsafe { ffi::sqlite3_vfs_register(raw, 0) };
        assert_eq!(done, ffi::SQLITE_OK, "registering a VFS");
        vfs
    }

    /// The name under which connections are opened.
    pub fn name(&self) -> &str {
        self.name.to_str().unwrap_or_default()
    }

    /// Asks `observer` from now on; nothing lets everything pass.
    pub fn observe(&self, observer: Option<Arc<dyn Observer>>) {
        *self.observer.write().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    /// Not under the lock: what an observer does may open files through this VFS.
    fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn before(&self, op: &Op<'_>) -> Result<(), c_int> {
        self.observer().map_or(Ok(()), |observer| observer.before(op))
    }
}

/// The VFS behind a raw one, and the base below it.
#[allow(unsafe_code)]
unsafe fn vfs<'a>(raw: *mut sqlite3_vfs) -> (&'a Vfs, &'a sqlite3_vfs) {
    // SAFETY: SQLite hands back the pointer that was registered; both live as long as the process.
    unsafe {
        let vfs: &Vfs = &*(*raw).pAppData.cast::<Vfs>().cast_const();
        (vfs, &*vfs.base)
    }
}

#[allow(unsafe_code)]
unsafe fn path<'a>(name: *const c_char) -> &'a Path {
    if name.is_null() {
        return Path::new("");
    }
    // SAFETY: SQLite's names end with a zero and live for the call.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

#[allow(unsafe_code)]
unsafe extern "C" fn open(
    raw: *mut sqlite3_vfs,
    name: sqlite3_filename,
    into: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given, a name or null, and memory of `szOsFile` bytes for the file.
    unsafe {
        let (vfs, base) = vfs(raw);
        // So that SQLite does not close what was never opened.
        (*into).pMethods = std::ptr::null();
        let handle = vfs.handles.fetch_add(1, Ordering::Relaxed);
        let opened = Opened { path: path(name).to_owned(), handle, flags };
        if let Err(code) = vfs.before(&Op::Open(&opened)) {
            return code;
        }
        let inner = file::inner(into);
        (*inner).pMethods = std::ptr::null();
        let done = base.xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(vfs.base, name, inner, flags, out));
        if !(*inner).pMethods.is_null() {
            file::init(into, vfs, opened);
        }
        done
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn delete(raw: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given and a name.
    unsafe {
        let (vfs, base) = vfs(raw);
        match vfs.before(&Op::Delete { path: path(name), sync_directory: sync_directory != 0 }) {
            Ok(()) => base.xDelete.map_or(ffi::SQLITE_IOERR, |delete| delete(vfs.base, name, sync_directory)),
            Err(code) => code,
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn access(raw: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given, a name and a place for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        match vfs.before(&Op::Access { path: path(name), flags }) {
            Ok(()) => base.xAccess.map_or(ffi::SQLITE_IOERR, |access| access(vfs.base, name, flags, out)),
            Err(code) => code,
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn full_pathname(raw: *mut sqlite3_vfs, name: *const c_char, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given, a name and `len` bytes for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        base.xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| full(vfs.base, name, len, out))
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn randomness(raw: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given and `len` bytes for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        base.xRandomness.map_or(0, |randomness| randomness(vfs.base, len, out))
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn sleep(raw: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given.
    unsafe {
        let (vfs, base) = vfs(raw);
        if vfs.observer().is_some_and(|observer| !observer.waits()) {
            return microseconds;
        }
        base.xSleep.map_or(0, |sleep| sleep(vfs.base, microseconds))
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn current_time(raw: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given and a place for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        base.xCurrentTime.map_or(ffi::SQLITE_ERROR, |time| time(vfs.base, out))
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn current_time_int64(raw: *mut sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given and a place for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        base.xCurrentTimeInt64.map_or(ffi::SQLITE_ERROR, |time| time(vfs.base, out))
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn last_error(raw: *mut sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite calls with the VFS it was given and `len` bytes for the answer.
    unsafe {
        let (vfs, base) = vfs(raw);
        base.xGetLastError.map_or(0, |last| last(vfs.base, len, out))
    }
}

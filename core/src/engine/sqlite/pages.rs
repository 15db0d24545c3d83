//! A check for every page of the database file, in the eight bytes that a store leaves free at the end of each.
//!
//! The check of a row covers what was written; but a key is found through pages that hold no check, and one flipped bit there
//! hides keys as if they had never been. So the file is read and written through an SQLite VFS (<https://sqlite.org/vfs.html>)
//! over the system's own.
//!
//! In memory and in the log these bytes are zero; a page gets its check on its way into the database file. Another SQLite that
//! moves a log, as it does when it closes a store that nobody has open, writes zeroes. Such a page counts as unchecked: what
//! comes out of a log was compared with the log's own checks.

use super::frames::{self, Log};
use super::shm::{self, Holder};
use crate::{Error, ErrorKind, Result, harness};
use rusqlite::Connection;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};
use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The size of every page of a store, in bytes: SQLite's own choice.
pub(super) const PAGE_SIZE: u16 = 4096;
/// The check at its end, in bytes; SQLite keeps them free when asked to.
pub(super) const RESERVED_SIZE: u8 = 8;
const PAGE: usize = PAGE_SIZE as usize;
const RESERVED: usize = RESERVED_SIZE as usize;
/// What belongs to SQLite.
const USABLE: usize = PAGE - RESERVED;
/// Where a database's first page tells of free bytes, and of the application (<https://sqlite.org/fileformat.html>).
const RESERVED_AT: usize = 20;
const APPLICATION_AT: std::ops::Range<usize> = 68..72;
/// Where the header of a page of a tree tells the beginning of its cells.
const CELLS_AT: usize = 3;
/// What a disk may wipe as a whole, in bytes.
const BLOCK: usize = 512;

thread_local! {
    /// The number of the page that this thread has last found damaged, from 1.
    static DAMAGED: Cell<u64> = const { Cell::new(0) };
}

/// What to tell of a read that failed with `SQLITE_IOERR_DATA`.
pub(super) fn describe_damage() -> String {
    let page = DAMAGED.try_with(Cell::get).unwrap_or_default();
    format!("page {page} of the file does not match its check; restore it from a backup")
}

/// The name of the VFS over the system's own, or in tests over another one.
pub(super) fn vfs() -> Result<String> {
    static REGISTERED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let base = harness::vfs();
    let name = base.as_ref().map_or("llmspell-state".to_owned(), |base| format!("llmspell-state over {base}"));
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if !registered.contains(&name) {
        register(&name, base)?;
        registered.push(name.clone());
    }
    Ok(name)
}

/// The check of a page's content at its place in the file: a page that was written elsewhere does not fit.
fn check(content: &[u8], offset: u64) -> [u8; RESERVED] {
    // Never zero, which stands for no check.
    xxh3_64_with_seed(content, offset).max(1).to_le_bytes()
}

/// The outcome of reading the damaged page at an offset.
fn damaged(offset: u64) -> c_int {
    let _ = DAMAGED.try_with(|damaged| damaged.set(offset / PAGE as u64 + 1));
    ffi::SQLITE_IOERR_DATA
}

/// Whether the first page, or its beginning, is that of a store.
fn is_ours(page: &[u8]) -> bool {
    page.get(APPLICATION_AT).is_some_and(|found| found == super::schema::APPLICATION)
}

/// Whether a page is as it was written.
fn is_sound(page: &[u8; PAGE], offset: u64) -> bool {
    let (content, found) = page.split_at(USABLE);
    if harness::sabotaged("no-page-check") {
        return true;
    }
    if found != [0; RESERVED] {
        return found == check(content, offset);
    }
    // Zeroes may be all that is left of the check. The cells of a tree begin at the end of its page, where then is something.
    let header = if offset == 0 { 100 } else { 0 };
    let has_cells = matches!(page[header], 2 | 5 | 10 | 13) && page[header + CELLS_AT..header + CELLS_AT + 2] != [0, 0];
    let is_empty = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    !(is_empty(content) || has_cells && is_empty(&content[PAGE - BLOCK..]))
}

/// An open database file; the file of the base lies behind it.
#[repr(C)]
struct Checked {
    file: sqlite3_file,
    /// This is a store: its first page has said so, or [`expect_checks`] has.
    ours: AtomicBool,
    /// What it has locked of the wal-index; nothing where SQLite does that by itself.
    locks: Option<Holder>,
    /// The log of the same connection, if it is open.
    log: *mut Log,
}

/// The size of what lies before the base's file, a multiple of the eight bytes to which SQLite aligns.
pub(super) const HEAD: usize = {
    let (checked, log) = (size_of::<Checked>(), size_of::<Log>());
    if checked > log { checked.next_multiple_of(8) } else { log.next_multiple_of(8) }
};

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without the methods of version 3 SQLite maps no file: mapped pages would be read unseen.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

#[allow(unsafe_code)]
fn register(name: &str, base: Option<String>) -> Result<()> {
    let failed = |why: &str| Error::new(ErrorKind::Io, format!("the layer below SQLite cannot be set up: {why}"));
    let text = |text: String| CString::new(text).map_err(|_| failed("a name with a zero"));
    let base = base.map(text).transpose()?;
    // Both live as long as the process: SQLite may use them at any time.
    let name: &'static CString = Box::leak(Box::new(text(name.to_owned())?));
    // SAFETY: plain calls of the library; what `sqlite3_vfs_find` answers is null or a VFS that stays.
    unsafe {
        ffi::sqlite3_initialize();
        let base = ffi::sqlite3_vfs_find(base.as_ref().map_or(std::ptr::null(), |base| base.as_ptr()));
        let Some(below) = base.as_ref() else { return Err(failed("there is no VFS")) };
        let ours = Box::leak(Box::new(sqlite3_vfs {
            // Version 2: what comes later is for testing the system's own.
            iVersion: 2,
            szOsFile: below.szOsFile + c_int::try_from(HEAD).unwrap_or_default(),
            pNext: std::ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: base.cast(),
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
            ..*below
        }));
        if ffi::sqlite3_vfs_register(ours, 0) == ffi::SQLITE_OK { Ok(()) } else { Err(failed("it is refused")) }
    }
}

/// The operation on a file by which its connection says that it is a store. SQLite leaves the numbers from 100 on to others.
const EXPECT_CHECKS: c_int = 0x4C4C;

/// Says that a connection's file is a store. Its first page cannot always tell: while another process makes the store, or after a
/// power cut, it is found in the log only.
#[allow(unsafe_code)]
pub(super) fn expect_checks(connection: &Connection) {
    // SAFETY: the connection is open; the operation takes no argument. A database in memory does not know it.
    unsafe {
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), EXPECT_CHECKS, std::ptr::null_mut());
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn file_control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: SQLite calls with an open file and with an argument that fits the operation.
    unsafe {
        if operation == EXPECT_CHECKS {
            (*file.cast::<Checked>()).ours.store(true, Ordering::Relaxed);
            return ffi::SQLITE_OK;
        }
        base_control(file, operation, argument)
    }
}

/// Tells a database file of its log.
#[allow(unsafe_code)]
pub(super) unsafe fn set_log(database: *mut sqlite3_file, log: *mut Log) {
    // SAFETY: called with the file of a database, which is open.
    unsafe {
        if std::ptr::eq((*database).pMethods, &raw const METHODS) {
            (*database.cast::<Checked>()).log = log;
        }
    }
}

/// Opens the database file with checks, its log so that few writes are enough, and every other file as it is.
#[allow(unsafe_code)]
unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with the VFS that was registered and with memory of `szOsFile` bytes, enough for the base's file with
    // and without what comes before it.
    unsafe {
        let base = (*vfs).pAppData.cast::<sqlite3_vfs>();
        let Some(open) = (*base).xOpen else { return ffi::SQLITE_CANTOPEN };
        if flags & ffi::SQLITE_OPEN_WAL != 0 {
            return frames::open(base, name, file, flags, out);
        }
        if flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
            return open(base, name, file, flags, out);
        }
        let done = open_behind(base, name, file, flags, out);
        if !(*inner(file)).pMethods.is_null() {
            let locks =
                shm::are_ours().then(|| Holder::new(Path::new(OsStr::from_bytes(CStr::from_ptr(name).to_bytes()))));
            let file_of_ours = sqlite3_file { pMethods: &raw const METHODS };
            let log = std::ptr::null_mut();
            file.cast::<Checked>().write(Checked { file: file_of_ours, ours: AtomicBool::new(false), locks, log });
        }
        done
    }
}

/// Opens the file of the base behind `file`; that has methods afterwards if it is to be closed.
#[allow(unsafe_code)]
pub(super) unsafe fn open_behind(
    base: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: called with the base, and with memory for its file and for what comes before it.
    unsafe {
        let inner = inner(file);
        (*file).pMethods = std::ptr::null();
        (*inner).pMethods = std::ptr::null();
        (*base).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(base, name, inner, flags, out))
    }
}

/// The file of the base.
#[allow(unsafe_code)]
pub(super) unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the memory of a file is `HEAD` bytes longer than what the base asks for.
    unsafe { file.byte_add(HEAD) }
}

/// Reads whole pages and compares them, whatever part SQLite wants of them.
#[allow(unsafe_code)]
unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with an open file and `count` bytes of memory.
    unsafe {
        let inner = inner(file);
        let Some(read) = (*(*inner).pMethods).xRead else { return ffi::SQLITE_IOERR_READ };
        let ours = &(*file.cast::<Checked>()).ours;
        let (Ok(len), Ok(at)) = (usize::try_from(count), usize::try_from(offset)) else {
            return ffi::SQLITE_IOERR_READ;
        };
        let within = at % PAGE;
        if at < PAGE && len < PAGE {
            // SQLite looks at the header before it looks for a newer one in the log: a power cut may have torn this one.
            let done = read(inner, into, count, offset);
            if done == ffi::SQLITE_OK && at == 0 && is_ours(std::slice::from_raw_parts(into.cast(), len)) {
                ours.store(true, Ordering::Relaxed);
            }
            return done;
        }
        if within + len > PAGE {
            return read(inner, into, count, offset);
        }
        let start = (at - within) as u64;
        let mut page = [0_u8; PAGE];
        let done = read(inner, page.as_mut_ptr().cast(), PAGE_SIZE.into(), start.cast_signed());
        match done {
            ffi::SQLITE_OK => {
                if start == 0 && is_ours(&page) {
                    ours.store(true, Ordering::Relaxed);
                }
                if ours.load(Ordering::Relaxed) {
                    if !is_sound(&page, start) || start == 0 && page[RESERVED_AT] != RESERVED_SIZE {
                        return damaged(start);
                    }
                    page[USABLE..].fill(0);
                }
                into.copy_from_nonoverlapping(page.as_ptr().byte_add(within).cast(), len);
                ffi::SQLITE_OK
            }
            // The file ends within the page, or before it.
            ffi::SQLITE_IOERR_SHORT_READ if start == 0 || !ours.load(Ordering::Relaxed) => {
                read(inner, into, count, offset)
            }
            ffi::SQLITE_IOERR_SHORT_READ => damaged(start),
            error => error,
        }
    }
}

/// Writes pages with their checks.
#[allow(unsafe_code)]
unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with an open file and `count` bytes to write.
    unsafe {
        let inner = inner(file);
        let Some(write) = (*(*inner).pMethods).xWrite else { return ffi::SQLITE_IOERR_WRITE };
        let ours = &(*file.cast::<Checked>()).ours;
        let at = offset.cast_unsigned();
        if usize::try_from(count) != Ok(PAGE) || !at.is_multiple_of(PAGE as u64) {
            return write(inner, from, count, offset);
        }
        let mut page = *from.cast::<[u8; PAGE]>();
        if at == 0 && is_ours(&page) {
            ours.store(true, Ordering::Relaxed);
        }
        if ours.load(Ordering::Relaxed) {
            let found = check(&page[..USABLE], at);
            page[USABLE..].copy_from_slice(&found);
        }
        write(inner, page.as_ptr().cast(), count, offset)
    }
}

/// Locks part of the wal-index, or lets go of it.
#[allow(unsafe_code)]
unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls with an open file, and for each file from one thread at a time; so it does for the log.
    unsafe {
        /// The lock of writers.
        const WRITERS: c_int = 0;
        let checked = &mut *file.cast::<Checked>();
        let mut log = if offset == WRITERS { checked.log.as_mut() } else { None };
        if let Some(log) = &mut log {
            log.end();
        }
        let done = if let Some(locks) = &mut checked.locks {
            locks.lock(offset, count, flags)
        } else {
            let inner = inner(file);
            (*(*inner).pMethods).xShmLock.map_or(ffi::SQLITE_IOERR, |lock| lock(inner, offset, count, flags))
        };
        if done == ffi::SQLITE_OK
            && flags == ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE
            && let Some(log) = log
        {
            log.begin();
        }
        done
    }
}

/// Lets go of the wal-index as a whole.
#[allow(unsafe_code)]
unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: as for locking.
    unsafe {
        let inner = inner(file);
        let done = (*(*inner).pMethods).xShmUnmap.map_or(ffi::SQLITE_OK, |unmap| unmap(inner, delete));
        if let Some(locks) = &mut (*file.cast::<Checked>()).locks {
            locks.leave();
        }
        done
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls with an open file, for the last time.
    unsafe {
        let inner = inner(file);
        let closed = (*(*inner).pMethods).xClose.map_or(ffi::SQLITE_IOERR, |close| close(inner));
        (*file.cast::<Checked>()).locks = None;
        closed
    }
}

/// A method that is the base's own.
macro_rules! file_method {
    ($name:ident => $method:ident($($argument:ident: $type:ty),*) -> $answer:ty, $otherwise:expr) => {
        #[allow(unsafe_code)]
        pub(super) unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) -> $answer {
            // SAFETY: SQLite calls with an open file and with arguments that fit the method.
            unsafe {
                let inner = inner(file);
                (*(*inner).pMethods).$method.map_or($otherwise, |method| method(inner, $($argument),*))
            }
        }
    };
}

file_method!(truncate => xTruncate(size: sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
file_method!(sync => xSync(flags: c_int) -> c_int, ffi::SQLITE_IOERR);
file_method!(file_size => xFileSize(size: *mut sqlite3_int64) -> c_int, ffi::SQLITE_IOERR);
file_method!(lock => xLock(level: c_int) -> c_int, ffi::SQLITE_IOERR);
file_method!(unlock => xUnlock(level: c_int) -> c_int, ffi::SQLITE_IOERR);
file_method!(base_control => xFileControl(operation: c_int, argument: *mut c_void) -> c_int, ffi::SQLITE_NOTFOUND);
file_method!(check_reserved_lock => xCheckReservedLock(out: *mut c_int) -> c_int, ffi::SQLITE_IOERR);
file_method!(sector_size => xSectorSize() -> c_int, 0);
file_method!(device_characteristics => xDeviceCharacteristics() -> c_int, 0);
file_method!(shm_map => xShmMap(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int, ffi::SQLITE_IOERR);
file_method!(shm_barrier => xShmBarrier() -> (), ());

/// A method of the VFS that is the base's own.
macro_rules! vfs_method {
    ($name:ident => $method:ident($($argument:ident: $type:ty),*), $otherwise:expr) => {
        #[allow(unsafe_code)]
        unsafe extern "C" fn $name(vfs: *mut sqlite3_vfs, $($argument: $type),*) -> c_int {
            // SAFETY: SQLite calls with the VFS that was registered and with arguments that fit the method.
            unsafe {
                let base = (*vfs).pAppData.cast::<sqlite3_vfs>();
                (*base).$method.map_or($otherwise, |method| method(base, $($argument),*))
            }
        }
    };
}

vfs_method!(delete => xDelete(name: *const c_char, sync_directory: c_int), ffi::SQLITE_IOERR);
vfs_method!(access => xAccess(name: *const c_char, flags: c_int, out: *mut c_int), ffi::SQLITE_IOERR);
vfs_method!(full_pathname => xFullPathname(name: *const c_char, len: c_int, out: *mut c_char), ffi::SQLITE_CANTOPEN);
vfs_method!(randomness => xRandomness(len: c_int, out: *mut c_char), 0);
vfs_method!(sleep => xSleep(microseconds: c_int), 0);
vfs_method!(current_time => xCurrentTime(out: *mut f64), ffi::SQLITE_ERROR);
vfs_method!(last_error => xGetLastError(len: c_int, out: *mut c_char), 0);
vfs_method!(current_time_int64 => xCurrentTimeInt64(out: *mut sqlite3_int64), ffi::SQLITE_ERROR);

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8, offset: u64) -> [u8; PAGE] {
        let mut page = [fill; PAGE];
        let found = check(&page[..USABLE], offset);
        page[USABLE..].copy_from_slice(&found);
        page
    }

    #[test]
    fn a_page_fits_only_its_content_and_its_place() {
        let good = page(7, 8192);
        assert!(is_sound(&good, 8192));
        assert!(!is_sound(&good, 4096), "it belongs elsewhere");
        for at in [0, 1, 100, USABLE - 1, USABLE, PAGE - 1] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(!is_sound(&bad, 8192), "byte {at}");
        }
    }

    #[test]
    fn a_page_without_a_check_is_let_through_unless_its_end_is_wiped() {
        let mut unchecked = page(5, 4096);
        unchecked[USABLE..].fill(0);
        assert!(is_sound(&unchecked, 4096));
        unchecked[PAGE - 512..].fill(0);
        assert!(!is_sound(&unchecked, 4096));
        assert!(!is_sound(&[0; PAGE], 4096));
    }
}

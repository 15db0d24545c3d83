//! The methods of an open file: each asks the observer, then calls the same method of the file below.

use super::{Op, Opened, Vfs};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods};
use std::ffi::{c_int, c_void};

/// What lies before the base's file in the memory that SQLite gives for one.
#[repr(C)]
struct Head {
    file: sqlite3_file,
    vfs: &'static Vfs,
    opened: *mut Opened,
}

/// The size of the head, a multiple of the eight bytes to which SQLite aligns.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // three words
pub(super) const HEAD: c_int = size_of::<Head>() as c_int;

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
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
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// The base's file behind ours.
#[allow(unsafe_code)]
pub(super) unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the memory of a file is `HEAD` bytes longer than what the base asks for.
    unsafe { file.byte_add(size_of::<Head>()) }
}

/// Makes an opened file ours.
#[allow(unsafe_code)]
pub(super) unsafe fn init(file: *mut sqlite3_file, vfs: &'static Vfs, opened: Opened) {
    let head =
        Head { file: sqlite3_file { pMethods: &raw const METHODS }, vfs, opened: Box::into_raw(Box::new(opened)) };
    // SAFETY: the memory of a file begins with room for a head, aligned to eight bytes.
    unsafe { file.cast::<Head>().write(head) };
}

/// Asks the observer, then calls the method of the base's file.
macro_rules! pass {
    ($file:ident, $opened:ident => $op:expr, $method:ident($($argument:expr),*)) => {
        // SAFETY: SQLite calls with a file that `init` has made and not yet closed, and with arguments that fit the method.
        unsafe {
            let head = &*$file.cast::<Head>();
            let $opened = &*head.opened;
            match head.vfs.before(&$op) {
                Ok(()) => pass!($file, $method($($argument),*), ffi::SQLITE_IOERR),
                Err(code) => code,
            }
        }
    };
    ($file:ident, $method:ident($($argument:expr),*), $otherwise:expr) => {{
        let inner = inner($file);
        (*(*inner).pMethods).$method.map_or($otherwise, |method| method(inner, $($argument),*))
    }};
}

#[allow(clippy::cast_sign_loss)] // SQLite's offsets and sizes are not negative
const fn unsigned(number: sqlite3_int64) -> u64 {
    number as u64
}

#[allow(clippy::cast_sign_loss)]
const fn len(number: c_int) -> usize {
    number as usize
}

#[allow(unsafe_code)]
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as in `pass!`; the box was made in `init`, and SQLite does not use a file that it has closed.
    unsafe {
        let head = &*file.cast::<Head>();
        let opened = Box::from_raw(head.opened);
        // A file is closed whatever the observer says.
        let _ = head.vfs.before(&Op::Close(&opened));
        pass!(file, xClose(), ffi::SQLITE_IOERR)
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    pass!(file, opened => Op::Read { file: opened, offset: unsigned(offset), len: len(count) }, xRead(into, count, offset))
}

#[allow(unsafe_code)]
unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    pass!(file, opened => {
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), len(count));
        Op::Write { file: opened, offset: unsigned(offset), bytes }
    }, xWrite(from, count, offset))
}

#[allow(unsafe_code)]
unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    pass!(file, opened => Op::Truncate { file: opened, size: unsigned(size) }, xTruncate(size))
}

#[allow(unsafe_code)]
unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    pass!(file, opened => Op::Sync { file: opened, flags }, xSync(flags))
}

#[allow(unsafe_code)]
unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    pass!(file, opened => Op::FileSize(opened), xFileSize(out))
}

#[allow(unsafe_code)]
unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, opened => Op::Lock { file: opened, level }, xLock(level))
}

#[allow(unsafe_code)]
unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, opened => Op::Unlock { file: opened, level }, xUnlock(level))
}

#[allow(unsafe_code)]
unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass!(file, opened => Op::CheckReservedLock(opened), xCheckReservedLock(out))
}

#[allow(unsafe_code)]
unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file, opened => Op::ShmMap { file: opened, region, extend: extend != 0 }, xShmMap(region, size, extend, out))
}

#[allow(unsafe_code)]
unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    pass!(file, opened => Op::ShmLock { file: opened, offset, count, flags }, xShmLock(offset, count, flags))
}

#[allow(unsafe_code)]
unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(file, opened => Op::ShmUnmap { file: opened, delete: delete != 0 }, xShmUnmap(delete))
}

#[allow(unsafe_code)]
unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xFileControl(op, argument), ffi::SQLITE_NOTFOUND) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xSectorSize(), 4096) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xDeviceCharacteristics(), 0) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xShmBarrier(), ()) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn fetch(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    count: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xFetch(offset, count, out), ffi::SQLITE_ERROR) }
}

#[allow(unsafe_code)]
unsafe extern "C" fn unfetch(file: *mut sqlite3_file, offset: sqlite3_int64, at: *mut c_void) -> c_int {
    // SAFETY: as in `pass!`.
    unsafe { pass!(file, xUnfetch(offset, at), ffi::SQLITE_OK) }
}

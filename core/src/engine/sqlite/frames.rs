//! The log's file as SQLite writes it, with fewer calls of the system: the frames of a commit reach it in one write.
//!
//! SQLite writes the header of each frame and its page on their own. Here they wait for the last page of their commit; nobody but
//! their own transaction can count on them before, and that reads them here. What else is done with the file finds them written.
//! What still waits when the connection lets go of the lock of writers was taken back, and is dropped; without that lock, as in
//! an exclusive store, nothing waits.

use super::pages::{self, inner};
use super::wal::{FRAME, HEADER};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_filename, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};
use std::ffi::{c_int, c_void};

/// The header of a frame, and where it tells that this is the last one of a commit (<https://sqlite.org/fileformat.html>).
const FRAME_HEADER: usize = 24;
const IS_LAST: std::ops::Range<usize> = 4..8;
const PAGE: usize = pages::PAGE_SIZE as usize;
/// So many bytes do not wait any longer. SQLite's own layer takes less than 128 KiB at once (`os_unix.c`: `seekAndWriteFd`).
const MOST: usize = 1 << 16;

/// Frames that wait.
struct Held {
    /// The connection has the lock of writers.
    writes: bool,
    bytes: Vec<u8>,
    /// Where they belong in the file.
    at: u64,
    /// The last one has no page yet.
    wants_page: bool,
    /// The last one is the last of its commit.
    is_last: bool,
    /// Where the last read began, if nothing was written since.
    read_at: Option<u64>,
}

/// How much of a part of the file waits.
#[derive(Debug, PartialEq, Eq)]
enum Waiting<'h> {
    All(&'h [u8]),
    Some,
    None,
}

/// What is to be done with a write.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It waits.
    Wait,
    /// It waited for this: all is to be written.
    Write,
    /// It is to be made as it is, after what waits.
    Pass,
}

impl Held {
    const fn new() -> Self {
        Self { writes: false, bytes: Vec::new(), at: 0, wants_page: false, is_last: false, read_at: None }
    }

    fn add(&mut self, bytes: &[u8], offset: u64) -> Next {
        let goes_on = offset == self.at + self.bytes.len() as u64;
        // Checks that are made anew are written where their frame was just read; no page follows.
        let is_rewritten = self.read_at.take() == Some(offset);
        if self.wants_page {
            if bytes.len() != PAGE || !goes_on {
                return Next::Pass;
            }
            self.bytes.extend_from_slice(bytes);
            self.wants_page = false;
            return if self.is_last || self.bytes.len() >= MOST { Next::Write } else { Next::Wait };
        }
        let is_header =
            bytes.len() == FRAME_HEADER && offset.checked_sub(HEADER).is_some_and(|at| at.is_multiple_of(FRAME));
        if !self.writes || !is_header || is_rewritten || !(goes_on || self.bytes.is_empty()) {
            return Next::Pass;
        }
        if self.bytes.is_empty() {
            self.at = offset;
        }
        self.bytes.extend_from_slice(bytes);
        self.wants_page = true;
        self.is_last = bytes[IS_LAST] != [0; 4];
        Next::Wait
    }

    fn part(&self, offset: u64, len: usize) -> Waiting<'_> {
        let (end, last) = (offset + len as u64, self.at + self.bytes.len() as u64);
        if self.bytes.is_empty() || end <= self.at || last <= offset {
            return Waiting::None;
        }
        let from = offset.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..from + len)).map_or(Waiting::Some, Waiting::All)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.wants_page = false;
    }
}

/// An open log; the file of the base lies behind it.
#[repr(C)]
pub(super) struct Log {
    file: sqlite3_file,
    held: Held,
    /// The database file of the same connection, which knows of this one.
    database: *mut sqlite3_file,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(pages::lock),
    xUnlock: Some(pages::unlock),
    xCheckReservedLock: Some(pages::check_reserved_lock),
    xFileControl: Some(pages::base_control),
    xSectorSize: Some(pages::sector_size),
    xDeviceCharacteristics: Some(pages::device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Opens the log of a database.
#[allow(unsafe_code)]
pub(super) unsafe fn open(
    base: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: as for opening a database file; the name of a log leads to the file of its database, which is open as long as it.
    unsafe {
        let database = ffi::sqlite3_database_file_object(name);
        let done = pages::open_behind(base, name, file, flags, out);
        if !(*inner(file)).pMethods.is_null() {
            let log = file.cast::<Log>();
            log.write(Log { file: sqlite3_file { pMethods: &raw const METHODS }, held: Held::new(), database });
            pages::set_log(database, log);
        }
        done
    }
}

impl Log {
    /// The connection may write from now on.
    pub(super) fn begin(&mut self) {
        self.held.writes = true;
    }

    /// Somebody else may: what still waits was taken back.
    pub(super) fn end(&mut self) {
        self.held.writes = false;
        self.held.clear();
    }
}

/// Writes what waits.
#[allow(unsafe_code)]
unsafe fn flush(file: *mut sqlite3_file) -> c_int {
    // SAFETY: called with an open log.
    unsafe {
        let held = &mut (*file.cast::<Log>()).held;
        if held.bytes.is_empty() {
            return ffi::SQLITE_OK;
        }
        let inner = inner(file);
        let done = match ((*(*inner).pMethods).xWrite, c_int::try_from(held.bytes.len())) {
            (Some(write), Ok(count)) => write(inner, held.bytes.as_ptr().cast(), count, held.at.cast_signed()),
            _ => ffi::SQLITE_IOERR_WRITE,
        };
        // SQLite counts on earlier frames of a transaction, which may go on after a failure; not on a commit that has failed.
        if done == ffi::SQLITE_OK || held.is_last {
            held.clear();
        }
        done
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with an open file and `count` bytes to write.
    unsafe {
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap_or_default());
        match (*file.cast::<Log>()).held.add(bytes, offset.cast_unsigned()) {
            Next::Wait => ffi::SQLITE_OK,
            Next::Write => flush(file),
            Next::Pass => after_flush(file, |inner| {
                (*(*inner).pMethods).xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(inner, from, count, offset))
            }),
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, count: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with an open file and `count` bytes of memory.
    unsafe {
        let held = &mut (*file.cast::<Log>()).held;
        held.read_at = Some(offset.cast_unsigned());
        let read = |inner: *mut sqlite3_file| {
            (*(*inner).pMethods).xRead.map_or(ffi::SQLITE_IOERR_READ, |read| read(inner, into, count, offset))
        };
        match held.part(offset.cast_unsigned(), usize::try_from(count).unwrap_or_default()) {
            Waiting::All(bytes) => {
                into.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                ffi::SQLITE_OK
            }
            Waiting::None => read(inner(file)),
            Waiting::Some => after_flush(file, read),
        }
    }
}

/// Does something with the base's file that finds everything written.
#[allow(unsafe_code)]
unsafe fn after_flush(file: *mut sqlite3_file, work: impl FnOnce(*mut sqlite3_file) -> c_int) -> c_int {
    // SAFETY: called with an open log.
    unsafe {
        match flush(file) {
            ffi::SQLITE_OK => work(inner(file)),
            error => error,
        }
    }
}

/// A method that is the base's own, after what waits was written.
macro_rules! after_flush_method {
    ($name:ident => $method:ident($argument:ident: $type:ty)) => {
        #[allow(unsafe_code)]
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $argument: $type) -> c_int {
            // SAFETY: SQLite calls with an open file and with an argument that fits the method.
            unsafe {
                after_flush(file, |inner| {
                    (*(*inner).pMethods).$method.map_or(ffi::SQLITE_IOERR, |method| method(inner, $argument))
                })
            }
        }
    };
}

after_flush_method!(truncate => xTruncate(size: sqlite3_int64));
after_flush_method!(sync => xSync(flags: c_int));
after_flush_method!(file_size => xFileSize(size: *mut sqlite3_int64));

#[allow(unsafe_code)]
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite calls with an open file, for the last time, and before it closes the database file.
    unsafe {
        let log = file.cast::<Log>();
        pages::set_log((*log).database, std::ptr::null_mut());
        // What waits is not committed.
        std::ptr::drop_in_place(&raw mut (*log).held);
        let inner = inner(file);
        (*(*inner).pMethods).xClose.map_or(ffi::SQLITE_IOERR, |close| close(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;
    use rusqlite::{Connection, OpenFlags};
    use std::path::Path;

    /// The header of a frame, and its page.
    fn frame(is_last: bool) -> ([u8; FRAME_HEADER], [u8; PAGE]) {
        let mut header = [1; FRAME_HEADER];
        header[IS_LAST].fill(is_last.into());
        (header, [2; PAGE])
    }

    fn place(frame: u64) -> u64 {
        HEADER + frame * FRAME
    }

    fn add(held: &mut Held, at: u64, is_last: bool) -> [Next; 2] {
        let (header, page) = frame(is_last);
        [held.add(&header, place(at)), held.add(&page, place(at) + FRAME_HEADER as u64)]
    }

    #[test]
    fn the_frames_of_a_commit_wait_for_its_last_page() {
        let mut held = Held { writes: true, ..Held::new() };
        for at in 5..8 {
            assert_eq!(add(&mut held, at, false), [Next::Wait, Next::Wait]);
        }
        assert_eq!(add(&mut held, 8, true), [Next::Wait, Next::Write]);
        assert_eq!((held.at, held.bytes.len() as u64), (place(5), 4 * FRAME));
    }

    #[test]
    fn a_large_commit_is_written_in_parts_that_the_system_layer_takes() {
        let mut held = Held { writes: true, ..Held::new() };
        let first = (0..64).find(|at| add(&mut held, *at, false)[1] == Next::Write).unwrap();
        assert!((MOST..0x1_ffff).contains(&held.bytes.len()), "{} frames", first + 1);
    }

    #[test]
    fn what_is_no_frame_that_comes_next_passes() {
        let mut held = Held { writes: true, ..Held::new() };
        let (header, page) = frame(false);
        assert_eq!(held.add(&[0; 32], 0), Next::Pass, "the header of the log");
        assert_eq!(held.add(&page, place(3) + FRAME_HEADER as u64), Next::Pass, "a page that is written over");
        assert_eq!(held.add(&header, place(3) + 1), Next::Pass);
        assert_eq!(add(&mut held, 3, false), [Next::Wait, Next::Wait]);
        assert_eq!(held.add(&header, place(5)), Next::Pass, "not the one behind");
        assert_eq!(held.add(&header, place(4)), Next::Wait);
        assert_eq!(held.add(&page, place(4)), Next::Pass, "not where the page belongs");
    }

    #[test]
    fn what_waits_can_be_read() {
        let mut held = Held { writes: true, ..Held::new() };
        assert_eq!(held.part(place(4), PAGE), Waiting::None);
        add(&mut held, 4, false);
        let (header, page) = frame(false);
        assert_eq!(held.part(place(4), FRAME_HEADER), Waiting::All(&header));
        assert_eq!(held.part(place(4) + FRAME_HEADER as u64, PAGE), Waiting::All(&page));
        assert_eq!(held.part(place(3), FRAME_HEADER + PAGE), Waiting::None);
        assert_eq!(held.part(place(5), PAGE), Waiting::None);
        assert_eq!(held.part(place(3) + 1, FRAME_HEADER + PAGE), Waiting::Some);
        assert_eq!(held.part(place(4) + 1, FRAME_HEADER + PAGE), Waiting::Some);
    }

    #[test]
    fn nothing_waits_without_the_lock_of_writers() {
        assert_eq!(add(&mut Held::new(), 1, true), [Next::Pass, Next::Pass]);
    }

    #[test]
    fn a_check_that_is_made_anew_does_not_wait() {
        let mut held = Held { writes: true, ..Held::new() };
        let (header, _) = frame(true);
        held.read_at = Some(place(2));
        assert_eq!(held.add(&header, place(2)), Next::Pass);
        held.read_at = Some(place(2) + FRAME_HEADER as u64);
        assert_eq!(add(&mut held, 2, true), [Next::Wait, Next::Write]);
    }

    /// A log over a file that notes what is written, or fails.
    #[repr(C)]
    struct Below {
        log: [u64; pages::HEAD / 8],
        file: sqlite3_file,
        fails: bool,
        written: Vec<(u64, c_int)>,
    }

    #[allow(unsafe_code)]
    unsafe extern "C" fn note(file: *mut sqlite3_file, _: *const c_void, count: c_int, offset: sqlite3_int64) -> c_int {
        // SAFETY: called with the file of a `Below`.
        let below = unsafe { &mut *file.byte_sub(pages::HEAD).cast::<Below>() };
        if below.fails {
            return ffi::SQLITE_FULL;
        }
        below.written.push((offset.cast_unsigned(), count));
        ffi::SQLITE_OK
    }

    #[test]
    #[allow(unsafe_code)]
    fn of_what_cannot_be_written_only_a_commit_is_given_up() {
        let methods = sqlite3_io_methods { xWrite: Some(note), ..METHODS };
        let file = sqlite3_file { pMethods: &raw const methods };
        let mut below = Below { log: [0; pages::HEAD / 8], file, fails: true, written: Vec::new() };
        let below = &raw mut below;
        let file = below.cast::<sqlite3_file>();
        // SAFETY: there is room for a log before its file, and nobody else uses either.
        unsafe {
            let held = Held { writes: true, ..Held::new() };
            let database = std::ptr::null_mut();
            file.cast::<Log>().write(Log { file: sqlite3_file { pMethods: &raw const METHODS }, held, database });
            let put = |at, is_last| {
                let (header, page) = frame(is_last);
                let at = place(at).cast_signed();
                let first = write(file, header.as_ptr().cast(), 24, at);
                [first, write(file, page.as_ptr().cast(), 4096, at + 24)]
            };
            assert_eq!(put(1, false), [ffi::SQLITE_OK; 2]);
            assert_eq!(flush(file), ffi::SQLITE_FULL);
            (*below).fails = false;
            assert_eq!(flush(file), ffi::SQLITE_OK);
            assert_eq!((*below).written, [(place(1), 4120)]);
            (*below).fails = true;
            assert_eq!(put(2, true), [ffi::SQLITE_OK, ffi::SQLITE_FULL]);
            (*below).fails = false;
            assert_eq!(flush(file), ffi::SQLITE_OK);
            assert_eq!((*below).written, [(place(1), 4120)]);
            std::ptr::drop_in_place(&raw mut (*file.cast::<Log>()).held);
        }
    }

    fn connect(path: &Path) -> Connection {
        let connection =
            Connection::open_with_flags_and_vfs(path, OpenFlags::default(), pages::vfs().unwrap().as_str()).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = 10")
            .unwrap();
        connection
    }

    /// Rows of which each fills a page; with so small a cache they go into the log before their transaction ends.
    fn fill(connection: &Connection, rows: usize, with: u8) {
        for _ in 0..rows {
            connection.execute("INSERT INTO t VALUES (?1)", [vec![with; 3_500]]).unwrap();
        }
    }

    fn count(connection: &Connection, of: u8) -> i64 {
        let sql = "SELECT count(*) FROM t WHERE x = ?1";
        connection.query_row(sql, [vec![of; 3_500]], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_was_taken_back_does_not_overwrite_what_others_have_committed_since() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let [one, other] = [connect(&path), connect(&path)];
        one.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        for round in 1..40_u8 {
            // Nothing is read from the log when it is taken back: that would have written what waits.
            one.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); BEGIN IMMEDIATE").unwrap();
            fill(&one, 20 + usize::from(round), 1);
            one.execute_batch("ROLLBACK").unwrap();
            fill(&other, 1, 2);
            fill(&one, 1, 3);
            // Of whom the frames in the log are asked again, and not those in a cache.
            let third = connect(&path);
            assert_eq!([1, 2, 3].map(|of| count(&third, of)), [0, round.into(), round.into()]);
        }
        let check: String = one.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }

    #[test]
    fn a_transaction_reads_what_it_has_put_into_the_log_and_commits_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let one = connect(&path);
        one.execute_batch("CREATE TABLE t (x BLOB); BEGIN IMMEDIATE").unwrap();
        fill(&one, 100, 1);
        one.execute_batch("SAVEPOINT s").unwrap();
        fill(&one, 100, 2);
        assert_eq!([1, 2].map(|of| count(&one, of)), [100, 100]);
        one.execute_batch("ROLLBACK TO s").unwrap();
        // Rows that are in the log already are changed once more: their frames are written over, and get new checks.
        one.execute("UPDATE t SET x = ?1 WHERE rowid % 2", [vec![3_u8; 3_500]]).unwrap();
        one.execute_batch("COMMIT").unwrap();
        let counts = [1, 2, 3].map(|of| count(&connect(&path), of));
        assert_eq!(counts, [50, 0, 50]);
        // Another process would find the same, by nothing but the file.
        let copy = directory.path().join("copy.db");
        for suffix in ["", "-wal"] {
            std::fs::copy(file::beside(&path, suffix), file::beside(&copy, suffix)).unwrap();
        }
        assert_eq!([1, 2, 3].map(|of| count(&connect(&copy), of)), counts);
    }
}

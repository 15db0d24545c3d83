//! Opening connections, all with the same hardening.

use super::error::from_sqlite;
use super::pages;
use crate::{Result, StateConfig, SyncMode, harness};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, ffi};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

/// Statements that a connection keeps ready.
const STATEMENTS: usize = 32;
/// Page cache of one connection, in KiB.
const PAGE_CACHE_KIB: i64 = 8 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The one that writes; it does its own waiting.
    Writer,
    /// One of several that read.
    Reader,
    /// The only one: an exclusive store, or one in memory.
    Solo,
}

/// A connection to the file at `path`, or to a database in memory of its own.
pub(super) fn connect(path: Option<&Path>, config: &StateConfig, role: Role) -> Result<Connection> {
    let failed = |e| from_sqlite("opening the store", e);
    quiet_allocator();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = match path {
        Some(path) => Connection::open_with_flags_and_vfs(path, flags, pages::vfs()?.as_str()),
        None => Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_CREATE),
    }
    .map_err(failed)?;
    harden(&connection).map_err(failed)?;
    // Without this guarantee SQLite prepares a statement anew whenever a value is bound that its planner might look at:
    // ten times the cost of a point read.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let patience = if role == Role::Writer { 0 } else { config.busy_timeout_ms };
    connection.busy_timeout(Duration::from_millis(patience)).map_err(failed)?;
    if path.is_some() && role == Role::Solo {
        // Before the first read, which is the one for the next pragma, or SQLite joins the shared wal-index.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    }
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB).map_err(failed)?;
    Ok(connection)
}

/// Decides about the pages of a file that is about to be made: their size, and room for a check at the end of each.
#[allow(unsafe_code)]
pub(super) fn lay_out_pages(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "page_size", pages::PAGE_SIZE).map_err(|e| from_sqlite("making the store", e))?;
    let mut reserved = std::ffi::c_int::from(pages::RESERVED_SIZE);
    // SAFETY: the connection is open; the operation takes a pointer to an int.
    unsafe {
        let (database, argument) = (c"main".as_ptr(), (&raw mut reserved).cast());
        ffi::sqlite3_file_control(connection.handle(), database, ffi::SQLITE_FCNTL_RESERVE_BYTES, argument);
    }
    Ok(())
}

/// Turns off the statistics that SQLite keeps of its memory under one lock of the whole process
/// (<https://sqlite.org/compile.html#default_memstatus>); nothing here asks for them.
#[allow(unsafe_code)]
fn quiet_allocator() {
    static ONCE: Once = Once::new();
    // SAFETY: the option takes one int. Once SQLite runs, because somebody else uses it too, the call changes nothing.
    ONCE.call_once(|| unsafe {
        ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0);
    });
}

/// Takes away what a store never needs, so that a prepared file cannot use it (<https://sqlite.org/security.html>).
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Turns a journal mode on. When that fails, SQLite may just answer which one it kept; a write that changes nothing then tells why.
fn set_journal_mode(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    let set = || {
        let mut statement = connection.prepare(&format!("PRAGMA journal_mode = {mode}"))?;
        let (mut rows, mut kept) = (statement.query([])?, String::new());
        // To the end: the answer comes before the mode is written to the file.
        while let Some(row) = rows.next()? {
            kept = row.get(0)?;
        }
        Ok::<_, rusqlite::Error>(kept)
    };
    if set()? == mode {
        return Ok(());
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    connection.pragma_update(None, "user_version", version)?;
    if set()? == mode { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None)) }
}

/// Settings that need the file to be a store already, or to become one right now.
pub(super) fn set_journal(connection: &Connection, config: &StateConfig, role: Role) -> Result<()> {
    let failed = |e| from_sqlite("opening the store", e);
    let pragma = |name: &str, value: &str| {
        connection.pragma_update_and_check(None, name, value, |_| Ok(())).or_else(|e| match e {
            // Some pragmas answer with a row and some do not.
            rusqlite::Error::QueryReturnedNoRows => Ok(()),
            e => Err(e),
        })
    };
    let on_file = config.persistence_path.is_some();
    if on_file {
        if role == Role::Solo {
            pragma("locking_mode", "EXCLUSIVE").map_err(failed)?;
        }
        if role != Role::Reader {
            set_journal_mode(connection, if config.enable_wal { "wal" } else { "delete" }).map_err(failed)?;
        }
    }
    let synchronous = match config.sync_mode {
        SyncMode::Full if harness::sabotaged("no-sync") => "OFF",
        SyncMode::Full => "FULL",
        SyncMode::Normal => "NORMAL",
        SyncMode::Off => "OFF",
    };
    pragma("synchronous", synchronous).map_err(failed)?;
    if role != Role::Solo {
        // The checkpointer does it in the background, and closing must not: see `guard`.
        pragma("wal_autocheckpoint", "0").map_err(failed)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    }
    pragma("secure_delete", "ON").map_err(failed)
}

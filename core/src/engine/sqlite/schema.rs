//! The file format: its identity, its number, its tables, and the gate that refuses everything else.

use super::error::from_sqlite;
use crate::clock::Steady;
use crate::{Error, ErrorKind, Result, harness};
use rusqlite::Connection;
use std::path::Path;

/// `PRAGMA application_id` of every store, as its first page has it.
pub(super) const APPLICATION: [u8; 4] = *b"LLST";
const APPLICATION_ID: i64 = 0x4C4C_5354;
/// `PRAGMA user_version`: the number of the format that this code writes.
const FORMAT: i64 = 3;
/// Before this, SQLite may corrupt a file when one connection checkpoints while another resets the log
/// (the "WAL-reset" bug, fixed in 3.51.3).
const OLDEST_SQLITE: i32 = 3_051_003;

/// Format 3; formats 1 and 2 were never released.
///
/// `log` holds every change once, in the order of commits; `row_check` covers all other columns. `flags` says what `value` is: 0 the
/// JSON text itself, 1 one zstd frame of it, 2 its difference from that of an earlier row of the same key and scope, whose flags
/// are 0 or 1, and 3 the same with a zstd frame. A difference is the earlier row's `seq` and `row_check` (64 bits each), the bytes
/// that differences from that row take so far, and the bytes that both texts share at the beginning and at the end (32 bits
/// each), little-endian; then what stands between (see `store::delta`). `entry` points at the
/// newest change of every key and is small, so that listing never touches a value. `created_at` is empty while the newest
/// change is the one that made the key; `expires_at`, when its time runs out, is that of the newest change. Times are milliseconds since the Unix epoch, UTC. `cursor` keeps the last change that a
/// named watch is done with; it is no part of the log, or watching would make changes to watch. Scope 2 holds settings of scopes
/// under their ids.
///
/// `versions` counts the rows of a key since its history was last trimmed to so many. `trimmed` counts the changes of a scope that
/// are not in the log any more, and has the newest of them, and the newest whose key is not known any more.
///
/// A scope that was forked from another at a row of the log has a number from 2^30 on, and shows that scope's entries up to that row
/// where it has none of its own. Before such an entry changes, the forks that show it are given their own, which point at the same
/// row. An entry whose `seq` is 0 says that its key is unknown in a fork.
const TABLES: &str = "
    CREATE TABLE store (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE tenant (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE scope (
        id INTEGER PRIMARY KEY,
        tenant_id INTEGER NOT NULL REFERENCES tenant (id),
        parent_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        forked_from INTEGER REFERENCES scope (id),
        forked_at INTEGER,
        UNIQUE (parent_id, name, tenant_id)
    ) STRICT;
    CREATE TABLE log (
        seq INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        time INTEGER NOT NULL,
        scope_id INTEGER NOT NULL,
        key TEXT NOT NULL,
        operation INTEGER NOT NULL,
        prev INTEGER NOT NULL,
        expires_at INTEGER,
        flags INTEGER NOT NULL,
        row_check INTEGER NOT NULL,
        actor TEXT,
        run TEXT,
        reason TEXT,
        value ANY
    ) STRICT;
    CREATE TABLE entry (
        scope_id INTEGER NOT NULL,
        key TEXT NOT NULL,
        seq INTEGER NOT NULL,
        live INTEGER NOT NULL,
        created_at INTEGER,
        expires_at INTEGER,
        versions INTEGER NOT NULL,
        PRIMARY KEY (scope_id, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE cursor (
        scope_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (scope_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE trimmed (
        scope_id INTEGER PRIMARY KEY,
        changes INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        gone INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX scope_fork ON scope (forked_from, forked_at) WHERE forked_from IS NOT NULL;
    INSERT INTO tenant (id, name) VALUES (1, '');
    INSERT INTO scope (id, tenant_id, parent_id, name) VALUES (1, 1, 0, ''), (2, 1, 0, '__settings');
    CREATE INDEX entry_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL;
";

/// Refuses to run on an SQLite that can damage files.
pub(super) fn check_library() -> Result<()> {
    let found = rusqlite::version_number();
    if found < OLDEST_SQLITE {
        return Err(Error::new(
            ErrorKind::UnknownFormat,
            format!("SQLite {} can damage files in write-ahead mode; build with 3.51.3 or newer", rusqlite::version()),
        ));
    }
    Ok(())
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Empty,
    Store,
}

/// The error for a file that is something else.
pub(super) fn not_a_store(path: &Path) -> Error {
    Error::new(ErrorKind::UnknownFormat, format!("{} is not a store; it was left untouched", path.display()))
}

/// Tells a store from an empty file, and refuses anything else without touching it.
pub(super) fn identify(connection: &Connection, path: &Path) -> Result<Found> {
    let refused = |why: String| {
        Err(Error::new(ErrorKind::UnknownFormat, format!("{} {why}; it was left untouched", path.display())))
    };
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    // All of one moment: another process may be making the store. Of a failed one the savepoint ends with the connection.
    let numbers = connection.execute_batch("SAVEPOINT identify").and_then(|()| {
        let found = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
        let tables = if found == (0, 0) { number("SELECT count(*) FROM sqlite_schema")? } else { 0 };
        connection.execute_batch("RELEASE identify")?;
        Ok((found, tables))
    });
    match numbers {
        Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => Err(not_a_store(path)),
        Err(e) => Err(from_sqlite("opening the store", e)),
        // The file was opened for writing, so it is its header that forbids it.
        Ok(((APPLICATION_ID, FORMAT), _)) if connection.is_readonly(rusqlite::MAIN_DB).unwrap_or(false) => {
            refused("has the header of a newer SQLite, or a damaged one".into())
        }
        Ok(((APPLICATION_ID, FORMAT), _)) => Ok(Found::Store),
        Ok(((APPLICATION_ID, found), _)) if found < FORMAT => {
            refused(format!("has format {found}, which was never released; this version reads format {FORMAT}"))
        }
        Ok(((APPLICATION_ID, found), _)) => {
            refused(format!("has format {found}; this version reads format {FORMAT}, so use a newer llmspell-state"))
        }
        Ok(((0, 0), 0)) => Ok(Found::Empty),
        Ok(((application, _), _)) => refused(format!("is an SQLite file of another application (id {application})")),
    }
}

/// Makes the tables, unless another process was faster.
pub(super) fn create(connection: &Connection, path: &Path) -> Result<()> {
    let failed = |e| from_sqlite("making the store", e);
    let mut store_id = [0; 16];
    if !harness::fill_random(&mut store_id) {
        getrandom::fill(&mut store_id)
            .map_err(|e| Error::new(ErrorKind::Io, format!("the operating system gave no random bytes: {e}")))?;
    }
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let made = identify(connection, path).and_then(|found| {
        if found == Found::Store {
            return Ok(());
        }
        connection.execute_batch(TABLES).map_err(failed)?;
        connection.execute("INSERT INTO store VALUES ('id', ?1)", [uuid_text(store_id)]).map_err(failed)?;
        if let Some(clock) = Steady::new(None).note() {
            connection.execute("INSERT INTO store VALUES ('clock', ?1)", [clock]).map_err(failed)?;
        }
        connection
            .execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}"))
            .map_err(failed)
    });
    match made {
        Ok(()) => connection.execute_batch("COMMIT").map_err(failed),
        Err(error) => {
            // Closing the connection undoes what the roll-back could not.
            let _ = connection.execute_batch("ROLLBACK");
            Err(error)
        }
    }
}

/// The identity that the store was given when it was made.
pub(super) fn store_id(connection: &Connection) -> Result<String> {
    connection
        .query_row("SELECT value FROM store WHERE name = 'id'", [], |row| row.get(0))
        .map_err(|e| from_sqlite("reading the store's identity", e))
}

/// What SQLite finds wrong with its tables and indexes (<https://sqlite.org/pragma.html#pragma_integrity_check>).
///
/// It tells a read that failed as a problem; damage is still there when it looks again.
pub(super) fn check_structure(connection: &Connection, most: usize) -> Result<Vec<String>> {
    let found = look_at_structure(connection, most)?;
    if found.is_empty() { Ok(found) } else { look_at_structure(connection, most) }
}

fn look_at_structure(connection: &Connection, most: usize) -> Result<Vec<String>> {
    let failed = |e| from_sqlite("looking at the database's structure", e);
    // What is in memory already says nothing about the disk.
    connection.execute_batch("PRAGMA shrink_memory").map_err(failed)?;
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({most})")).map_err(failed)?;
    let texts = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    texts.filter(|text| text.as_ref().map_or(true, |text| text != "ok")).collect::<Result<_, _>>().map_err(failed)
}

/// Random bytes as a version 4 UUID (RFC 9562, section 5.4).
fn uuid_text(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let number = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: u32| (number >> shift) & ((1 << (digits * 4)) - 1);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12))
}

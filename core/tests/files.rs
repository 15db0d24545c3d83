//! What the store does with its files: modes, foreign and damaged content, and other users of the same file.

use llmspell_state_persistence::{Entry, Error, ErrorKind, State, StateConfig, SyncMode};
use rusqlite::{Connection, OpenFlags, params};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    (directory, path)
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A connection of its own that writes pages as a store does, with their checks.
fn connect(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "llmspell-state").unwrap()
}

/// Changes a closed store behind its back.
fn tamper(path: &Path, sql: &str) {
    let connection = connect(path);
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql} changed nothing");
}

#[test]
fn only_the_owner_can_read_what_a_store_writes() {
    let (directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", 1).unwrap();
    for name in names(directory.path()) {
        let mode = fs::metadata(directory.path().join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[test]
fn a_closed_store_is_one_file_that_can_be_copied_and_its_mark() {
    let (directory, path) = place();
    let state = State::open(&path).unwrap();
    for n in 0..500 {
        state.set(&format!("k{n}"), n).unwrap();
    }
    state.close().unwrap();
    assert_eq!(names(directory.path()), ["agent.db", "agent.db-mark"]);
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    let copied = State::open(&copy).unwrap();
    assert_eq!(copied.count("*").unwrap(), 500);
    assert_eq!(copied.store_id(), State::open(&path).unwrap().store_id());
}

#[test]
fn what_is_not_a_store_is_refused_and_left_as_it_was() {
    let (directory, _) = place();
    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE notes (id); PRAGMA application_id = 7").unwrap();
    let unnamed = directory.path().join("unnamed.db");
    Connection::open(&unnamed).unwrap().execute_batch("CREATE TABLE notes (id)").unwrap();
    let newer = directory.path().join("newer.db");
    State::open(&newer).unwrap().close().unwrap();
    connect(&newer).execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99").unwrap();
    let text = directory.path().join("text.db");
    fs::write(&text, "just some text, longer than the header of a database file would be: ".repeat(20)).unwrap();
    let short = directory.path().join("short.db");
    fs::write(&short, "x").unwrap();
    for path in [foreign, unnamed, newer, text, short] {
        let before = fs::read(&path).unwrap();
        let error = State::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownFormat, "{error}");
        assert!(error.message().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{}", path.display());
    }
}

#[test]
fn a_power_cut_in_the_first_write_leaves_a_file_that_opens() {
    let (_directory, path) = place();
    fs::write(&path, b"SQLite form").unwrap();
    assert_eq!(kind(State::open(&path)), Some(ErrorKind::UnknownFormat));
    // A rollback journal that says: the file was empty; sectors of 512 bytes, pages of 4,096.
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for word in [0_u32, 0x5EED, 0, 512, 4096] {
        journal.extend(word.to_be_bytes());
    }
    journal.resize(512, 0);
    fs::write(path.with_file_name("agent.db-journal"), journal).unwrap();
    let state = State::open(&path).unwrap();
    assert_eq!(state.count("*").unwrap(), 0);
    state.set("k", json!(1)).unwrap();
}

#[test]
fn paths_that_cannot_be_a_store_are_refused_by_name() {
    let (directory, path) = place();
    State::open(&path).unwrap().close().unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let missing = directory.path().join("no/such/place.db");
    for path in [directory.path(), &link, &missing, Path::new("/dev/null"), Path::new("")] {
        let error = State::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}: {error}", path.display());
    }
    let error = State::open("/proc/self/status").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::PermissionDenied), "{error}");
    assert!(error.message().contains("/proc/"), "{error}");
    let twin = directory.path().join("twin.db");
    fs::hard_link(&path, &twin).unwrap();
    assert_eq!(kind(State::open(&twin)), Some(ErrorKind::Invalid));
    assert_eq!(kind(State::open(&path)), Some(ErrorKind::Invalid));
    fs::remove_file(&twin).unwrap();
    assert!(State::open(&path).is_ok());
    let config = StateConfig { create: false, ..StateConfig::at(directory.path().join("missing.db")) };
    assert_eq!(kind(State::with_config(config)), Some(ErrorKind::NotFound));
    let config = StateConfig { create_dirs: true, ..StateConfig::at(&missing) };
    assert!(State::with_config(config).is_ok());
}

#[test]
fn a_damaged_row_is_an_error_and_never_a_wrong_value() {
    for (sql, what) in [
        ("UPDATE log SET value = '{\"n\":2}' WHERE key = 'a'", "value"),
        ("UPDATE log SET key = 'b' WHERE key = 'a'", "key"),
        ("UPDATE log SET version = version + 1 WHERE key = 'a'", "version"),
        ("UPDATE log SET time = time + 1 WHERE key = 'a'", "time"),
        ("UPDATE log SET scope_id = 2 WHERE key = 'a'", "scope"),
        ("UPDATE log SET operation = 0 WHERE key = 'a'", "operation"),
        ("UPDATE log SET flags = 1 WHERE key = 'a'", "encoding"),
        ("UPDATE log SET expires_at = 1 WHERE key = 'a'", "expiry"),
        ("UPDATE entry SET seq = 2 WHERE key = 'a'", "pointer to another key"),
        ("UPDATE entry SET live = 0 WHERE key = 'a'", "liveness"),
        ("DELETE FROM log WHERE key = 'a'", "row"),
    ] {
        let (_directory, path) = place();
        let state = State::open(&path).unwrap();
        state.set("a", json!({"n": 1})).unwrap();
        state.set("z", json!({"n": 1})).unwrap();
        state.close().unwrap();
        tamper(&path, sql);
        let state = State::open(&path).unwrap();
        assert_eq!(kind(state.get("a")), Some(ErrorKind::Corrupt), "{what}");
        assert_eq!(state.get("z").unwrap(), Some(json!({"n": 1})), "{what}");
    }
}

#[test]
fn a_damaged_entry_never_restarts_a_counter() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.scope("other").unwrap().set("a", 1).unwrap();
    state.set("n", 7).unwrap();
    state.set("a", 2).unwrap();
    state.close().unwrap();
    tamper(&path, "UPDATE entry SET live = 0 WHERE key = 'n'");
    tamper(&path, "UPDATE entry SET seq = 1 WHERE key = 'a' AND scope_id = 1");
    let state = State::open(&path).unwrap();
    assert_eq!(kind(state.increment("n", 1)), Some(ErrorKind::Corrupt));
    assert_eq!(kind(state.set("n", 1)), Some(ErrorKind::Corrupt));
    assert_eq!(kind(state.transaction().unwrap().get("n")), Some(ErrorKind::Corrupt));
    assert_eq!(kind(state.get("a")), Some(ErrorKind::Corrupt), "the value of another scope");
}

#[test]
fn a_file_that_was_removed_under_an_open_store_stops_all_writing() {
    for name in ["agent.db", "agent.db-wal", "agent.db-shm"] {
        let (directory, path) = place();
        let state = State::open(&path).unwrap();
        state.set("a", 1).unwrap();
        fs::remove_file(directory.path().join(name)).unwrap();
        assert_eq!(kind(state.set("a", 2)), Some(ErrorKind::DataLoss), "{name}");
        assert_eq!(kind(state.increment("n", 1)), Some(ErrorKind::DataLoss), "{name}");
        assert_eq!(state.get("a").unwrap(), Some(json!(1)), "{name}");
        state.close().unwrap();
    }
}

#[test]
fn the_files_beside_a_store_cannot_be_opened_as_one() {
    let (directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", 1).unwrap();
    for name in ["agent.db-wal", "agent.db-shm"] {
        assert_eq!(kind(State::open(directory.path().join(name))), Some(ErrorKind::Invalid), "{name}");
    }
    state.set("a", 2).unwrap();
}

#[test]
fn a_store_that_cannot_be_opened_leaves_nothing_behind() {
    let (_directory, path) = place();
    State::open(&path).unwrap().close().unwrap();
    tamper(&path, "INSERT INTO store VALUES ('x', 1)");
    connect(&path).execute_batch("DROP TABLE log").unwrap();
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    for _ in 0..10 {
        assert_eq!(kind(State::open(&path)), Some(ErrorKind::Corrupt));
    }
    assert!(open_files() <= before + 2, "{before} before, {} after", open_files());
}

#[test]
fn closing_while_others_write_never_hangs() {
    for _ in 0..20 {
        let (_directory, path) = place();
        let config = StateConfig { sync_mode: SyncMode::Off, ..StateConfig::at(&path) };
        let state = State::with_config(config).unwrap();
        let text = "x".repeat(200_000);
        std::thread::scope(|threads| {
            for thread in 0..3 {
                let (state, text) = (state.clone(), &text);
                threads.spawn(move || {
                    (0..1_000_000).take_while(|n| state.set(&format!("{thread}.{n}"), text.as_str()).is_ok()).count()
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
            state.close().unwrap();
        });
    }
}

#[test]
fn iterators_end_with_the_state() {
    let state = State::in_memory().unwrap();
    state.set_many([("a", 1), ("b", 2)]).unwrap();
    let mut keys = state.keys("*").unwrap();
    assert_eq!(keys.next().unwrap().unwrap(), "a");
    state.close().unwrap();
    assert_eq!(kind(keys.next().unwrap()), Some(ErrorKind::Closed));
    assert!(keys.next().is_none());
}

#[test]
fn a_value_from_a_larger_setting_can_be_made_smaller() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", json!({"long": "x".repeat(5_000), "short": 1})).unwrap();
    state.close().unwrap();
    let state = State::with_config(StateConfig { max_value_bytes: 1_000, ..StateConfig::at(&path) }).unwrap();
    assert_eq!(kind(state.merge("a", json!({"more": 1}))), Some(ErrorKind::QuotaExceeded));
    state.merge("a", json!({"long": null})).unwrap();
    assert_eq!(state.get("a").unwrap(), Some(json!({"short": 1})));
}

#[test]
fn one_file_opened_twice_in_a_process_is_one_store() {
    let (_directory, path) = place();
    let first = State::open(&path).unwrap();
    let second = State::open(&path).unwrap();
    first.set("a", 1).unwrap();
    assert_eq!(second.get("a").unwrap(), Some(json!(1)));
    let other = StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(&path) };
    let error = State::with_config(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("sync_mode"), "{error}");
    first.close().unwrap();
    assert_eq!(kind(first.get("a")), Some(ErrorKind::Closed));
    second.set("a", 2).unwrap();
    second.close().unwrap();
    assert_eq!(State::open(&path).unwrap().get("a").unwrap(), Some(json!(2)));
}

#[test]
fn every_way_to_open_gives_the_same_answers() {
    let exclusive = |config| StateConfig { exclusive: true, ..config };
    for change in [
        |config| config,
        exclusive,
        |config| StateConfig { exclusive: true, enable_wal: false, ..config },
        |config| StateConfig { sync_mode: SyncMode::Off, ..config },
        |config| StateConfig { cache_size_mb: 0, enable_compression: false, ..config },
    ] {
        let (directory, path) = place();
        let config: StateConfig = change(StateConfig::at(&path));
        let text = "long ".repeat(1_000);
        for round in 0..3 {
            let state = State::with_config(config.clone()).unwrap();
            state.set(&format!("k{round}"), json!({"text": text})).unwrap();
            assert_eq!(state.increment("n", 1).unwrap(), (round + 1).into());
            assert_eq!(state.count("k*").unwrap(), round.cast_unsigned() + 1);
            let entries: Vec<Arc<Entry>> = state.items("k*").unwrap().map(|item| item.unwrap().1).collect();
            assert!(entries.iter().all(|entry| entry.value() == json!({"text": text})));
            state.close().unwrap();
        }
        assert_eq!(names(directory.path()), ["agent.db", "agent.db-mark"], "{config:?}");
    }
}

#[test]
fn a_compressed_value_takes_less_room_and_a_small_one_stays_readable() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("small", json!({"name": "Alice"})).unwrap();
    state.set("large", json!("abc ".repeat(1_000))).unwrap();
    state.close().unwrap();
    let connection = Connection::open(&path).unwrap();
    let stored = |key: &str| -> (String, i64) {
        let sql = "SELECT typeof(value), length(value) FROM log WHERE key = ?1";
        connection.query_row(sql, params![key], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!(stored("small"), ("text".into(), 16));
    let (kind, bytes) = stored("large");
    assert!(kind == "blob" && bytes < 400, "{kind} of {bytes} bytes");
}

#[test]
fn the_log_file_does_not_grow_without_bound() {
    let (directory, path) = place();
    let config = StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(&path) };
    let state = State::with_config(config).unwrap();
    for n in 0..20_000 {
        state.set("hot", n).unwrap();
    }
    let wal = fs::metadata(directory.path().join("agent.db-wal")).unwrap().len();
    assert!(wal < 40 << 20, "{wal} bytes after 40,000 pages");
}

#[test]
fn a_transaction_whose_state_is_closed_inside_is_not_taken_for_committed() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    let closed = state.transact(|tx| {
        tx.set("a", 1)?;
        state.close()
    });
    assert_eq!(kind(closed), Some(ErrorKind::Closed));
    let state = State::open(&path).unwrap();
    state
        .transact(|tx| {
            tx.set("a", 2)?;
            tx.commit().map(drop)
        })
        .unwrap();
    assert_eq!(state.get("a").unwrap(), Some(json!(2)));
}

#[test]
fn a_store_whose_making_was_cut_off_is_made_anew() {
    // The header of a rollback journal, before which there was no page (<https://sqlite.org/fileformat.html#the_rollback_journal>).
    let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    journal.extend([0_u32, 1, 0, 512, 4096].iter().flat_map(|number| number.to_be_bytes()));
    journal.resize(512, 0);
    let plain = {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plain.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        std::fs::read(path).unwrap()
    };
    for (what, left) in
        [("zeroes", vec![0; 8192]), ("a part of a page", plain[..200].to_vec()), ("pages", plain.clone())]
    {
        for enable_wal in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s.db");
            std::fs::write(&path, &left).unwrap();
            std::fs::write(directory.path().join("s.db-journal"), &journal).unwrap();
            let config = StateConfig { exclusive: !enable_wal, enable_wal, ..StateConfig::at(&path) };
            let state = State::with_config(config.clone()).unwrap();
            state.set("a", "x".repeat(100_000)).unwrap();
            state.close().unwrap();
            // What SQLite leaves free of each page belongs to its check.
            assert_eq!(std::fs::read(&path).unwrap()[20], 8, "{what}");
            let state = State::with_config(config).unwrap();
            assert_eq!(state.verify().unwrap().problems, Vec::<String>::new(), "{what}");
        }
    }
}

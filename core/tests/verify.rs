//! Nothing that is damaged is told as right, and what is sound is told as sound.

use llmspell_state_persistence::{ErrorKind, State, StateConfig, SyncMode, Verification, WatchOptions};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    (directory, path)
}

/// A connection of its own that writes pages as a store does, with their checks.
fn connect(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "llmspell-state").unwrap()
}

/// A store in which every kind of change has happened, closed.
fn fill(path: &Path) -> Verification {
    let state = State::open(path).unwrap();
    for n in 0..50 {
        state.set(&format!("k{n}"), json!({"n": n})).unwrap();
    }
    state.set("long", json!("abc ".repeat(1_000))).unwrap();
    state.increment("counter", 1).unwrap();
    state.increment("counter", 1).unwrap();
    state.delete("k1").unwrap();
    state.set("k1", "again").unwrap();
    state.clear("k2*").unwrap();
    let child = state.scope("a").unwrap().scope("b").unwrap();
    child.set_many([("x", 1), ("y", 2)]).unwrap();
    state.transact(|tx| tx.set("long", 1)).unwrap();
    let found = state.verify().unwrap();
    state.close().unwrap();
    found
}

#[test]
fn a_sound_store_is_sound_and_counted() {
    let (_directory, path) = place();
    let found = fill(&path);
    assert_eq!(found.problems, Vec::<String>::new());
    assert!(found.is_ok());
    assert_eq!((found.version, found.changes, found.keys, found.scopes), (58, 69, 43, 3));
    let state = State::open(&path).unwrap();
    assert_eq!(state.verify().unwrap(), found);
    assert_eq!(state.count("*").unwrap() + 2, found.keys);
}

#[test]
fn a_watch_that_is_kept_elsewhere_than_it_was_is_told_and_not_opened() {
    let named = || WatchOptions { name: Some("indexer".into()), ..WatchOptions::default() };
    for (damage, words) in [
        ("seq = seq + 100", "after the newest commit"),
        ("version = version + 100", "after the newest commit"),
        ("seq = seq - 1", "its row in the log is of version"),
    ] {
        let (_directory, path) = place();
        fill(&path);
        let state = State::open(&path).unwrap();
        state.watch(named()).unwrap().close().unwrap();
        assert!(state.verify().unwrap().is_ok());
        state.close().unwrap();
        connect(&path).execute(&format!("UPDATE cursor SET {damage}"), []).unwrap();
        let state = State::open(&path).unwrap();
        let problems = state.verify().unwrap().problems;
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
        let error = state.watch(named()).unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains(words), "{error}");
        assert!(state.forget_watch("indexer").unwrap());
        assert!(state.verify().unwrap().is_ok());
        assert_eq!(state.watch(named()).unwrap().version(), state.version().unwrap());
    }
}

#[test]
fn an_empty_store_is_sound() {
    let found = State::in_memory().unwrap().verify().unwrap();
    assert_eq!(found, Verification { scopes: 1, ..Verification::default() });
}

#[test]
fn writers_are_not_taken_for_damage() {
    let (_directory, path) = place();
    for config in [
        StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(&path) },
        StateConfig { exclusive: true, ..StateConfig::at(path.with_extension("alone")) },
        StateConfig::default(),
    ] {
        let state = State::with_config(config).unwrap();
        std::thread::scope(|threads| {
            let writer = threads.spawn(|| {
                for n in 0..500 {
                    state.set(&format!("k{}", n % 20), n).unwrap();
                    state.delete(&format!("k{}", n % 7)).unwrap();
                }
            });
            while !writer.is_finished() {
                assert_eq!(state.verify().unwrap().problems, Vec::<String>::new());
            }
        });
    }
}

/// What SQL makes wrong in a closed store is found.
#[track_caller]
fn is_found(sql: &str, text: &str) {
    let (_directory, path) = place();
    fill(&path);
    connect(&path).execute_batch(sql).unwrap();
    let problems = State::open(&path).unwrap().verify().unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains(text)), "{sql}: {problems:?}");
}

#[test]
fn every_kind_of_damage_is_found() {
    is_found("UPDATE log SET value = '{\"n\":8}' WHERE key = 'k7'", "does not match its check");
    is_found("UPDATE log SET time = time + 1 WHERE key = 'k7'", "does not match its check");
    is_found("UPDATE log SET prev = 1 WHERE key = 'k7'", "does not match its check");
    is_found("DELETE FROM log WHERE seq = (SELECT seq FROM entry WHERE key = 'k7')", "does not fit log row");
    is_found("DELETE FROM log WHERE key = 'counter' AND prev = 0", "does not follow the change before it");
    is_found("DELETE FROM entry WHERE key = 'k7'", "no key points at it");
    is_found("UPDATE entry SET live = 0 WHERE key = 'k7'", "does not fit log row");
    is_found("UPDATE entry SET live = 1 WHERE key = 'k25'", "does not fit log row");
    is_found("UPDATE entry SET seq = 1 WHERE key = 'k7'", "does not fit log row");
    is_found("UPDATE entry SET key = 'k700' WHERE key = 'k7'", "does not fit log row");
    is_found("UPDATE entry SET scope_id = 2 WHERE key = 'k7'", "does not fit log row");
    is_found(
        "UPDATE entry SET seq = (SELECT min(seq) FROM log WHERE key = 'counter') WHERE key = 'counter'",
        "does not fit log row",
    );
    is_found("UPDATE entry SET created_at = 5 WHERE key = 'counter'", "time at which it was made");
    is_found("UPDATE entry SET created_at = NULL WHERE key = 'long'", "time at which it was made");
    is_found("DELETE FROM scope WHERE name = 'a'", "which does not exist");
    is_found("DELETE FROM scope WHERE name = 'b'", "which does not exist");
}

#[test]
fn a_damaged_index_is_found() {
    let (_directory, path) = place();
    fill(&path);
    let connection = connect(&path);
    connection.execute_batch("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'tenant') WHERE name = 'sqlite_autoindex_scope_1'").unwrap();
    drop(connection);
    match State::open(&path).and_then(|state| state.verify()) {
        Ok(found) => assert!(!found.is_ok()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}"),
    }
}

/// The store as it was before its newest commits, and the mark of the present.
fn put_back(path: &Path) -> u64 {
    fill(path);
    let older = fs::read(path).unwrap();
    let state = State::open(path).unwrap();
    let version = state.set("newer", 1).unwrap();
    state.close().unwrap();
    fs::write(path, older).unwrap();
    version
}

#[test]
fn an_older_copy_in_the_place_of_the_store_is_data_loss_unless_it_is_meant() {
    let (_directory, path) = place();
    let version = put_back(&path);
    let error = State::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    for number in [version, version - 1] {
        assert!(error.message().contains(&format!("version {number}")), "{error}");
    }
    // Looking does not make it right.
    assert_eq!(State::open(&path).unwrap_err().kind(), ErrorKind::DataLoss);
    let config = StateConfig { accept_rollback: true, ..StateConfig::at(&path) };
    let state = State::with_config(config).unwrap();
    assert_eq!(state.version().unwrap(), version - 1);
    state.close().unwrap();
    assert_eq!(State::open(&path).unwrap().get("newer").unwrap(), None);
}

#[test]
fn a_log_that_lost_its_end_is_data_loss() {
    let (_directory, path) = place();
    fill(&path);
    let copy = path.with_extension("copy");
    let state = State::open(&path).unwrap();
    for n in 0..50 {
        state.set(&format!("late{n}"), n).unwrap();
    }
    let beside = |path: &Path, suffix: &str| {
        path.with_extension(format!("{}{suffix}", path.extension().unwrap().to_str().unwrap()))
    };
    for suffix in ["", "-wal", "-mark"] {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    let mut wal = fs::read(beside(&copy, "-wal")).unwrap();
    // Somewhere in the middle of what was written.
    wal[32 + 20 * (4096 + 24) + 1000] ^= 1;
    fs::write(beside(&copy, "-wal"), wal).unwrap();
    assert_eq!(State::open(&copy).unwrap_err().kind(), ErrorKind::DataLoss);
    let kept = State::with_config(StateConfig { accept_rollback: true, ..StateConfig::at(&copy) }).unwrap();
    assert!(kept.verify().unwrap().is_ok());
    let late = kept.count("late*").unwrap();
    assert!((1..50).contains(&late), "{late}");
}

#[test]
fn the_mark_of_another_store_or_a_damaged_or_missing_one_says_nothing() {
    let (_directory, path) = place();
    put_back(&path);
    let mark = path.with_extension("db-mark");
    let words = fs::read(&mark).unwrap();
    let mut damaged = words.clone();
    damaged[60] ^= 4;
    for content in [&[][..], &words[..30], &damaged] {
        fs::write(&mark, content).unwrap();
        State::open(&path).unwrap().close().unwrap();
    }
    fs::remove_file(&mark).unwrap();
    State::open(&path).unwrap().close().unwrap();
    fs::write(&mark, words).unwrap();
    assert_eq!(State::open(&path).unwrap_err().kind(), ErrorKind::DataLoss);
    fs::remove_file(&path).unwrap();
    let another = State::open(&path).unwrap();
    another.set("a", 1).unwrap();
    another.close().unwrap();
    assert_eq!(State::open(&path).unwrap().get("a").unwrap(), Some(json!(1)));
}

#[test]
fn an_emptied_file_is_data_loss_and_the_log_beside_it_stays_for_an_expert() {
    let (_directory, path) = place();
    fill(&path);
    let state = State::open(&path).unwrap();
    state.set("late", 1).unwrap();
    let copy = path.with_extension("copy");
    for suffix in ["-wal", "-mark"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    fs::write(&copy, "").unwrap();
    let log = fs::read(format!("{}-wal", copy.display())).unwrap();
    assert_eq!(State::open(&copy).unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(fs::read(format!("{}-wal", copy.display())).unwrap(), log);
    let anew = State::with_config(StateConfig { accept_rollback: true, ..StateConfig::at(&copy) }).unwrap();
    anew.set("a", 1).unwrap();
    anew.close().unwrap();
    assert_eq!(State::open(&copy).unwrap().count("*").unwrap(), 1);
}

#[test]
fn a_store_that_was_only_in_a_log_that_is_damaged_is_not_made_anew() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", 1).unwrap();
    let copy = path.with_extension("copy");
    for suffix in ["", "-wal", "-mark"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    let log = format!("{}-wal", copy.display());
    let mut bytes = fs::read(&log).unwrap();
    bytes[32 + 24 + 100] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert_eq!(State::open(&copy).unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(fs::read(&log).unwrap(), bytes);
}

#[test]
fn a_header_that_forbids_writing_is_refused_when_the_store_is_opened() {
    let (_directory, path) = place();
    fill(&path);
    let mut bytes = fs::read(&path).unwrap();
    // The file format's write version (https://sqlite.org/fileformat2.html, section 1.3).
    bytes[18] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(State::open(&path).unwrap_err().kind(), ErrorKind::Corrupt);
    // As a newer SQLite would have written it: the page has no check.
    bytes[4088..4096].fill(0);
    fs::write(&path, bytes).unwrap();
    assert_eq!(State::open(&path).unwrap_err().kind(), ErrorKind::UnknownFormat);
}

#[test]
fn every_flipped_bit_of_every_page_is_found_by_whoever_reads_it() {
    let (_directory, path) = place();
    fill(&path);
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for start in (0..whole.len()).step_by(4096) {
        for _ in 0..3 {
            let mut bytes = whole.clone();
            let at = start + random.usize(..4096);
            bytes[at] ^= 1 << random.u8(..8);
            fs::write(&path, &bytes).unwrap();
            let problems = match State::open(&path) {
                Ok(state) => state.verify().unwrap().problems,
                Err(error) => vec![error.to_string()],
            };
            assert!(!problems.is_empty(), "byte {at} of page {}", start / 4096 + 1);
        }
    }
}

#[test]
fn another_sqlite_that_moves_the_log_of_a_dead_process_does_no_harm() {
    let (_directory, path) = place();
    fill(&path);
    let state = State::open(&path).unwrap();
    for n in 0..300 {
        state.set(&format!("late{n}"), json!({"text": "long ".repeat(n)})).unwrap();
    }
    let expected = state.verify().unwrap();
    // What a process leaves that is killed.
    let copy = path.with_extension("copy");
    for suffix in ["", "-wal", "-mark"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    let foreign = Connection::open(&copy).unwrap();
    assert_eq!(foreign.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)), Ok(354));
    foreign.close().unwrap();
    assert!(!Path::new(&format!("{}-wal", copy.display())).exists(), "it has moved the log");
    let state = State::open(&copy).unwrap();
    assert_eq!(state.verify().unwrap(), expected);
    state.set("late7", 7).unwrap();
    state.close().unwrap();
    assert_eq!(State::open(&copy).unwrap().get("late7").unwrap(), Some(json!(7)));
}

//! A value that grows costs what it grew by, and every version of it reads as it was written.

use llmspell_state_persistence::{Document, Entry, ErrorKind, Moment, RetentionPolicy, State, StateConfig, SyncMode};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

const TURNS: usize = 300;
/// Tells the child process where the store is.
const STORE: &str = "GROWING_STORE";

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    (directory, path)
}

fn open(path: &Path, cache_size_mb: usize) -> State {
    State::with_config(StateConfig { sync_mode: SyncMode::Off, cache_size_mb, ..StateConfig::at(path) }).unwrap()
}

/// Messages that have little in common, with characters of several bytes.
static MESSAGES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    let mut words = || (0..30).map(|_| format!("{:x}ö€", random.u32(..))).collect::<Vec<_>>().join(" ");
    (0..=TURNS).map(|_| json!({"role": "user", "content": words()})).collect()
});

fn turn(number: usize) -> Value {
    MESSAGES[number].clone()
}

fn chat(turns: usize) -> Value {
    MESSAGES[..turns].into()
}

fn connect(path: &Path) -> Connection {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), "llmspell-state").unwrap()
}

/// How many rows are stored as differences, and how many bytes all values take.
fn stored(path: &Path) -> (usize, usize) {
    let sums = "SELECT sum(flags >= 2), sum(length(CAST(value AS BLOB))) FROM log";
    let read = |row: &rusqlite::Row<'_>| Ok([row.get::<_, isize>(0)?, row.get(1)?]);
    let [rows, bytes] = connect(path).query_row(sums, [], read).unwrap().map(isize::cast_unsigned);
    (rows, bytes)
}

/// Every version of the chat is there, whichever way it is asked for.
fn check(state: &State) {
    let history = state.history("chat", Some(TURNS + 1)).unwrap();
    assert_eq!(history.len(), TURNS);
    for (turns, revision) in (1..=TURNS).rev().zip(&history) {
        assert_eq!(revision.value.as_ref().unwrap().to_value(), chat(turns), "history at {turns}");
        // A view goes back row by row.
        if turns % 7 != 0 {
            continue;
        }
        let view = state.at(Moment::Version(revision.version)).unwrap();
        assert_eq!(view.get("chat").unwrap(), Some(chat(turns)), "view at {turns}");
    }
    assert_eq!(state.get("chat").unwrap(), Some(chat(TURNS)));
    let items: Vec<_> = state.items("*").unwrap().map(Result::unwrap).collect();
    assert_eq!(items[0].1.value(), chat(TURNS));
    let found = state.verify().unwrap();
    assert!(found.is_ok(), "{:?}", found.problems);
}

#[test]
fn every_version_of_a_value_that_was_set_again_and_again_is_there() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    for turns in 1..=TURNS {
        state.set("chat", chat(turns)).unwrap();
    }
    check(&state);
    state.close().unwrap();
    for cache_size_mb in [16, 0] {
        let state = open(&path, cache_size_mb);
        check(&state);
        state.close().unwrap();
    }
    let (rows, bytes) = stored(&path);
    assert!(rows > TURNS * 3 / 4, "{rows}");
    // Without a cache nothing is known of what a value was.
    let whole = path.with_file_name("whole.db");
    let state = open(&whole, 0);
    for turns in 1..=TURNS {
        state.set("chat", chat(turns)).unwrap();
    }
    state.close().unwrap();
    let (none, all) = stored(&whole);
    assert!(none == 0 && bytes * 5 < all, "{bytes} of {all}");
    let [file, all] = [&path, &whole].map(|path| path.metadata().unwrap().len());
    assert!(file * 4 < all, "{file} of {all}");
}

#[test]
fn every_version_of_a_value_that_was_appended_to_is_there() {
    for cache_size_mb in [16, 0] {
        let (_directory, path) = place();
        let state = open(&path, cache_size_mb);
        for number in 0..TURNS {
            state.append("chat", turn(number)).unwrap();
        }
        check(&state);
        state.close().unwrap();
        check(&open(&path, cache_size_mb));
        let (rows, _) = stored(&path);
        assert!(rows > TURNS * 3 / 4, "{rows}");
    }
}

#[test]
fn whatever_changes_a_large_value_stores_what_it_changed() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    let version = state.set("agent", json!({"chat": chat(40), "step": 0})).unwrap();
    state.merge("agent", json!({"step": 1})).unwrap();
    let step_2 = |agent: Option<&Arc<Entry>>| {
        let mut value = agent.unwrap().value();
        value["step"] = json!(2);
        Document::from_value(&value, 1 << 20)
    };
    state.modify("agent", step_2).unwrap();
    let entry = state.entry("agent").unwrap().unwrap();
    state.set_if("agent", json!({"chat": chat(40), "step": 3}), entry.version()).unwrap();
    state.transact(|tx| tx.set("agent", json!({"chat": chat(41), "step": 4}))).unwrap();
    state.set_many([("agent", json!({"chat": chat(41), "step": 5}))]).unwrap();
    state.revert("agent", version).unwrap();
    state.set("agent", json!({"chat": chat(41), "step": 7})).unwrap();
    state.revert_to(version, "*").unwrap();
    assert_eq!(stored(&path).0, 8);
    assert_eq!(state.get("agent").unwrap().unwrap()["step"], 0);
    let steps = state.history("agent", None).unwrap();
    let steps: Vec<_> =
        steps.iter().map(|revision| revision.value.as_ref().unwrap().to_value()["step"].clone()).collect();
    assert_eq!(steps, [0, 7, 0, 5, 4, 3, 2, 1, 0]);
    assert!(state.verify().unwrap().is_ok());
}

#[test]
fn a_value_differs_only_from_one_of_its_own_key_and_scope() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    let inner = state.scope("inner").unwrap();
    for turns in 30..32 {
        state.set("a", chat(turns)).unwrap();
        state.set("b", chat(turns)).unwrap();
        inner.set("a", chat(turns)).unwrap();
    }
    let differing = "SELECT count(*) FROM log JOIN log AS base ON base.seq = log.prev WHERE log.flags >= 2 \
                     AND base.key = log.key AND base.scope_id = log.scope_id AND base.flags < 2";
    assert_eq!(connect(&path).query_row(differing, [], |row| row.get::<_, i64>(0)).unwrap(), 3);
    assert_eq!(inner.get("a").unwrap(), Some(chat(31)));
}

#[test]
fn what_is_short_or_not_to_be_compressed_is_stored_whole() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    for turns in 1..7 {
        state.set("chat", chat(turns)).unwrap();
    }
    assert_eq!(stored(&path).0, 0);
    state.close().unwrap();
    let config = StateConfig { enable_compression: false, ..StateConfig::at(&path) };
    let state = State::with_config(config).unwrap();
    for turns in 30..40 {
        state.set("chat", chat(turns)).unwrap();
    }
    assert_eq!(stored(&path).0, 0);
}

#[test]
fn a_value_that_was_deleted_or_replaced_meanwhile_grows_on() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    for turns in 30..61 {
        state.set("chat", chat(turns)).unwrap();
        match turns % 7 {
            3 => assert!(state.delete("chat").unwrap()),
            5 => drop(state.set("chat", "short").unwrap()),
            _ => assert_eq!(state.get("chat").unwrap(), Some(chat(turns))),
        }
    }
    assert_eq!(state.get("chat").unwrap(), Some(chat(60)));
    assert!(state.verify().unwrap().is_ok());
}

#[test]
fn a_transaction_reads_its_snapshot_while_the_value_grows() {
    let (_directory, path) = place();
    let state = open(&path, 0);
    state.set("chat", chat(30)).unwrap();
    state.append("chat", turn(30)).unwrap();
    let tx = state.transaction().unwrap();
    for number in 31..60 {
        state.append("chat", turn(number)).unwrap();
    }
    assert_eq!(tx.get("chat").unwrap(), Some(chat(31)));
    tx.set("chat", chat(32)).unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(state.get("chat").unwrap(), Some(chat(60)));
}

#[test]
fn a_conversation_of_a_thousand_turns_keeps_its_last_fifty_and_takes_little_more_than_itself() {
    const KEPT: usize = 50;
    let (_directory, path) = place();
    let retention = RetentionPolicy { max_versions: KEPT, ..RetentionPolicy::keep_all() };
    let config = StateConfig { sync_mode: SyncMode::Off, retention, ..StateConfig::at(&path) };
    let state = State::with_config(config.clone()).unwrap();
    let mut talk: Vec<Value> = Vec::new();
    let mut versions = Vec::new();
    for number in 0..1_000 {
        talk.push(json!({"turn": number, "said": turn(number % TURNS)}));
        versions.push(state.set("talk", json!(talk)).unwrap());
    }
    state.cleanup().unwrap();
    let check = |state: &State| {
        let history = state.history("talk", Some(1_000)).unwrap();
        assert_eq!(history.len(), KEPT);
        for (turns, revision) in (1..=1_000).rev().zip(&history) {
            assert_eq!(revision.value.as_ref().unwrap().to_value(), json!(talk[..turns]), "history at {turns}");
            assert_eq!(revision.version, versions[turns - 1]);
            let view = state.at(revision.version).unwrap();
            assert_eq!(view.get("talk").unwrap(), Some(json!(talk[..turns])), "view at {turns}");
        }
        let forgotten = state.at(versions[1_000 - KEPT - 1]).unwrap().get("talk");
        assert_eq!(forgotten.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(state.verify().unwrap().is_ok());
        let usage = state.usage().unwrap();
        let text = json!(talk).to_string().len() as u64;
        // The last one whole at most, and of the others at most one whole besides what the turns have added.
        assert!(usage.live_bytes + usage.history_bytes < 3 * text, "{usage:?} of {text}");
    };
    check(&state);
    state.close().unwrap();
    check(&State::with_config(config).unwrap());
}

/// What the child process does.
#[test]
#[ignore = "started by the test below"]
fn grow_in_a_process_of_its_own() {
    let Ok(path) = std::env::var(STORE) else { return };
    let state = open(Path::new(&path), 16);
    for _ in 0..10 {
        let turns = state.get("chat").unwrap().unwrap().as_array().unwrap().len();
        assert_eq!(state.get("chat").unwrap(), Some(chat(turns)));
        state.set("chat", chat(turns + 1)).unwrap();
        state.append("chat", turn(turns + 1)).unwrap();
    }
    state.close().unwrap();
}

#[test]
fn processes_go_on_from_what_others_have_stored() {
    let (_directory, path) = place();
    let state = open(&path, 16);
    state.set("chat", chat(40)).unwrap();
    for round in 0..3 {
        let turns = 40 + round * 21;
        state.set("chat", chat(turns)).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "grow_in_a_process_of_its_own", "--ignored"]).env(STORE, &path);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(state.get("chat").unwrap(), Some(chat(turns + 20)));
        // From what this process had known before the other one wrote.
        state.set("chat", chat(turns + 21)).unwrap();
    }
    assert_eq!(state.get("chat").unwrap(), Some(chat(40 + 3 * 21)));
    assert!(state.verify().unwrap().is_ok());
    assert!(stored(&path).0 > 50);
}

#[test]
fn a_value_whose_base_has_gone_meanwhile_is_stored_whole() {
    for gone in ["DELETE FROM log WHERE seq = 1", "UPDATE log SET row_check = row_check + 1 WHERE seq = 1"] {
        let (_directory, path) = place();
        let state = open(&path, 16);
        state.set("chat", chat(40)).unwrap();
        state.set("chat", chat(41)).unwrap();
        connect(&path).execute(gone, []).unwrap();
        // The cache still knows it.
        state.set("chat", chat(42)).unwrap();
        assert_eq!(stored(&path).0, 1);
        state.set("chat", chat(43)).unwrap();
        assert_eq!(stored(&path).0, 2, "the new one is a base again");
        state.close().unwrap();
        assert_eq!(open(&path, 16).get("chat").unwrap(), Some(chat(43)));
    }
}

#[test]
fn a_damaged_base_is_told_for_every_value_that_needs_it() {
    for (damage, words) in [
        ("UPDATE log SET value = '[]' WHERE seq = 1", "log row 1 does not match its check"),
        ("UPDATE log SET key = 'other' WHERE seq = 1", "differs from a row of another key"),
        ("DELETE FROM log WHERE seq = 1", "log row 1, from which it differs, is missing"),
    ] {
        let (_directory, path) = place();
        let state = open(&path, 16);
        for turns in 30..33 {
            state.set("chat", chat(turns)).unwrap();
        }
        state.set("other", chat(30)).unwrap();
        state.close().unwrap();
        connect(&path).execute(damage, []).unwrap();
        let state = open(&path, 16);
        let error = state.get("chat").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("log row 3") && error.message().contains(words), "{error}");
        assert_eq!(state.history("chat", None).unwrap_err().kind(), ErrorKind::Corrupt);
        let problems = state.verify().unwrap().problems;
        for row in ["log row 2", "log row 3"] {
            assert!(problems.iter().any(|told| told.contains(row) && told.contains(words)), "{row}: {problems:?}");
        }
        assert_eq!(state.get("other").unwrap(), Some(chat(30)), "of another key");
        // A value that is not a difference goes on.
        state.set("chat", chat(33)).unwrap();
        assert_eq!(state.get("chat").unwrap(), Some(chat(33)));
    }
}

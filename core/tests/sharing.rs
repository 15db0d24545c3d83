//! What a fork shares with the scope that it was made from, and that neither side sees what the other changes.

use llmspell_state_persistence::{Origin, RetentionPolicy, Scope, Select, State, StateConfig, SyncMode, Undo};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Keeps nothing of what is not the present any more.
fn forget() -> RetentionPolicy {
    RetentionPolicy { max_age: Some(Duration::ZERO), ..RetentionPolicy::keep_all() }
}

fn opened(path: &Path) -> State {
    State::with_config(StateConfig { sync_mode: SyncMode::Normal, retention: forget(), ..StateConfig::at(path) })
        .unwrap()
}

fn clean_up(state: &State) {
    state.set("last", 1).unwrap();
    std::thread::sleep(Duration::from_millis(3));
    state.cleanup().unwrap();
}

/// Reads a scope in every way.
fn check(scope: &Scope, expected: &BTreeMap<String, Value>, what: &str) {
    let items: BTreeMap<_, _> =
        scope.items("*").unwrap().map(Result::unwrap).map(|(key, entry)| (key, entry.value())).collect();
    assert_eq!(items, *expected, "{what}");
    let keys = |select: Select| scope.keys(select).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let reverse: Vec<_> = expected.keys().rev().cloned().collect();
    assert_eq!(keys(Select { reverse: true, ..Select::from("*") }), reverse, "{what}");
    let some: Vec<_> = expected.keys().filter(|key| key.starts_with("k1")).cloned().collect();
    assert_eq!(keys(Select::from("k1*")), some, "{what}");
    assert_eq!(scope.count("k1*").unwrap(), some.len() as u64, "{what}");
    for n in 0..20 {
        let key = format!("k{n:02}");
        assert_eq!(scope.get(&key).unwrap().as_ref(), expected.get(&key), "{what}: {key}");
    }
}

#[test]
fn a_fork_takes_next_to_nothing_however_much_it_shows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let size = |work: &dyn Fn(&State)| {
        let state = opened(&path);
        work(&state);
        state.close().unwrap();
        std::fs::metadata(&path).unwrap().len()
    };
    let pairs = || (0..20_000).map(|n| (format!("user:{n}"), n));
    let before = size(&|state| assert_eq!(state.scope("agent").unwrap().set_many(pairs()).unwrap(), 1));
    let after = size(&|state| {
        let trial = state.fork("agent", "trial").unwrap();
        assert_eq!(trial.count("*").unwrap(), 20_000);
        assert_eq!(state.verify().unwrap().keys, 40_000);
    });
    assert!(after - before <= 8_192, "{before} bytes before, {after} after");
}

#[test]
fn scopes_and_forks_of_them_and_of_those_change_without_each_other() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let rng = &mut fastrand::Rng::with_seed(seed);
    for round in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.db");
        let mut state = opened(&path);
        let mut expected = vec![("s0".to_owned(), BTreeMap::new())];
        state.scope("s0").unwrap();
        for step in 0..400 {
            let what = format!("SEED={seed}, round {round}, step {step}");
            let (at, scopes) = (rng.usize(..expected.len()), expected.len());
            let (name, keys) = &mut expected[at];
            let scope = state.scope(name).unwrap();
            let key = format!("k{:02}", rng.u8(..20));
            match rng.u8(..100) {
                0..50 => {
                    scope.set(&key, step).unwrap();
                    keys.insert(key, json!(step));
                }
                50..80 => assert_eq!(scope.delete(&key).unwrap(), keys.remove(&key).is_some(), "{what}: {key}"),
                80..83 => {
                    scope.clear("k1*").unwrap();
                    keys.retain(|key, _| !key.starts_with("k1"));
                }
                83..90 if scopes < 8 => {
                    let fork = (format!("s{scopes}"), keys.clone());
                    state.fork(name, &fork.0).unwrap();
                    expected.push(fork);
                }
                90..95 => clean_up(&state),
                95..97 => {
                    state.close().unwrap();
                    state = opened(&path);
                }
                _ => check(&scope, keys, &what),
            }
        }
        let what = format!("SEED={seed}, round {round}");
        for (name, keys) in &expected {
            check(&state.scope(name).unwrap(), keys, &what);
        }
        assert_eq!(state.verify().unwrap().problems, Vec::<String>::new(), "{what}");
    }
}

#[test]
fn a_key_that_a_fork_has_deleted_and_forgotten_does_not_come_back_from_its_origin() {
    let directory = tempfile::tempdir().unwrap();
    let state = opened(&directory.path().join("s.db"));
    let agent = state.scope("agent").unwrap();
    agent.set_many([("a", 1), ("b", 2)]).unwrap();
    let trial = state.fork("agent", "trial").unwrap();
    assert!(trial.delete("a").unwrap());
    clean_up(&state);
    assert_eq!(trial.history("a", None).unwrap().len(), 0);
    let names = |scope: &Scope| scope.keys("*").unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((trial.get("a").unwrap(), trial.count("*").unwrap(), names(&trial)), (None, 1, vec!["b".into()]));
    agent.set("a", 3).unwrap();
    agent.delete("b").unwrap();
    assert_eq!((trial.get("a").unwrap(), names(&trial)), (None, vec!["b".into()]));
    trial.set("a", 4).unwrap();
    assert_eq!((trial.get("a").unwrap(), agent.get("a").unwrap()), (Some(json!(4)), Some(json!(3))));
    assert_eq!(state.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_fork_that_is_read_while_its_origin_changes_shows_what_it_has_shown() {
    let directory = tempfile::tempdir().unwrap();
    let state = opened(&directory.path().join("s.db"));
    let agent = state.scope("agent").unwrap();
    let keys: Vec<_> = (0..300).map(|n| format!("k{n:03}")).collect();
    for round in 0..10 {
        agent.set_many(keys.iter().map(|key| (key, round))).unwrap();
        let trial = state.fork("agent", &format!("trial{round}")).unwrap();
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    for key in &keys {
                        assert_eq!(trial.get(key).unwrap(), Some(json!(round)), "round {round}: {key}");
                    }
                });
            }
            threads.spawn(|| (0..30).for_each(|_| assert_eq!(trial.count("*").unwrap(), 300, "round {round}")));
            for key in &keys {
                agent.set(key, "later").unwrap();
            }
        });
    }
}

#[test]
fn what_is_made_inside_of_a_fork_belongs_to_it() {
    let state = State::in_memory().unwrap();
    state.scope("agent").unwrap().scope("inner").unwrap().set("a", 1).unwrap();
    let trial = state.fork("agent", "trial").unwrap();
    let handle = trial.as_run(Origin { run: Some("bad".into()), ..Origin::default() }).unwrap();
    handle.scope("notes").unwrap().set("k", 1).unwrap();
    handle.scope("inner").unwrap().scope("deep").unwrap().set("k", 1).unwrap();
    assert_eq!((trial.usage().unwrap().keys, state.usage().unwrap().keys), (3, 4));
    let undone = state.undo(Undo { run: Some("bad".into()), ..Undo::default() }).unwrap();
    assert_eq!((undone.keys, trial.usage().unwrap().keys), (2, 1));
}

#[test]
fn nothing_is_left_of_what_hid_a_key_once_its_origin_changes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let state = opened(&path);
    let agent = state.scope("agent").unwrap();
    agent.set_many([("a", 1), ("b", 1)]).unwrap();
    let trial = state.fork("agent", "trial").unwrap();
    trial.clear("*").unwrap();
    clean_up(&state);
    agent.set("a", 2).unwrap();
    assert!(agent.delete("b").unwrap());
    clean_up(&state);
    assert_eq!(trial.count("*").unwrap(), 0);
    let other = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "llmspell-state").unwrap();
    let entries: i64 = other.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
    assert_eq!(entries, 2, "\"a\" of the scope, and \"last\"");
}

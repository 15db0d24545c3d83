//! How much of the past is kept.

use llmspell_state_persistence::{
    ErrorKind, Operation, RetentionPolicy, Scope, State, StateConfig, SyncMode, Usage, WatchOptions,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn keep(max_versions: usize) -> RetentionPolicy {
    RetentionPolicy { max_versions, ..RetentionPolicy::keep_all() }
}

/// Its directory goes with it.
struct Place {
    directory: tempfile::TempDir,
    config: StateConfig,
}

fn place(retention: RetentionPolicy) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let config = StateConfig { retention, sync_mode: SyncMode::Normal, ..StateConfig::at(path) };
    Place { directory, config }
}

impl Place {
    fn open(&self) -> State {
        State::with_config(self.config.clone()).unwrap()
    }
}

#[track_caller]
fn is_sound(state: &State) {
    assert_eq!(state.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn so_many_versions_stay_and_the_present_one_always() {
    let place = place(keep(3));
    let state = place.open();
    let first = state.set("k", 0).unwrap();
    for n in 1..1_000 {
        state.set("k", n).unwrap();
        state.set(&format!("once{n}"), n).unwrap();
    }
    let trimmed = state.cleanup().unwrap().trimmed;
    let values: Vec<_> =
        state.history("k", None).unwrap().iter().map(|r| r.value.clone().unwrap().to_value()).collect();
    assert_eq!(values, [json!(999), json!(998), json!(997)]);
    assert!(trimmed <= 997 && state.usage().unwrap().changes == 999 + 3, "{trimmed}");
    assert_eq!(state.get("once1").unwrap(), Some(json!(1)));
    assert_eq!(state.at(first).unwrap().get("k").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(state.revert("k", first).unwrap_err().kind(), ErrorKind::NotFound);
    is_sound(&state);
    state.close().unwrap();
    let state = place.open();
    assert_eq!(state.get("k").unwrap(), Some(json!(999)));
    state.set("k", 1_000).unwrap();
    assert_eq!(state.cleanup().unwrap().trimmed, 1);
    assert_eq!(state.cleanup().unwrap().trimmed, 0);
    is_sound(&state);
}

#[test]
fn what_is_gone_for_longer_than_the_age_is_not_known_any_more() {
    let place = place(RetentionPolicy { max_age: Some(Duration::from_millis(1)), ..RetentionPolicy::keep_all() });
    let state = place.open();
    let early = state.set("gone", 1).unwrap();
    let tx = state.transaction().unwrap();
    state.set("stays", 1).unwrap();
    state.set("stays", 2).unwrap();
    state.delete("gone").unwrap();
    state.set("last", 1).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(state.cleanup().unwrap().trimmed, 3);
    assert_eq!(state.history("gone", None).unwrap().len(), 0);
    assert_eq!(state.history("stays", None).unwrap().len(), 1);
    let then = state.at(early).unwrap();
    assert_eq!(then.get("gone").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(then.keys("*").unwrap().next().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tx.get("gone").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(tx.count("*").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(
        state.watch(WatchOptions { since: Some(early), ..WatchOptions::default() }).unwrap().next().unwrap_err().kind(),
        ErrorKind::NotFound
    );
    is_sound(&state);
    state.set("gone", 3).unwrap();
    assert_eq!(state.history("gone", None).unwrap().len(), 1);
    is_sound(&state);
}

#[test]
fn the_newest_change_of_all_stays_whatever_it_is() {
    let place = place(RetentionPolicy { max_age: Some(Duration::ZERO), ..RetentionPolicy::keep_all() });
    let state = place.open();
    state.set("k", 1).unwrap();
    state.delete("k").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    state.cleanup().unwrap();
    let version = state.version().unwrap();
    assert_eq!(version, 2);
    assert_eq!(state.set("k", 1).unwrap(), 3);
    is_sound(&state);
}

#[test]
fn so_many_bytes_of_the_past_stay() {
    let place = place(RetentionPolicy { max_bytes: Some(1_000), ..RetentionPolicy::keep_all() });
    let state = place.open();
    let scope = state.scope("a").unwrap();
    for n in 0..100_u32 {
        state.set("k", "x".repeat(98)).unwrap();
        scope.set(&format!("k{}", n % 7), "x".repeat(98)).unwrap();
    }
    state.cleanup().unwrap();
    let inner = scope.usage().unwrap();
    assert_eq!(inner, Usage { keys: 7, live_bytes: 700, history_bytes: 1_000, changes: 17 });
    assert_eq!(state.usage().unwrap(), Usage { keys: 8, live_bytes: 800, history_bytes: 2_000, changes: 28 });
    is_sound(&state);
}

#[test]
fn a_named_watch_is_told_everything_unless_it_is_said_not_to_matter() {
    let place = place(keep(1));
    let state = place.open();
    let watch = state.watch(WatchOptions { name: Some("indexer".into()), ..WatchOptions::default() }).unwrap();
    for n in 0..100_u32 {
        state.set("k", n).unwrap();
    }
    watch.save().unwrap();
    drop(watch);
    assert_eq!(state.cleanup().unwrap().trimmed, 0);
    let watch = state.watch(WatchOptions { name: Some("indexer".into()), ..WatchOptions::default() }).unwrap();
    for n in 0..50 {
        let change = watch.next().unwrap().unwrap();
        assert_eq!(change.value.unwrap().to_value(), json!(n));
    }
    watch.save().unwrap();
    let trimmed = state.cleanup().unwrap().trimmed;
    assert!((48..=50).contains(&trimmed), "{trimmed}");
    is_sound(&state);
    state.set_retention(Some(&RetentionPolicy { trim_watched: true, ..keep(1) })).unwrap();
    state.cleanup().unwrap();
    assert_eq!(state.history("k", None).unwrap().len(), 1);
    is_sound(&state);
}

#[test]
fn values_that_are_stored_as_differences_keep_what_they_differ_from() {
    let place = place(keep(4));
    let state = place.open();
    let mut turns = Vec::new();
    for n in 0..400 {
        turns.push(json!({ "turn": n, "text": format!("what was said in turn {n}, {}", n * 7_919) }));
        state.set("talk", json!(turns)).unwrap();
        if n % 13 == 0 {
            state.cleanup().unwrap();
            is_sound(&state);
        }
    }
    state.cleanup().unwrap();
    let history = state.history("talk", None).unwrap();
    assert_eq!(history.len(), 4);
    assert_eq!(history[3].value.as_ref().unwrap().to_value(), json!(turns[..397]));
    let usage = state.usage().unwrap();
    assert!(usage.changes <= 8, "{usage:?}");
    is_sound(&state);
    state.set("talk", 1).unwrap();
    for n in 0..4 {
        state.set("talk", n).unwrap();
    }
    state.cleanup().unwrap();
    assert_eq!(state.usage().unwrap().changes, 4);
    is_sound(&state);
}

#[test]
fn the_past_is_trimmed_in_the_background_while_others_write() {
    let place = place(RetentionPolicy { cleanup_interval: Duration::from_millis(100), ..keep(5) });
    let state = place.open();
    for n in 0..60_000 {
        state.set(&format!("k{}", n % 50), n).unwrap();
    }
    let start = Instant::now();
    while state.usage().unwrap().changes > 2_000 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", state.usage());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(state.history("k7", None).unwrap()[0].operation, Operation::Set);
    is_sound(&state);
}

#[test]
fn undo_beyond_what_is_kept_is_refused_and_nothing_changes() {
    let place = place(keep(2));
    let state = place.open();
    state.set("k", 0).unwrap();
    let run = llmspell_state_persistence::Origin { run: Some("r".into()), ..Default::default() };
    let handle = state.as_run(run).unwrap();
    for n in 1..10 {
        handle.set("k", n).unwrap();
    }
    state.cleanup().unwrap();
    let what = llmspell_state_persistence::Undo { run: Some("r".into()), ..Default::default() };
    assert_eq!(state.undo(what).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(state.get("k").unwrap(), Some(json!(9)));
}

#[test]
fn a_policy_that_cannot_be_kept_is_refused() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    let state = State::in_memory().unwrap();
    state.set_retention(Some(&RetentionPolicy { max_age: Some(century), ..keep(1) })).unwrap();
    assert_eq!(state.retention().unwrap().max_age, Some(century));
    for bad in [
        keep(0),
        RetentionPolicy { cleanup_interval: Duration::ZERO, ..keep(1) },
        RetentionPolicy { cleanup_interval: Duration::MAX, ..keep(1) },
        RetentionPolicy { max_age: Some(Duration::MAX), ..keep(1) },
    ] {
        let config = StateConfig { retention: bad.clone(), ..StateConfig::default() };
        assert_eq!(State::with_config(config).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(State::in_memory().unwrap().set_retention(Some(&bad)).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let options = json!({ "retention": { "max_versions": 5.0, "max_age": 1.5 } });
    let config = StateConfig::from_options(options.as_object().unwrap().clone()).unwrap();
    assert_eq!((config.retention.max_versions, config.retention.max_age), (5, Some(Duration::from_millis(1_500))));
    for bad in [json!({ "max_version": 5 }), json!(5), json!({ "max_age": -1 })] {
        let options = json!({ "retention": bad });
        assert!(StateConfig::from_options(options.as_object().unwrap().clone()).is_err());
    }
}

/// Keeps nothing of what is not the present any more.
fn forget() -> RetentionPolicy {
    RetentionPolicy { max_age: Some(Duration::ZERO), ..RetentionPolicy::keep_all() }
}

/// Deletes a key of a scope of which nothing is known afterwards.
fn delete_for_good(state: &State, scope: &Scope, key: &str) {
    scope.delete(key).unwrap();
    state.set("last", 1).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    state.cleanup().unwrap();
    assert_eq!(scope.history(key, None).unwrap().len(), 0);
}

#[test]
fn a_transaction_that_read_what_is_not_known_any_more_conflicts() {
    let place = place(forget());
    let state = place.open();
    for listed in [false, true] {
        state.set("gone", 1).unwrap();
        let tx = state.transaction().unwrap();
        if listed {
            assert_eq!(tx.count("gone*").unwrap(), 1);
        } else {
            assert_eq!(tx.get("gone").unwrap(), Some(json!(1)));
        }
        tx.set("mine", 1).unwrap();
        delete_for_good(&state, &state, "gone");
        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict, "{listed}");
    }
}

#[test]
fn an_earlier_life_of_a_key_is_not_taken_for_its_absence() {
    let place = place(forget());
    let state = place.open();
    let scope = state.scope("a").unwrap();
    let then = scope.set("k", 1).unwrap();
    delete_for_good(&state, &scope, "k");
    let fork = state.fork("a", "b").unwrap();
    scope.set("k", 2).unwrap();
    for scope in [&scope, &fork] {
        let view = scope.at(then).unwrap();
        assert_eq!(view.get("k").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(view.count("*").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(scope.revert("k", then).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(scope.revert_to(then, "*").unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(scope.get("k").unwrap(), Some(json!(2)));
    // Who has seen the deletion goes on from there.
    let watch = scope.watch(WatchOptions { since: Some(then + 1), ..WatchOptions::default() }).unwrap();
    assert_eq!(watch.next().unwrap().unwrap().value.unwrap().to_value(), json!(2));
}

#[test]
fn what_others_differ_from_goes_with_them_whatever_happens_in_between() {
    let state = State::with_config(StateConfig { retention: keep(2), ..StateConfig::default() }).unwrap();
    let mut text: String = (0..50_000).map(|_| fastrand::alphanumeric()).collect();
    for _ in 0..1_100 {
        text.extend((0..20).map(|_| fastrand::alphanumeric()));
        state.set("k", text.clone()).unwrap();
    }
    std::thread::scope(|threads| {
        let cleanup = threads.spawn(|| state.cleanup().unwrap());
        while state.usage().unwrap().changes == 1_100 {}
        state.set("k", 1).unwrap();
        is_sound(&state);
        cleanup.join().unwrap();
    });
    state.history("k", Some(2_000)).unwrap();
    is_sound(&state);
    state.cleanup().unwrap();
    assert_eq!(state.history("k", Some(2_000)).unwrap().len(), 2);
    is_sound(&state);
}

#[test]
fn closing_does_not_wait_for_all_that_is_to_be_trimmed() {
    let mut place = place(RetentionPolicy::keep_all());
    let state = place.open();
    for n in 0..300 {
        state.set_many((0..1_000).map(|k| (format!("k{k}"), n))).unwrap();
    }
    state.close().unwrap();
    place.config.retention = RetentionPolicy { cleanup_interval: Duration::from_millis(100), ..keep(1) };
    let state = place.open();
    state.set("x", 1).unwrap();
    std::thread::sleep(Duration::from_millis(800));
    let start = Instant::now();
    state.close().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_named_watch_that_nobody_reads_makes_trimming_no_burden() {
    let state = State::with_config(StateConfig { retention: keep(5), ..StateConfig::default() }).unwrap();
    let _watch = state.watch(WatchOptions { name: Some("w".into()), ..WatchOptions::default() }).unwrap();
    let start = Instant::now();
    for n in 0..120_000 {
        state.set(&format!("k{}", n % 3), n).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(state.forget_watch("w").unwrap());
    state.cleanup().unwrap();
    assert_eq!(state.usage().unwrap().changes, 15);
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_process_learns_of_a_deletion_that_is_not_known_any_more() {
    const NAME: &str = "a_process_learns_of_a_deletion_that_is_not_known_any_more";
    if let Some(directory) = std::env::var_os("RETENTION_DIRECTORY").map(PathBuf::from) {
        let state = State::open(directory.join("s.db")).unwrap();
        state.set("gone", 1).unwrap();
        assert_eq!(state.get("gone").unwrap(), Some(json!(1)));
        std::fs::write(directory.join("read"), "").unwrap();
        wait_for(&directory.join("deleted"));
        assert_eq!(state.get("gone").unwrap(), None);
        return;
    }
    let place = place(forget());
    let directory = place.directory.path();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact"])
        .env("RETENTION_DIRECTORY", directory)
        .spawn()
        .unwrap();
    wait_for(&directory.join("read"));
    let state = place.open();
    delete_for_good(&state, &state, "gone");
    std::fs::write(directory.join("deleted"), "").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn how_far_the_log_was_looked_at_counts_for_the_next_opening() {
    let place = place(keep(1));
    let mut notes = std::collections::HashSet::new();
    for n in 0..12 {
        let state = place.open();
        for scope in 0..4 {
            state.scope(&format!("s{scope}")).unwrap().set_retention(Some(&keep(2 + scope))).unwrap();
        }
        state.set("k", n).unwrap();
        state.set("k", n + 1).unwrap();
        state.cleanup().unwrap();
        state.close().unwrap();
        let file = rusqlite::Connection::open(place.config.persistence_path.as_ref().unwrap()).unwrap();
        let note: String = file.query_row("SELECT value FROM store WHERE name = 'trim'", [], |row| row.get(0)).unwrap();
        notes.insert(serde_json::from_str::<serde_json::Value>(&note).unwrap()["policies"].to_string());
    }
    assert_eq!(notes.len(), 1);
}

#[test]
fn what_is_gone_since_a_moment_is_not_passed_over_although_the_key_came_back() {
    let retention = RetentionPolicy { max_age: Some(Duration::ZERO), ..RetentionPolicy::keep_all() };
    let state = State::with_config(StateConfig { retention, ..StateConfig::default() }).unwrap();
    let there = state.set("k", 1).unwrap();
    state.delete("k").unwrap();
    state.set("other", 1).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    state.cleanup().unwrap();
    let back = state.set("k", 2).unwrap();
    assert_eq!(state.history("k", None).unwrap().len(), 1);
    assert_eq!(state.at(there).unwrap().get("k").map_err(|error| error.kind()), Err(ErrorKind::NotFound));
    assert_eq!(state.at(back).unwrap().get("k").unwrap(), Some(json!(2)));
    let watch = state.watch(WatchOptions { since: Some(there), ..WatchOptions::default() }).unwrap();
    assert_eq!(watch.next().unwrap_err().kind(), ErrorKind::NotFound, "the deletion must not be passed over");
}

#[test]
fn writers_of_a_store_of_one_connection_wait_for_no_more_than_a_part_of_the_trimming() {
    let state =
        State::with_config(StateConfig { retention: RetentionPolicy::keep_all(), ..StateConfig::default() }).unwrap();
    for n in 0..300 {
        state.set_many((0..1_000).map(|k| (format!("k{k}"), n))).unwrap();
    }
    state.set_retention(Some(&keep(5))).unwrap();
    let mut longest = Duration::ZERO;
    std::thread::scope(|threads| {
        let cleanup = threads.spawn(|| state.cleanup().unwrap());
        while !cleanup.is_finished() {
            let start = Instant::now();
            state.set("x", 1).unwrap();
            longest = longest.max(start.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    assert!(state.usage().unwrap().changes < 10_000);
    is_sound(&state);
}

#[test]
fn a_policy_that_was_just_set_is_the_one_by_which_an_exclusive_store_is_trimmed() {
    let place = place(RetentionPolicy::keep_all());
    let state = State::with_config(StateConfig { exclusive: true, ..place.config.clone() }).unwrap();
    for n in 0..20 {
        state.set("k", n).unwrap();
    }
    assert_eq!(state.cleanup().unwrap().trimmed, 0);
    state.set_retention(Some(&keep(1))).unwrap();
    assert_eq!(state.cleanup().unwrap().trimmed, 19);
}

#[test]
fn a_deleted_key_that_no_fork_knows_is_forgotten_although_its_scope_has_forks() {
    let state = State::with_config(StateConfig { retention: forget(), ..StateConfig::default() }).unwrap();
    let agent = state.scope("agent").unwrap();
    state.fork("agent", "trial").unwrap();
    agent.set("later", 1).unwrap();
    delete_for_good(&state, &agent, "later");
    is_sound(&state);
}

#[test]
fn large_values_are_trimmed_after_fewer_changes() {
    let place = place(keep(1));
    let state = place.open();
    // 65,536 changes would take 1.3 GB.
    let large = "x".repeat(20_000);
    let until = Instant::now() + Duration::from_secs(60);
    for n in 0.. {
        state.set(&format!("k{}", n % 10), format!("{n}{large}")).unwrap();
        if n % 100 == 99 {
            let usage = state.usage().unwrap();
            if n > 1_000 && usage.changes < n / 2 {
                break;
            }
            assert!(Instant::now() < until, "nothing is trimmed after {n} sets: {usage:?}");
        }
    }
    is_sound(&state);
}

#[test]
fn what_processes_have_left_that_did_not_live_long_is_trimmed_by_the_next() {
    let place = place(keep(1));
    let keys: Vec<String> = (0..17_000).map(|n| format!("k{n}")).collect();
    let early = State::with_config(StateConfig { retention: RetentionPolicy::keep_all(), ..place.config.clone() });
    let early = early.unwrap();
    for n in 0..4 {
        early.set_many(keys.iter().map(|key| (key, n))).unwrap();
    }
    early.close().unwrap();
    // What was replaced this very moment is left alone.
    std::thread::sleep(Duration::from_millis(1_100));
    let state = place.open();
    let until = Instant::now() + Duration::from_secs(30);
    while state.usage().unwrap().changes > 17_000 {
        assert!(Instant::now() < until, "nothing is trimmed: {:?}", state.usage());
        std::thread::sleep(Duration::from_millis(20));
    }
    is_sound(&state);
}

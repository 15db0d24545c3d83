//! Watching changes.

use llmspell_state_persistence::{Change, Document, ErrorKind, Operation, State, StateConfig, Watch, WatchOptions};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const NONE: Duration = Duration::from_millis(30);

fn value(change: &Change) -> Value {
    change.value.as_ref().map_or(Value::Null, Document::to_value)
}

/// Every change that is there by now.
fn all(watch: &Watch) -> Vec<Change> {
    std::iter::from_fn(|| watch.next_timeout(NONE).unwrap()).collect()
}

#[test]
fn every_change_is_told_once_in_order_with_what_it_was() {
    let state = State::in_memory().unwrap();
    state.set("before", 0).unwrap();
    let watch = state.watch("a*").unwrap();
    let first = state.set("a1", 1).unwrap();
    state.set("b", 1).unwrap();
    state.scope("inner").unwrap().set("a1", 9).unwrap();
    state.set_many([("a1", 2), ("a2", 3), ("c", 4)]).unwrap();
    state.delete("a1").unwrap();
    state.delete("a1").unwrap();
    let told = all(&watch);
    let seen: Vec<_> = told
        .iter()
        .map(|change| {
            let old = change.old.as_ref().map(Document::to_value);
            (&*change.key, change.operation, value(change), old, change.ends_commit)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("a1", Operation::Set, json!(1), None, true),
            ("a1", Operation::Set, json!(2), Some(json!(1)), false),
            ("a2", Operation::Set, json!(3), None, true),
            ("a1", Operation::Delete, Value::Null, Some(json!(2)), true),
        ]
    );
    assert_eq!(told[0].version, first);
    assert!(told[1].version == told[2].version && told[3].version > told[2].version);
    assert!(all(&watch).is_empty());
}

#[test]
fn watching_from_a_version_tells_what_came_after_it() {
    let state = State::in_memory().unwrap();
    let versions: Vec<u64> = (0..3_000).map(|n| state.set_many([("x", n), ("y", n)]).unwrap()).collect();
    for since in [0, 1, 2, 1_500, 2_998, 2_999, 3_000] {
        let watch = state.watch(WatchOptions { since: Some(since as u64), ..WatchOptions::default() }).unwrap();
        let told = all(&watch);
        assert_eq!(told.len(), 2 * (3_000 - since));
        assert!(told.iter().zip(versions.iter().skip(since).flat_map(|v| [v, v])).all(|(c, v)| c.version == *v));
        assert!(told.chunks(2).all(|commit| !commit[0].ends_commit && commit[1].ends_commit));
    }
    let beyond = state.watch(WatchOptions { since: Some(3_001), ..WatchOptions::default() });
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_commit_larger_than_a_page_is_told_whole() {
    let state = State::in_memory().unwrap();
    let watch = state.watch("k*").unwrap();
    state.set_many((0..2_000).map(|n| (format!("k{n:05}"), n))).unwrap();
    state.set_many((0..30_000).map(|n| (format!("other{n:05}"), n)).chain([("k".to_owned(), 1)])).unwrap();
    let told = all(&watch);
    assert_eq!(told.len(), 2_001);
    let ends: Vec<usize> = (0..told.len()).filter(|n| told[*n].ends_commit).collect();
    assert_eq!(ends, [1_999, 2_000]);
}

#[test]
fn a_waiting_watch_is_woken_by_threads_and_by_other_processes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let state = State::open(&path).unwrap();
    let watch = state.watch("*").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20 {
                std::thread::sleep(Duration::from_millis(5));
                state.set("n", n).unwrap();
            }
        });
        for n in 0..20 {
            let change = watch.next_timeout(PATIENCE).unwrap().unwrap();
            assert_eq!(value(&change), json!(n));
        }
    });
}

#[test]
fn a_watch_that_nobody_waits_for_tells_when_there_is_something() {
    let state = State::in_memory().unwrap();
    let watch = state.watch("*").unwrap();
    let (tell, told) = channel();
    let ready = |watch: &Watch| {
        let tell = tell.clone();
        watch.ready(move |outcome| tell.send(outcome).unwrap());
    };
    ready(&watch);
    assert!(told.recv_timeout(NONE).is_err());
    assert!(watch.pop().is_none());
    state.set("a", 1).unwrap();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(watch.pop().unwrap().key, "a");
    assert!(watch.pop().is_none());
    ready(&watch);
    state.close().unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_wait_that_is_taken_back_leaves_nothing_behind() {
    let state = State::in_memory().unwrap();
    let watch = state.watch("*").unwrap();
    let held = Arc::new(());
    for _ in 0..1_000 {
        let holds = Arc::clone(&held);
        let waiter = watch.wait(move |_| drop(holds));
        watch.forget(waiter);
    }
    assert_eq!(Arc::strong_count(&held), 1);
    // Those who still wait are told.
    let (tell, told) = channel();
    let gone = watch.wait(|_| panic!("it was taken back"));
    watch.ready(move |outcome| tell.send(outcome).unwrap());
    watch.forget(gone);
    state.set("a", 1).unwrap();
    told.recv_timeout(PATIENCE).unwrap().unwrap();
    // One that was told already, or is of no watch, takes back nothing.
    watch.forget(gone);
    assert_eq!(watch.pop().unwrap().key, "a");
}

#[test]
fn an_opening_that_ends_tells_who_waits_while_another_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let stays = State::open(&path).unwrap();
    for _ in 0..200 {
        let ends = State::open(&path).unwrap();
        let watch = ends.watch("*").unwrap();
        let (tell, told) = channel();
        watch.ready(move |outcome| tell.send(outcome).unwrap());
        // While the wait begins.
        ends.close().unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }
    stays.set("a", 1).unwrap();
}

#[test]
fn a_named_watch_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let named =
        |state: &State| state.watch(WatchOptions { name: Some("indexer".into()), ..WatchOptions::from("k*") }).unwrap();
    let state = State::open(&path).unwrap();
    state.set("k", "before").unwrap();
    drop(named(&state));
    for n in 0..10 {
        state.set("k", n).unwrap();
    }
    let watch = named(&state);
    for n in 0..4 {
        assert_eq!(value(&watch.next().unwrap().unwrap()), json!(n));
    }
    // It is at the fourth, so three are done.
    watch.close().unwrap();
    assert!(watch.next().unwrap().is_none());
    state.close().unwrap();
    let state = State::open(&path).unwrap();
    let watch = named(&state);
    assert_eq!(value(&watch.next().unwrap().unwrap()), json!(3));
    assert_eq!(value(&watch.next().unwrap().unwrap()), json!(4));
    watch.save().unwrap();
    drop(watch);
    let rest = all(&named(&state));
    assert_eq!(rest.iter().map(value).collect::<Vec<_>>(), (5..10).map(|n| json!(n)).collect::<Vec<_>>());
    let watches = state.named_watches().unwrap();
    assert_eq!((watches.len(), &*watches[0].name), (1, "indexer"));
    assert!(state.verify().unwrap().problems.is_empty());
    assert!(state.forget_watch("indexer").unwrap());
    assert!(!state.forget_watch("indexer").unwrap());
    assert!(all(&named(&state)).is_empty());
}

#[test]
fn the_end_of_a_state_ends_its_watches_but_not_those_of_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let (one, two) = (State::open(&path).unwrap(), State::open(&path).unwrap());
    let (of_one, of_two) = (one.watch("*").unwrap(), two.watch("*").unwrap());
    std::thread::scope(|scope| {
        let first = scope.spawn(move || of_one.next());
        let second = scope.spawn(move || of_two.next());
        std::thread::sleep(NONE);
        one.close().unwrap();
        assert_eq!(first.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        two.set("a", 1).unwrap();
        assert_eq!(second.join().unwrap().unwrap().unwrap().key, "a");
    });
}

#[test]
fn closing_a_watch_ends_who_waits_for_it() {
    let state = State::in_memory().unwrap();
    let watch = state.watch("*").unwrap();
    std::thread::scope(|scope| {
        let other = watch.clone();
        let waits = scope.spawn(move || other.next());
        std::thread::sleep(NONE);
        watch.close().unwrap();
        assert!(waits.join().unwrap().unwrap().is_none());
    });
    let started = Instant::now();
    assert!(watch.next_timeout(PATIENCE).unwrap().is_none() && started.elapsed() < PATIENCE);
}

#[test]
fn bad_names_and_patterns_of_watches_are_refused() {
    let state = State::with_config(StateConfig::default()).unwrap();
    for (options, words) in [
        (WatchOptions::from("["), "pattern"),
        (WatchOptions { name: Some(String::new()), ..WatchOptions::default() }, "watch name"),
    ] {
        let error = state.watch(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn a_named_watch_that_two_open_at_once_starts_where_the_first_of_them_did() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let state = State::open(&path).unwrap();
    for round in 0..50 {
        let name = format!("n{round}");
        let options = || WatchOptions { name: Some(name.clone()), ..WatchOptions::default() };
        let watches: Vec<Watch> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..3)
                .map(|n| {
                    let (state, options) = (&state, options());
                    scope.spawn(move || {
                        let watch = state.watch(options).unwrap();
                        state.set("k", n).unwrap();
                        watch
                    })
                })
                .collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        let kept = state.named_watches().unwrap().into_iter().find(|watch| watch.name == name).unwrap();
        assert!(watches.iter().all(|watch| watch.version() == kept.version));
        assert!(state.forget_watch(&name).unwrap());
    }
}

#[test]
fn a_watch_that_was_forgotten_does_not_come_back_when_it_is_saved() {
    let state = State::in_memory().unwrap();
    let watch = state.watch(WatchOptions { name: Some("n".into()), ..WatchOptions::default() }).unwrap();
    state.set("a", 1).unwrap();
    watch.next().unwrap();
    assert!(state.forget_watch("n").unwrap());
    watch.save().unwrap();
    watch.close().unwrap();
    assert!(state.named_watches().unwrap().is_empty());
}

#[test]
fn a_watch_is_fetched_saved_and_closed_by_calls() {
    let state = State::in_memory().unwrap();
    let watch = state.watch(WatchOptions { name: Some("w".into()), ..WatchOptions::default() }).unwrap();
    assert!(!watch.fetch_call().wait().unwrap());
    state.set("a", 1).unwrap();
    assert!(watch.fetch_call().wait().unwrap());
    assert_eq!(watch.pop().unwrap().key, "a");
    watch.save_call().wait().unwrap();
    assert_eq!((state.named_watches().unwrap()[0].version, watch.name()), (1, Some("w")));
    let (tell, told) = channel();
    watch.close_then(move |closed| tell.send(closed).unwrap());
    told.recv().unwrap().unwrap();
    assert!(watch.is_closed() && watch.fetch_call().wait().unwrap() && watch.pop().is_none());
}

#[test]
fn a_version_to_go_on_from_is_never_in_the_middle_of_a_commit() {
    let state = State::in_memory().unwrap();
    let before = state.set("user:0", 0).unwrap();
    let others = (0..25_000).map(|n| (format!("a{n:05}"), n));
    let commit = state.set_many(others.chain([("user:1".to_owned(), 1), ("user:2".to_owned(), 2)])).unwrap();
    let from = |since| state.watch(WatchOptions { since: Some(since), ..WatchOptions::from("user:*") }).unwrap();
    let watch = from(before);
    assert_eq!(watch.next().unwrap().unwrap().key, "user:1");
    assert_eq!(watch.version(), before);
    let again = from(watch.version());
    assert_eq!(again.next().unwrap().unwrap().key, "user:1");
    assert_eq!(again.next().unwrap().unwrap().key, "user:2");
    assert_eq!(again.version(), commit);
}

//! Calls that are not waited for.

use llmspell_state_persistence::{ErrorKind, State, StateConfig, WatchOptions};
use serde_json::json;
use std::sync::mpsc::channel;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn calls_that_come_together_share_commits_and_each_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path().join("store.db")).unwrap();
    let (tell, told) = channel();
    for n in 0..2_000 {
        let tell = tell.clone();
        state.calls().set(&format!("k{n}"), n).unwrap().then(move |version| tell.send((n, version)).unwrap());
    }
    let mut answers: Vec<(i32, u64)> =
        (0..2_000).map(|_| told.recv_timeout(PATIENCE).unwrap()).map(|(n, version)| (n, version.unwrap())).collect();
    answers.sort_unstable();
    for (n, version) in &answers {
        let entry = state.entry(&format!("k{n}")).unwrap().unwrap();
        assert_eq!((entry.value(), entry.version()), (json!(n), *version));
    }
    assert_eq!(state.count("*").unwrap(), 2_000);
}

#[test]
fn calls_and_threads_that_wait_lead_one_another() {
    let state = State::in_memory().unwrap();
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (state, tell) = (&state, tell.clone());
            scope.spawn(move || {
                for _ in 0..500 {
                    let tell = tell.clone();
                    state.calls().increment("n", 1).unwrap().then(move |sum| tell.send(sum).unwrap());
                    state.increment("n", 1).unwrap();
                }
            });
        }
    });
    assert!((0..2_000).all(|_| told.recv_timeout(PATIENCE).unwrap().is_ok()));
    assert_eq!(state.get("n").unwrap(), Some(json!(4_000)));
}

#[test]
fn a_call_that_is_refused_is_told_why() {
    let state = State::in_memory().unwrap();
    state.set("a", 1).unwrap();
    let (tell, told) = channel();
    state.calls().set_if("a", 2, 7).unwrap().then(move |version| tell.send(version).unwrap());
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(state.calls().set("", 1).err().unwrap().kind(), ErrorKind::Invalid);
}

#[test]
fn closing_answers_calls_under_way_and_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    for round in 0..20 {
        let state = State::open(&path).unwrap();
        let (tell, told) = channel();
        for n in 0..200 {
            let tell = tell.clone();
            state
                .calls()
                .set(&format!("r{round}-{n}"), n)
                .unwrap()
                .then(move |version| tell.send((n, version)).unwrap());
        }
        state.close().unwrap();
        let answers: Vec<_> = (0..200).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        let again = State::open(&path).unwrap();
        for (n, version) in answers {
            let there = again.exists(&format!("r{round}-{n}")).unwrap();
            match version {
                Ok(_) => assert!(there, "an acknowledged write is gone"),
                Err(error) => assert!(error.kind() == ErrorKind::Closed && !there, "{error}"),
            }
        }
    }
}

#[test]
fn a_panic_of_whoever_is_told_keeps_nothing_from_others() {
    let state = State::in_memory().unwrap();
    let (tell, told) = channel();
    for n in 0..50 {
        let tell = tell.clone();
        state.calls().set("k", n).unwrap().then(move |version| {
            tell.send(version.is_ok()).unwrap();
            if n % 2 == 0 {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        });
    }
    assert!((0..50).all(|_| told.recv_timeout(PATIENCE).unwrap()));
    state.set("k", "still writes").unwrap();
}

#[test]
fn the_last_handle_may_be_dropped_by_whoever_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path().join("store.db")).unwrap();
    let (tell, told) = channel();
    let call = state.calls().set("k", 1).unwrap();
    call.then(move |version| {
        drop(state);
        tell.send(version).unwrap();
    });
    told.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn whoever_is_told_may_make_calls_that_wait() {
    let (one, other) = (State::in_memory().unwrap(), State::in_memory().unwrap());
    let (tell, told) = channel();
    for n in 0..50 {
        let (tell, one_more, other) = (tell.clone(), one.clone(), other.clone());
        one.calls().set("k", n).unwrap().then(move |_| {
            one_more.increment("calls", 1).unwrap();
            // Through the leader of another store and back.
            let (tell, back) = (tell.clone(), one_more.clone());
            other.increment("calls", 1).unwrap();
            other.calls().increment("told", 1).unwrap().then(move |_| {
                back.calls().increment("back", 1).unwrap().then(move |sum| tell.send(sum.is_ok()).unwrap());
            });
        });
    }
    assert!((0..50).all(|_| told.recv_timeout(PATIENCE).unwrap()));
    assert_eq!((one.get("calls").unwrap(), one.get("back").unwrap()), (Some(json!(50)), Some(json!(50))));
    assert_eq!(other.get("calls").unwrap(), Some(json!(50)));
}

#[test]
fn closing_a_store_does_not_keep_its_callbacks_from_closing_and_opening_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (closing, other) = (State::open(path("closing.db")).unwrap(), State::open(path("other.db")).unwrap());
    let (tell, told) = channel();
    let (begun, begins) = channel();
    let (closed, again, third) = (tell.clone(), path("closing.db"), path("third.db"));
    closing.calls().set("k", 1).unwrap().then(move |_| {
        begun.send(()).unwrap();
        // So that the other thread is inside of closing by now.
        std::thread::sleep(Duration::from_millis(200));
        drop(other);
        State::open(third).unwrap().set("k", 1).unwrap();
        tell.send("told").unwrap();
    });
    begins.recv_timeout(PATIENCE).unwrap();
    let handle = closing.clone();
    std::thread::spawn(move || {
        closing.close().unwrap();
        closed.send("closed").unwrap();
    });
    while !handle.is_closed() {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(10));
    // Whoever opens the same file meanwhile waits until it is closed.
    let opened = State::open(again).unwrap();
    assert_eq!(opened.get("k").unwrap(), Some(json!(1)));
    let mut both = [(); 2].map(|()| told.recv_timeout(PATIENCE).unwrap());
    both.sort_unstable();
    assert_eq!(both, ["closed", "told"]);
}

#[test]
fn a_transaction_commits_without_anybody_waiting() {
    let state = State::in_memory().unwrap();
    state.set("a", 1).unwrap();
    let (tell, told) = channel();
    let first = state.transaction().unwrap();
    assert_eq!(first.peek("a").unwrap().unwrap().unwrap().value(), json!(1));
    first.set("b", 2).unwrap();
    let second = state.transaction().unwrap();
    second.get("a").unwrap();
    second.set("a", 5).unwrap();
    for transaction in [second, first] {
        let tell = tell.clone();
        transaction.commit_call().unwrap().then(move |version| tell.send(version).unwrap());
    }
    let outcomes: Vec<_> = (0..2).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn the_actor_of_an_opening_is_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let named =
        |actor: &str| State::with_config(StateConfig { actor: Some(actor.into()), ..StateConfig::at(&path) }).unwrap();
    let (one, two) = (named("planner"), named("critic"));
    let watch = one.watch("*").unwrap();
    one.set("a", 1).unwrap();
    two.transact(|tx| tx.set("b", 1)).unwrap();
    State::open(&path).unwrap().delete("a").unwrap();
    let actors: Vec<_> = (0..3).map(|_| watch.next().unwrap().unwrap().origin.actor).collect();
    assert_eq!(actors, [Some("planner".to_owned()), Some("critic".to_owned()), None]);
    assert!(one.verify().unwrap().problems.is_empty());
    let refused = State::with_config(StateConfig { actor: Some(String::new()), ..StateConfig::default() });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_call_that_is_known_needs_no_other_thread() {
    let state = State::in_memory().unwrap();
    state.set("a", 1).unwrap();
    assert!(state.calls().entry("a").unwrap().now().is_ok());
    assert!(state.calls().entry("b").unwrap().now().is_err());
    let transaction = state.calls().transaction().unwrap().now().ok().unwrap().unwrap();
    assert_eq!(transaction.get("a").unwrap(), Some(1.into()));
    let watch = state.calls().watch("a").unwrap().now().ok().unwrap().unwrap();
    state.set("a", 2).unwrap();
    assert_eq!(watch.next().unwrap().unwrap().version, 2);
    assert!(state.calls().watch(WatchOptions { since: Some(0), ..WatchOptions::default() }).unwrap().now().is_err());
    assert!(state.calls().watch("[").is_err());
    let later = state.call(|scope| scope.count("*"));
    state.close().unwrap();
    assert_eq!(later.now().ok().unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_store_is_opened_and_closed_without_waiting() {
    let (tell, told) = channel();
    State::open_then(StateConfig::default(), move |opened| tell.send(opened).unwrap());
    let state = told.recv().unwrap().unwrap();
    state.set("a", 1).unwrap();
    for _ in 0..2 {
        let (tell, told) = channel();
        state.close_then(move |closed| tell.send(closed).unwrap());
        told.recv().unwrap().unwrap();
        assert!(state.is_closed());
    }
    let (tell, told) = channel();
    let directory = tempfile::tempdir().unwrap();
    let nowhere = StateConfig { create: false, ..StateConfig::at(directory.path().join("none.db")) };
    State::open_then(nowhere, move |opened| tell.send(opened.map(drop)).unwrap());
    assert_eq!(told.recv().unwrap().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_listing_that_was_filled_goes_on_without_asking_the_database() {
    let state = State::in_memory().unwrap();
    state.set_many((0..1_000).map(|n| (format!("k{n:04}"), n))).unwrap();
    let mut items = state.items("k*").unwrap();
    let mut fills = 0;
    for n in 0..1_000 {
        if !items.is_buffered() {
            items.fill().unwrap();
            fills += 1;
        }
        assert!(items.is_buffered());
        assert_eq!(items.next().unwrap().unwrap().0, format!("k{n:04}"));
    }
    assert!((2..1_000).contains(&fills));
    assert!(items.next().is_none());
}

//! Keys with a time to live.

use llmspell_state_persistence::{
    Document, ErrorKind, Moment, Number, Operation, RetentionPolicy, SetOptions, State, StateConfig, SyncMode, Ttl,
    WatchOptions,
};
use serde_json::json;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(40);

fn pass(time: Duration) {
    std::thread::sleep(time + Duration::from_millis(5));
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// In memory, in a file, and in a file without a cache.
fn states() -> Vec<(Option<tempfile::TempDir>, State)> {
    let directory = tempfile::tempdir().unwrap();
    let config = StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(directory.path().join("a.db")) };
    let other = tempfile::tempdir().unwrap();
    let uncached = StateConfig { cache_size_mb: 0, ..StateConfig::at(other.path().join("b.db")) };
    vec![
        (None, State::in_memory().unwrap()),
        (Some(directory), State::with_config(config).unwrap()),
        (Some(other), State::with_config(uncached).unwrap()),
    ]
}

#[test]
fn a_key_is_there_until_its_time_has_run_out_and_gone_for_every_read_then() {
    for (_directory, state) in states() {
        state.set("stays", 1).unwrap();
        state.set_with("goes", 2, SHORT).unwrap();
        state.set_many_with([("goes too", 3)], SHORT).unwrap();
        let entry = state.entry("goes").unwrap().unwrap();
        assert!(entry.expires_ms().unwrap() > entry.updated_ms());
        assert_eq!(state.count("*").unwrap(), 3);
        assert_eq!(state.keys("goes*").unwrap().count(), 2);
        pass(SHORT);
        assert_eq!(state.get("goes").unwrap(), None);
        assert!(!state.exists("goes").unwrap());
        assert_eq!(state.peek("goes").unwrap().map(|known| known.is_none()), state.peek("goes").unwrap().map(|_| true));
        let many = state.get_many(&["stays", "goes", "goes too"]).unwrap();
        assert_eq!(many.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(state.count("*").unwrap(), 1);
        assert_eq!(state.count("*oes*").unwrap(), 0);
        assert_eq!(state.keys("*").unwrap().map(Result::unwrap).collect::<Vec<_>>(), ["stays"]);
        assert_eq!(state.items("*").unwrap().map(|item| item.unwrap().0).collect::<Vec<_>>(), ["stays"]);
        let tx = state.transaction().unwrap();
        assert_eq!(tx.get("goes").unwrap(), None);
        assert_eq!(tx.count("*").unwrap(), 1);
        assert!(!state.delete("goes").unwrap());
        assert_eq!(state.clear("goes*").unwrap(), 0);
        assert!(!state.touch("goes", Ttl::Never).unwrap());
        assert!(state.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn what_replaces_an_expired_key_is_a_new_key() {
    for (_directory, state) in states() {
        let watch = state.watch(WatchOptions::default()).unwrap();
        state.set_with("k", 1, SHORT).unwrap();
        pass(SHORT);
        assert_eq!(state.set_if("k", 0, 99).unwrap_err().kind(), ErrorKind::Conflict);
        state.set_if("k", 2, 0).unwrap();
        assert_eq!(state.increment("k", 1).unwrap(), Number::Int(3));
        let entry = state.entry("k").unwrap().unwrap();
        assert_eq!(entry.expires_ms(), None);
        let told: Vec<_> = (0..4)
            .map(|_| {
                let change = watch.next_timeout(Duration::from_secs(5)).unwrap().unwrap();
                (change.operation.name(), change.value.map(|v| v.to_value()), change.old.map(|v| v.to_value()))
            })
            .collect();
        let expected = [
            ("set", Some(json!(1)), None),
            ("expire", None, Some(json!(1))),
            ("set", Some(json!(2)), None),
            ("set", Some(json!(3)), Some(json!(2))),
        ];
        assert_eq!(told, expected);
        let kinds: Vec<Operation> = state.history("k", None).unwrap().iter().map(|r| r.operation).collect();
        assert_eq!(kinds, [Operation::Set, Operation::Set, Operation::Expire, Operation::Set]);
        assert!(state.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn the_sweeper_tells_of_keys_that_nobody_asks_for() {
    for (_directory, state) in states() {
        let watch = state.watch("k*").unwrap();
        for n in 0..1_000 {
            state.set_with(&format!("k{n}"), n, Duration::from_millis(1)).unwrap();
        }
        let mut expired = 0;
        while expired < 1_000 {
            let change = watch.next_timeout(Duration::from_secs(10)).unwrap().expect("all of them expire");
            expired += u32::from(change.operation == Operation::Expire);
        }
        assert!(state.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn an_update_keeps_the_time_and_a_set_takes_it_away() {
    let state = State::in_memory().unwrap();
    state.set_with("n", 1, Duration::from_secs(100)).unwrap();
    let expires = |key: &str| state.entry(key).unwrap().unwrap().expires_ms();
    let before = expires("n").unwrap();
    state.increment("n", 1).unwrap();
    assert_eq!(expires("n"), Some(before));
    state.modify("n", |_| Document::from_value(&json!(7), 64)).unwrap();
    assert_eq!(expires("n"), Some(before));
    assert!(state.touch("n", Duration::from_secs(200)).unwrap());
    assert!(expires("n").unwrap() > before + 50_000);
    assert_eq!(state.get("n").unwrap(), Some(json!(7)));
    assert!(state.touch("n", Ttl::Never).unwrap());
    assert_eq!(expires("n"), None);
    state.set_with("n", 1, Duration::from_secs(100)).unwrap();
    state.set("n", 2).unwrap();
    assert_eq!(expires("n"), None);
    let kinds: Vec<&str> = state.history("n", Some(5)).unwrap().iter().map(|r| r.operation.name()).collect();
    assert_eq!(kinds, ["set", "set", "touch", "touch", "set"]);
}

#[test]
fn a_transaction_that_relied_on_a_key_which_expires_meanwhile_conflicts() {
    for (_directory, state) in states() {
        for listed in [false, true] {
            state.set_with("lease", 1, SHORT).unwrap();
            let tx = state.transaction().unwrap();
            if listed {
                assert_eq!(tx.count("le*").unwrap(), 1);
            } else {
                assert_eq!(tx.get("lease").unwrap(), Some(json!(1)));
            }
            tx.set("mine", true).unwrap();
            pass(SHORT);
            assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
        }
        let taken = state.transact(|tx| {
            let free = !tx.exists("lease")?;
            tx.set_with("lease", 2, SetOptions { ttl: Duration::from_secs(50).into(), ..SetOptions::default() })?;
            Ok(free)
        });
        assert!(taken.unwrap());
        assert!(state.entry("lease").unwrap().unwrap().expires_ms().is_some());
        state
            .transact(|tx| {
                assert!(tx.touch("lease", Ttl::Never)?);
                tx.set_with("own", 1, Duration::from_secs(9))?;
                tx.increment("own", 1)?;
                Ok(())
            })
            .unwrap();
        assert_eq!(state.entry("lease").unwrap().unwrap().expires_ms(), None);
        assert!(state.entry("own").unwrap().unwrap().expires_ms().is_some());
        assert_eq!(state.history("lease", Some(1)).unwrap()[0].operation, Operation::Touch);
    }
}

#[test]
fn a_scope_gives_its_time_to_live_to_those_inside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    {
        let state = State::open(&path).unwrap();
        let agent = state.scope("agent").unwrap();
        assert_eq!(agent.default_ttl().unwrap(), Ttl::Never);
        agent.set_default_ttl(Duration::from_secs(60)).unwrap();
        let inner = agent.scope("inner").unwrap();
        inner.set("k", 1).unwrap();
        inner.set_with("forever", 1, Ttl::Never).unwrap();
        let other = agent.scope("other").unwrap();
        other.set_default_ttl(Ttl::Never).unwrap();
        other.set("k", 1).unwrap();
        state.set("k", 1).unwrap();
        assert!(inner.entry("k").unwrap().unwrap().expires_ms().is_some());
        for scope in [&inner.scope("x").unwrap(), &agent] {
            assert_eq!(scope.default_ttl().unwrap(), Ttl::After(Duration::from_secs(60)));
        }
        assert_eq!(inner.entry("forever").unwrap().unwrap().expires_ms(), None);
        assert_eq!(other.entry("k").unwrap().unwrap().expires_ms(), None);
        assert_eq!(state.entry("k").unwrap().unwrap().expires_ms(), None);
        assert_eq!(state.scopes().unwrap(), ["agent"]);
        assert_eq!(state.verify().unwrap().scopes, 5);
    }
    let state = State::open(&path).unwrap();
    let agent = state.scope("agent").unwrap();
    let policy = RetentionPolicy { max_versions: 3, ..RetentionPolicy::keep_all() };
    agent.set_retention(Some(&policy)).unwrap();
    assert_eq!(agent.retention().unwrap(), policy);
    assert_eq!(agent.default_ttl().unwrap(), Ttl::After(Duration::from_secs(60)));
    agent.set_default_ttl(Ttl::Default).unwrap();
    agent.set_retention(None).unwrap();
    assert_eq!(agent.default_ttl().unwrap(), Ttl::Never);
    assert_eq!(agent.retention().unwrap(), RetentionPolicy::default());
    agent.set("k", 1).unwrap();
    assert_eq!(agent.entry("k").unwrap().unwrap().expires_ms(), None);
}

#[test]
fn what_is_no_time_is_refused_and_nothing_changes() {
    let state = State::in_memory().unwrap();
    state.set("k", 1).unwrap();
    for bad in [Duration::ZERO, Duration::MAX] {
        assert_eq!(state.set_with("k", 2, bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(state.set_many_with([("k", 2)], bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(state.touch("k", bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(state.set_default_ttl(bad).unwrap_err().kind(), ErrorKind::Invalid);
        let tx = state.transaction().unwrap();
        assert_eq!(tx.set_with("k", 2, bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(tx.touch("k", bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(state.get("k").unwrap(), Some(json!(1)));
}

#[test]
fn the_past_shows_keys_that_have_expired_since_and_taking_back_does_not_revive_them() {
    for (_directory, state) in states() {
        let before = state.set_with("k", 1, SHORT).unwrap();
        let lasting = state.set_with("long", 1, Duration::from_secs(50)).unwrap();
        state.set("k", 2).unwrap();
        state.set("long", 2).unwrap();
        pass(SHORT);
        let view = state.at(before).unwrap();
        assert_eq!(view.get("k").unwrap(), Some(json!(1)));
        assert_eq!(view.count("*").unwrap(), 1);
        assert_eq!(state.get("k").unwrap(), Some(json!(2)));
        state.revert("k", before).unwrap();
        assert_eq!(state.get("k").unwrap(), None);
        assert_eq!(state.revert_to(lasting, "long").unwrap(), 1);
        assert!(state.entry("long").unwrap().unwrap().expires_ms().is_some());
    }
}

#[test]
fn a_difference_counts_what_expired_without_anybody_having_told() {
    let state = State::in_memory().unwrap();
    let before = state.set_with("k", 1, SHORT).unwrap();
    assert_eq!(state.diff(before, None, "*").unwrap().count(), 0);
    pass(SHORT);
    let differences: Vec<_> = state.diff(before, None, "*").unwrap().map(Result::unwrap).collect();
    assert_eq!(differences.len(), 1);
    assert!(differences[0].from.is_some() && differences[0].to.is_none());
    eventually("the sweeper has been there", || state.history("k", Some(1)).unwrap()[0].operation == Operation::Expire);
    let view = state.at(Moment::Version(state.version().unwrap())).unwrap();
    assert_eq!(view.get("k").unwrap(), None);
}

#[test]
fn a_key_expires_while_the_store_is_closed_but_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let state = State::open(&path).unwrap();
    state.set_with("soon", 1, SHORT).unwrap();
    state.set_with("late", 1, Duration::from_secs(100)).unwrap();
    state.close().unwrap();
    pass(SHORT);
    let state = State::open(&path).unwrap();
    assert_eq!(state.get("soon").unwrap(), None);
    assert_eq!(state.get("late").unwrap(), Some(json!(1)));
    eventually("the sweeper has been there", || {
        state.history("soon", Some(1)).unwrap()[0].operation == Operation::Expire
    });
}

#[test]
fn what_a_transaction_has_set_anew_keeps_nothing_of_the_old_time_when_it_updates_it() {
    let state = State::in_memory().unwrap();
    for is_deleted in [false, true] {
        state.set_with("k", 1, Duration::from_secs(100)).unwrap();
        state
            .transact(|tx| {
                if is_deleted {
                    tx.delete("k")?;
                } else {
                    tx.set("k", 1)?;
                }
                tx.increment("k", 1)
            })
            .unwrap();
        assert_eq!(state.entry("k").unwrap().unwrap().expires_ms(), None, "{is_deleted}");
    }
}

#[test]
fn closing_does_not_wait_for_all_that_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path().join("s.db")).unwrap();
    for part in 0..2 {
        let pairs = (0..100_000).map(|n| (format!("k{part}-{n}"), n));
        state.set_many_with(pairs, Duration::from_secs(3)).unwrap();
    }
    pass(Duration::from_millis(3_300));
    let start = Instant::now();
    state.close().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_state_that_is_dropped_amid_a_write_ends_beside_the_sweeper() {
    let directory = tempfile::tempdir().unwrap();
    let open = |n: u32| State::open(directory.path().join(format!("{n}.db"))).unwrap();
    for n in 0..150 {
        let state = open(n);
        let keys = (0..50).map(|key| (format!("k{key}"), n));
        state.set_many_with(keys, Duration::from_millis(3)).unwrap();
        // The sweeper stands in line beside these calls. Who commits the last of them is the last to hold the state.
        std::thread::sleep(Duration::from_micros(2_000 + u64::from(n) * 37 % 1_500));
        for key in 0..40 {
            state.calls().set(&format!("last{key}"), n).unwrap().then(|version| assert!(version.is_ok()));
        }
    }
    for n in 0..150 {
        // Waits until the store is closed.
        assert!(open(n).exists("last39").unwrap());
    }
}

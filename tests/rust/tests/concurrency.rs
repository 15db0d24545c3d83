//! Many threads on one store: nothing is lost, nothing is seen by halves.

use llmspell_state_persistence::{Document, ErrorKind, State, StateConfig, SyncMode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const THREADS: u64 = 8;
const TIMES: u64 = 500;

/// Runs `work` on a store in memory, on a file, and on a file without a cache.
fn on_every_store(work: impl Fn(&State)) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(directory.path().join(name)) };
    for config in [
        StateConfig::default(),
        file("cached.db"),
        StateConfig { cache_size_mb: 0, ..file("plain.db") },
        StateConfig { exclusive: true, ..file("alone.db") },
    ] {
        let state = State::with_config(config).unwrap();
        work(&state);
        state.close().unwrap();
    }
}

/// Runs `each` in every thread, with the thread's number.
fn in_threads(each: impl Fn(u64) + Sync) {
    thread::scope(|threads| {
        for number in 0..THREADS {
            let each = &each;
            threads.spawn(move || each(number));
        }
    });
}

fn number(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn no_increment_is_lost() {
    on_every_store(|state| {
        in_threads(|_| {
            for _ in 0..TIMES {
                state.increment("n", 1).unwrap();
            }
        });
        assert_eq!(state.get("n").unwrap(), Some(json!(THREADS * TIMES)));
    });
}

#[test]
fn no_modification_is_lost() {
    on_every_store(|state| {
        let most = state.max_value_bytes();
        in_threads(|_| {
            for _ in 0..TIMES {
                state
                    .modify("n", |entry| {
                        let old = number(entry.map(|entry| entry.value()).as_ref());
                        Document::from_value(&json!(old + 1), most)
                    })
                    .unwrap();
            }
        });
        assert_eq!(state.get("n").unwrap(), Some(json!(THREADS * TIMES)));
    });
}

#[test]
fn no_transaction_is_lost() {
    on_every_store(|state| {
        in_threads(|_| {
            for _ in 0..TIMES {
                state.transact(|tx| tx.set("n", json!(number(tx.get("n")?.as_ref()) + 1))).unwrap();
            }
        });
        assert_eq!(state.get("n").unwrap(), Some(json!(THREADS * TIMES)));
    });
}

#[test]
fn no_appended_item_is_lost_and_each_thread_s_items_are_in_order() {
    on_every_store(|state| {
        in_threads(|thread| {
            for index in 0..100 {
                state.append("list", json!([thread, index])).unwrap();
            }
        });
        let list = state.get("list").unwrap().unwrap();
        let items = list.as_array().unwrap();
        assert_eq!(items.len() as u64, THREADS * 100);
        for thread in 0..THREADS {
            let own: Vec<u64> = items.iter().filter(|item| item[0] == thread).map(|item| number(item.get(1))).collect();
            assert_eq!(own, (0..100).collect::<Vec<_>>());
        }
    });
}

#[test]
fn money_moved_between_accounts_is_never_made_or_lost() {
    const ACCOUNTS: usize = 6;
    on_every_store(|state| {
        for account in 0..ACCOUNTS {
            state.set(&format!("account:{account}"), 100).unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|threads| {
            let movers: Vec<_> = (0..4)
                .map(|seed| {
                    threads.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        for _ in 0..TIMES / 2 {
                            let from = format!("account:{}", random.usize(..ACCOUNTS));
                            let to = format!("account:{}", random.usize(..ACCOUNTS));
                            let amount = random.i64(1..10);
                            state
                                .transact(|tx| {
                                    let balance = tx.get(&from)?.and_then(|value| value.as_i64()).unwrap_or_default();
                                    if balance < amount {
                                        return Ok(());
                                    }
                                    tx.increment(&from, -amount)?;
                                    tx.increment(&to, amount)?;
                                    Ok(())
                                })
                                .unwrap();
                        }
                    })
                })
                .collect();
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let total: i64 =
                        state.items("account:*").unwrap().map(|item| item.unwrap().1.value().as_i64().unwrap()).sum();
                    assert_eq!(total, 100 * i64::try_from(ACCOUNTS).unwrap());
                }
            });
            for mover in movers {
                mover.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let balances: Vec<i64> =
            state.items("*").unwrap().map(|item| item.unwrap().1.value().as_i64().unwrap()).collect();
        assert!(balances.iter().all(|balance| *balance >= 0), "{balances:?}");
    });
}

#[test]
fn of_two_doctors_on_call_one_always_stays() {
    on_every_store(|state| {
        for round in 0..50 {
            state.set_many([("alice", true), ("bob", true)]).unwrap();
            let leave = |who: &str| {
                state.transact(|tx| {
                    let on_call =
                        tx.items("*")?.filter(|item| item.as_ref().is_ok_and(|(_, on)| on.value() == true)).count();
                    if on_call > 1 { tx.set(who, false) } else { Ok(()) }
                })
            };
            thread::scope(|threads| {
                threads.spawn(|| leave("alice").unwrap());
                threads.spawn(|| leave("bob").unwrap());
            });
            let on_call = state.items("*").unwrap().filter(|item| item.as_ref().unwrap().1.value() == true).count();
            assert_eq!(on_call, 1, "round {round}");
        }
    });
}

#[test]
fn no_reader_sees_half_a_commit() {
    on_every_store(|state| {
        state.set_many([("left", 0), ("right", 0)]).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        let pair = state.get_many(&["left", "right"]).unwrap();
                        let values: Vec<u64> =
                            pair.iter().map(|entry| number(entry.as_ref().map(|e| e.value()).as_ref())).collect();
                        assert_eq!(values[0], values[1], "get_many");
                        assert!(values[0] >= last, "a value went back from {last} to {}", values[0]);
                        last = values[0];
                        let values: Vec<Value> =
                            state.items("*").unwrap().map(|item| item.unwrap().1.value()).collect();
                        assert_eq!(values[0], values[1], "items");
                        let tx = state.transaction().unwrap();
                        assert_eq!(tx.get("left").unwrap(), tx.get("right").unwrap(), "transaction");
                        let first = number(state.get("left").unwrap().as_ref());
                        let second = number(state.get("right").unwrap().as_ref());
                        assert!(second >= first, "right {second} was read after left {first}");
                    }
                });
            }
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    threads.spawn(|| {
                        for _ in 0..TIMES {
                            state
                                .transact(|tx| {
                                    tx.increment("left", 1)?;
                                    tx.increment("right", 1)
                                })
                                .unwrap();
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(state.get("left").unwrap(), Some(json!(2 * TIMES)));
    });
}

#[test]
fn a_later_read_is_never_older_than_an_earlier_one_of_the_same_commits() {
    on_every_store(|state| {
        let all = |value: u64| (0..400).map(move |index| (format!("k{index:03}"), json!(value)));
        state.set_many(all(0)).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|threads| {
            for (earlier, later) in [("k000", "k399"), ("k399", "k000")] {
                let done = &done;
                threads.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let first = number(state.get(earlier).unwrap().as_ref());
                        let second = number(state.get(later).unwrap().as_ref());
                        assert!(second >= first, "{:?}: {second} was read after {first}", state.config());
                    }
                });
            }
            for value in 1..100 {
                state.set_many(all(value)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn compare_and_set_has_exactly_one_winner() {
    on_every_store(|state| {
        let mut version = 0;
        for round in 0..100 {
            let (wins, newest) = (AtomicU64::new(0), AtomicU64::new(0));
            in_threads(|thread| match state.set_if("lock", json!([round, thread]), version) {
                Ok(new) => {
                    wins.fetch_add(1, Ordering::Relaxed);
                    newest.store(new, Ordering::Relaxed);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            });
            assert_eq!(wins.into_inner(), 1, "round {round}");
            version = newest.into_inner();
        }
    });
}

#[test]
fn an_iterator_under_writes_shows_one_moment() {
    on_every_store(|state| {
        // All values are equal at every moment: each commit writes all keys.
        let all = |value: u64| (0..700).map(move |index| (format!("k{index:04}"), json!(value)));
        state.set_many(all(0)).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|threads| {
            for reverse in [false, true] {
                let done = &done;
                threads.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let select = llmspell_state_persistence::Select { reverse, ..Default::default() };
                        let items: Vec<_> = state.items(select).unwrap().map(Result::unwrap).collect();
                        assert_eq!(items.len(), 700);
                        let first = items[0].1.value();
                        assert!(items.iter().all(|(_, entry)| entry.value() == first), "two moments in one listing");
                    }
                });
            }
            for value in 1..30 {
                state.set_many(all(value)).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn an_own_write_is_read_at_once_by_every_thread_that_is_told() {
    on_every_store(|state| {
        let (tell, told) = std::sync::mpsc::sync_channel::<u64>(0);
        thread::scope(|threads| {
            threads.spawn(|| {
                for expected in told {
                    assert!(number(state.get("n").unwrap().as_ref()) >= expected);
                }
            });
            for value in 1..=TIMES {
                state.set("n", json!(value)).unwrap();
                tell.send(value).unwrap();
            }
            drop(tell);
        });
    });
}

#[test]
fn closing_during_work_ends_every_call_with_a_result_or_closed() {
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let config = StateConfig { sync_mode: SyncMode::Off, ..StateConfig::at(directory.path().join("store.db")) };
        let state = State::with_config(config.clone()).unwrap();
        let acknowledged = AtomicU64::new(0);
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    loop {
                        match state.increment("n", 1) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed, "round {round}: {error}");
                                return;
                            }
                        };
                    }
                });
            }
            thread::sleep(std::time::Duration::from_millis(5 + round % 7));
            state.close().unwrap();
        });
        let stored = State::with_config(config).unwrap().get("n").unwrap();
        assert_eq!(number(stored.as_ref()), acknowledged.into_inner(), "round {round}");
    }
}

#[test]
fn a_callback_may_use_the_store_that_calls_it() {
    on_every_store(|state| {
        state.set("n", 1).unwrap();
        let most = state.max_value_bytes();
        let made = state.modify("n", |_| {
            state.set("other", 2)?;
            let inner = state.modify("third", |_| Document::from_value(&json!(3), most))?;
            Document::from_value(&json!([inner.value(), state.get("other")?]), most)
        });
        assert_eq!(made.unwrap().value(), json!([3, 2]));
        let nested = state.transact(|tx| {
            state.transact(|inner| inner.set("inner", 1))?;
            tx.set("outer", 1)
        });
        assert!(nested.is_ok());
        assert_eq!(state.count("*").unwrap(), 5);
    });
}

#[test]
fn handles_may_be_used_and_dropped_in_any_thread() {
    fn sendable<T: Send + Sync>(_: &T) {}
    let state = State::in_memory().unwrap();
    let (scope, tx) = (state.scope("s").unwrap(), state.transaction().unwrap());
    sendable(&state);
    sendable(&scope);
    sendable(&tx);
    thread::spawn(move || {
        tx.set("a", 1)?;
        tx.commit()?;
        drop(tx);
        scope.set("b", 2)
    })
    .join()
    .unwrap()
    .unwrap();
    assert_eq!(state.get("a").unwrap(), Some(json!(1)));
    assert_eq!(state.scope("s").and_then(|scope| scope.get("b")).unwrap(), Some(json!(2)));
}

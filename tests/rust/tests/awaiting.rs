//! The asynchronous API: nobody is blocked, nothing is lost by whoever gives up, every call is answered.

use llmspell_state_persistence::{
    Error, ErrorKind, PersistentStateManager, Result, State, StateConfig, StateTransaction, Watch, WatchOptions,
};
use serde_json::json;
use std::collections::HashSet;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const PATIENCE: Duration = Duration::from_secs(30);
const NONE: Duration = Duration::from_millis(30);

async fn in_memory() -> PersistentStateManager {
    PersistentStateManager::new(StateConfig::default()).await.unwrap()
}

async fn on_file(folder: &tempfile::TempDir) -> PersistentStateManager {
    PersistentStateManager::new(StateConfig::at(folder.path().join("store.db"))).await.unwrap()
}

fn runtime(threads: usize) -> Runtime {
    match threads {
        0 => Builder::new_current_thread().enable_all().build().unwrap(),
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap(),
    }
}

/// The largest time between two ticks of a millisecond while the runtime works.
async fn longest_gap(stop: Arc<AtomicBool>) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

#[tokio::test]
async fn a_thousand_sets_at_once_leave_the_runtime_free() {
    let folder = tempfile::tempdir().unwrap();
    let manager = on_file(&folder).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ticker = tokio::spawn(longest_gap(Arc::clone(&stop)));
    let sets: Vec<_> = (0..1_000)
        .map(|n| {
            let manager = manager.clone();
            tokio::spawn(async move { manager.set(&format!("k{n:04}"), json!(n)).await })
        })
        .collect();
    for set in sets {
        set.await.unwrap().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    // A commit with its sync takes longer than many of these tasks; blocked for all of them it would be seconds.
    let gap = ticker.await.unwrap();
    assert!(gap < Duration::from_millis(500), "the runtime stood still for {gap:?}");
    assert_eq!(manager.keys("*").await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_task_that_reads_the_cache_on_and_on_makes_way() {
    let manager = in_memory().await;
    manager.set("k", json!(1)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (manager, stop) = (manager.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let begun = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(manager.get("k").await.unwrap(), Some(json!(1)));
                assert!(begun.elapsed() < PATIENCE, "no other task had its turn");
            }
        })
    };
    tokio::time::sleep(NONE).await;
    stop.store(true, Ordering::Relaxed);
    reader.await.unwrap();
}

#[test]
fn calls_and_watches_need_no_runtime() {
    /// Polls until it is ready, asleep in between.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(done) => return done,
                Poll::Pending => std::thread::park(),
            }
        }
    }
    let state = State::in_memory().unwrap();
    let watch = state.watch("*").unwrap();
    let version = block_on(state.calls().set("a", 1).unwrap().into_future()).unwrap();
    assert_eq!(block_on(watch.recv()).unwrap().unwrap().version, version);
    let manager = block_on(PersistentStateManager::new(StateConfig::default())).unwrap();
    block_on(manager.transact(|mut tx| async move {
        tx.set("a".into(), json!(1));
        Ok(())
    }))
    .unwrap();
    assert_eq!(block_on(manager.get("a")).unwrap(), Some(json!(1)));
    block_on(manager.close()).unwrap();
}

/// Polls a future so many times, without ever sleeping, and gives it up.
async fn cancel_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let mut polled = None;
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                polled = Some(done);
            }
            Poll::Ready(())
        })
        .await;
        if polled.is_some() {
            return polled;
        }
        tokio::task::yield_now().await;
    }
    None
}

#[test]
fn giving_up_at_any_await_leaves_whole_commits_and_a_store_that_works() {
    for threads in [0, 2] {
        runtime(threads).block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let manager = on_file(&folder).await;
            let tasks: Vec<_> = (0..4)
                .map(|task| {
                    let manager = manager.clone();
                    tokio::spawn(async move {
                        let mut random = fastrand::Rng::with_seed(task);
                        for n in 0..150 {
                            let polls = random.usize(0..4);
                            match random.u8(0..6) {
                                0 => drop(cancel_after(polls, manager.set("left", json!(n))).await),
                                1 => drop(cancel_after(polls, manager.keys("*")).await),
                                2 => drop(cancel_after(polls, manager.scope("inner")).await),
                                3 => drop(cancel_after(polls, manager.begin_transaction()).await),
                                _ => {
                                    let both = manager.transact(|mut tx| async move {
                                        let sum = tx.get("one").await?.and_then(|v| v.as_i64()).unwrap_or(0);
                                        tx.set("one".into(), json!(sum + 1));
                                        tx.set("two".into(), json!(sum + 1));
                                        Ok(())
                                    });
                                    drop(cancel_after(polls * 4, both).await);
                                }
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let one = manager.transact(|tx| async move { Ok((tx.get("one").await?, tx.get("two").await?)) });
            let (one, two) = one.await.unwrap();
            assert_eq!(one, two, "half a commit");
            manager.set("one", json!("after")).await.unwrap();
            manager.close().await.unwrap();
            let again = State::open(folder.path().join("store.db")).unwrap();
            assert!(again.verify().unwrap().is_ok());
            assert_eq!(again.get("one").unwrap(), Some(json!("after")));
        });
    }
}

#[test]
fn transactions_that_conflict_run_again_until_each_has_counted() {
    for threads in [0, 2] {
        runtime(threads).block_on(async {
            let manager = in_memory().await;
            let rounds = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..40)
                .map(|_| {
                    let (manager, rounds) = (manager.clone(), Arc::clone(&rounds));
                    tokio::spawn(async move {
                        let count = manager.transact(|mut tx| {
                            rounds.fetch_add(1, Ordering::Relaxed);
                            async move {
                                let n = tx.get("n").await?.and_then(|n| n.as_i64()).unwrap_or(0);
                                // Whatever else it may wait for.
                                tokio::task::yield_now().await;
                                tx.set("n".into(), json!(n + 1));
                                Ok(n)
                            }
                        });
                        count.await.unwrap()
                    })
                })
                .collect();
            let mut counted = HashSet::new();
            for task in tasks {
                assert!(counted.insert(task.await.unwrap()), "two counted the same");
            }
            assert_eq!(manager.get("n").await.unwrap(), Some(json!(40)));
            assert!(rounds.load(Ordering::Relaxed) >= 40);
        });
    }
}

#[tokio::test]
async fn a_transaction_relies_on_what_it_read_and_listed() {
    let manager = in_memory().await;
    manager.set("a", json!(1)).await.unwrap();
    for listed in [false, true] {
        let mut tx = StateTransaction::new(manager.begin_transaction().await.unwrap());
        if listed {
            assert_eq!(tx.keys("a*").await.unwrap(), ["a"]);
            manager.set("a2", json!(1)).await.unwrap();
        } else {
            assert_eq!(tx.get("a").await.unwrap(), Some(json!(1)));
            manager.set("a", json!(2)).await.unwrap();
            // The state of the moment at which it began.
            assert_eq!(tx.get("a").await.unwrap(), Some(json!(1)));
        }
        tx.set("b".into(), json!("mine"));
        assert_eq!(tx.get("b").await.unwrap(), Some(json!("mine")));
        assert_eq!(tx.commit(&manager).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(manager.get("b").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_transaction_and_its_id_are_one_thing() {
    let manager = in_memory().await;
    let scope = manager.scope("inner").await.unwrap();
    let id = manager.begin_transaction().await.unwrap();
    let mut tx = StateTransaction::new(id);
    tx.set("a".into(), json!(1));
    assert_eq!(StateTransaction::new(id).get("a").await.unwrap(), Some(json!(1)));
    // Whichever handle of the opening ends it, it is of the scope in which it began.
    scope.commit_transaction(id).await.unwrap();
    assert_eq!(manager.get("a").await.unwrap(), Some(json!(1)));
    assert_eq!(tx.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(manager.rollback_transaction(id).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(tx.commit(&manager).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(StateTransaction::new(id).get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    // Dropping it rolls back.
    let id = manager.begin_transaction().await.unwrap();
    let mut tx = StateTransaction::new(id);
    tx.set("a".into(), json!(2));
    drop(tx);
    assert_eq!(manager.commit_transaction(id).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(manager.get("a").await.unwrap(), Some(json!(1)));
    let other = in_memory().await;
    let id = manager.begin_transaction().await.unwrap();
    assert_eq!(other.commit_transaction(id).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(StateTransaction::new(id).commit(&other).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_write_that_cannot_be_stored_fails_the_commit_and_nothing_is_written() {
    let manager = in_memory().await;
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for (key, value) in [("", json!(1)), ("__mine", json!(1)), ("k", deep)] {
        let id = manager.begin_transaction().await.unwrap();
        let mut tx = StateTransaction::new(id);
        tx.set("before".into(), json!(1));
        tx.set(key.into(), value);
        tx.set("after".into(), json!(1));
        assert_eq!(tx.get("before").await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(tx.commit(&manager).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert!(manager.keys("*").await.unwrap().is_empty());
        assert_eq!(manager.commit_transaction(id).await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn transactions_that_were_forgotten_are_bounded_and_keep_no_store_open() {
    let folder = tempfile::tempdir().unwrap();
    let manager = on_file(&folder).await;
    let most = llmspell_state_persistence::limits::OPEN_TRANSACTIONS;
    let first = manager.begin_transaction().await.unwrap();
    for _ in 1..most {
        manager.begin_transaction().await.unwrap();
    }
    assert_eq!(manager.begin_transaction().await.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    manager.rollback_transaction(first).await.unwrap();
    let last = manager.begin_transaction().await.unwrap();
    drop(manager);
    assert_eq!(StateTransaction::new(last).get("a").await.unwrap_err().kind(), ErrorKind::Closed);
    // Only a store that nobody has open can be opened exclusively.
    let path = folder.path().join("store.db");
    State::with_config(StateConfig { exclusive: true, ..StateConfig::at(path) }).unwrap();
}

#[tokio::test]
async fn initializing_accepts_only_the_settings_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let manager = on_file(&folder).await;
    manager.initialize(StateConfig::at(&path)).await.unwrap();
    for other in [
        StateConfig::default(),
        StateConfig::at(folder.path().join("other.db")),
        StateConfig { cache_size_mb: 1, ..StateConfig::at(&path) },
        StateConfig { actor: Some("somebody".into()), ..StateConfig::at(&path) },
    ] {
        assert_eq!(manager.initialize(other).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(!folder.path().join("other.db").exists());
    manager.close().await.unwrap();
    assert_eq!(manager.initialize(StateConfig::at(&path)).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn dropping_the_runtime_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for threads in [0, 2] {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let runtime = runtime(threads);
        let manager = runtime.block_on(on_file(&folder));
        for n in 0..500 {
            let (manager, acknowledged) = (manager.clone(), Arc::clone(&acknowledged));
            runtime.spawn(async move {
                manager.set(&format!("t{threads}-{n}"), json!(n)).await.unwrap();
                acknowledged.fetch_add(1, Ordering::SeqCst);
            });
        }
        runtime.block_on(async {
            while acknowledged.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        });
        drop(runtime);
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        drop(manager);
        let state = State::open(folder.path().join("store.db")).unwrap();
        let there = state.count(&format!("t{threads}-*")).unwrap();
        assert!(there >= acknowledged as u64, "{acknowledged} acknowledged, {there} there");
    }
}

#[test]
fn closing_answers_everybody() {
    for threads in [0, 2] {
        runtime(threads).block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let manager = on_file(&folder).await;
            let watch = manager.state().watch("nothing").unwrap();
            let waiting = tokio::spawn(async move { watch.recv().await });
            let sets: Vec<_> = (0..300)
                .map(|n| {
                    let manager = manager.clone();
                    tokio::spawn(async move { (n, manager.set(&format!("k{n}"), json!(n)).await) })
                })
                .collect();
            tokio::task::yield_now().await;
            manager.close().await.unwrap();
            manager.close().await.unwrap();
            let state = State::open(folder.path().join("store.db")).unwrap();
            for set in sets {
                let (n, outcome) = tokio::time::timeout(PATIENCE, set).await.expect("answered").unwrap();
                let there = state.exists(&format!("k{n}")).unwrap();
                match outcome {
                    Ok(()) => assert!(there, "an acknowledged write is gone"),
                    Err(error) => assert!(error.kind() == ErrorKind::Closed && !there, "{error}"),
                }
            }
            let told = tokio::time::timeout(PATIENCE, waiting).await.expect("answered").unwrap();
            assert_eq!(told.unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(manager.get("k1").await.unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(manager.begin_transaction().await.unwrap_err().kind(), ErrorKind::Closed);
        });
    }
}

#[test]
fn two_runtimes_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let threads: Vec<_> = [0, 2]
        .map(|threads| {
            let path = path.clone();
            std::thread::spawn(move || {
                runtime(threads).block_on(async {
                    let manager = PersistentStateManager::new(StateConfig::at(path)).await.unwrap();
                    let tasks: Vec<_> = (0..100)
                        .map(|_| {
                            let manager = manager.clone();
                            tokio::spawn(async move { manager.state().calls().increment("n", 1)?.await })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap().unwrap();
                    }
                });
            })
        })
        .into_iter()
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(State::open(path).unwrap().get("n").unwrap(), Some(json!(200)));
}

#[test]
fn a_watch_that_is_given_up_and_asked_again_misses_nothing() {
    for threads in [0, 2] {
        runtime(threads).block_on(async {
            let manager = in_memory().await;
            let watch = manager.state().watch("k*").unwrap();
            let writer = {
                let manager = manager.clone();
                tokio::spawn(async move {
                    for n in 0..200 {
                        manager.set(&format!("k{n}"), json!(n)).await.unwrap();
                        if n % 20 == 0 {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                })
            };
            let mut random = fastrand::Rng::with_seed(7);
            let mut told = Vec::new();
            let begun = Instant::now();
            while told.len() < 200 {
                let patience = Duration::from_micros(random.u64(0..300));
                if let Ok(change) = tokio::time::timeout(patience, watch.recv()).await {
                    told.push(change.unwrap().unwrap().key);
                }
                assert!(begun.elapsed() < PATIENCE, "only {} of 200 changes were told", told.len());
            }
            assert_eq!(told, (0..200).map(|n| format!("k{n}")).collect::<Vec<_>>());
            writer.await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_watch_ends_when_it_is_closed_and_fails_when_its_state_is() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (on_file(&folder).await, on_file(&folder).await);
    let watches: Vec<Watch> = [&one, &two, &two].map(|manager| manager.state().watch("*").unwrap()).into();
    let waiting: Vec<_> = watches
        .iter()
        .map(|watch| {
            let watch = watch.clone();
            tokio::spawn(async move { watch.recv().await })
        })
        .collect();
    tokio::time::sleep(NONE).await;
    one.close().await.unwrap();
    watches[1].close().unwrap();
    two.set("a", json!(1)).await.unwrap();
    let mut outcomes = Vec::new();
    for waiting in waiting {
        outcomes.push(tokio::time::timeout(PATIENCE, waiting).await.expect("told").unwrap());
    }
    assert_eq!(outcomes.remove(0).unwrap_err().kind(), ErrorKind::Closed);
    assert!(outcomes.remove(0).unwrap().is_none());
    assert_eq!(outcomes.remove(0).unwrap().unwrap().key, "a");
}

#[tokio::test]
async fn a_named_watch_is_awaited_from_where_it_was() -> Result<()> {
    let manager = in_memory().await;
    let named = || {
        let options = WatchOptions { name: Some("indexer".into()), ..WatchOptions::default() };
        manager.state().call(move |scope| scope.watch(options))
    };
    let watch = named().await?;
    for n in 0..3 {
        manager.set("k", json!(n)).await?;
    }
    let value = |change: Option<llmspell_state_persistence::Change>| change.unwrap().value.unwrap().to_value();
    assert_eq!(value(watch.recv().await?), json!(0));
    assert_eq!(value(watch.recv().await?), json!(1));
    drop(watch);
    assert_eq!(value(named().await?.recv().await?), json!(0), "nothing was kept");
    Ok(())
}

/// Every future may be sent to another thread.
#[test]
fn futures_are_send() {
    fn check<F: Future + Send>(_: fn(PersistentStateManager) -> F) {}
    async fn all(manager: PersistentStateManager) -> Result<(), Error> {
        manager.initialize(StateConfig::default()).await?;
        manager.set("a", json!(1)).await?;
        manager.keys("*").await?;
        manager.clear().await?;
        manager.scope("s").await?.delete("a").await?;
        let mut tx = StateTransaction::new(manager.begin_transaction().await?);
        tx.keys("*").await?;
        tx.set("a".into(), tx.get("a").await?.unwrap_or_default());
        tx.commit(&manager).await?;
        manager.transact(|tx| async move { tx.get("a").await }).await?;
        manager.state().watch("*")?.recv().await?;
        manager.close().await
    }
    check(all);
}

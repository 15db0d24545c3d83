//! A call that waits for somebody else ends when its caller wants it, and then has changed nothing.

use llmspell_state_persistence::{ErrorKind, State, interruptible};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A store, and another program that has its write lock.
fn locked() -> (tempfile::TempDir, PathBuf, State, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    let state = State::open(&path).unwrap();
    state.set("a", 0).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    (directory, path, state, other)
}

/// Much shorter than `busy_timeout_ms`, much longer than a turn of a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_write_that_waits_for_another_process_can_be_interrupted() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (_directory, _path, state, other) = locked();
    let start = Instant::now();
    let error = interruptible(|| ASKED.fetch_add(1, Ordering::Relaxed) >= 2, || state.set("a", 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(start.elapsed() < SOON);
    assert_eq!(ASKED.load(Ordering::Relaxed), 3);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(state.get("a").unwrap(), Some(0.into()));
    state.set("a", 2).unwrap();
    assert_eq!(ASKED.load(Ordering::Relaxed), 3, "nobody is asked outside");
}

#[test]
fn who_waits_behind_another_thread_leaves_alone() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let (_directory, _path, state, other) = locked();
    let patient = || {
        ASKED.fetch_add(1, Ordering::Relaxed);
        false
    };
    thread::scope(|threads| {
        let leader = threads.spawn(|| interruptible(patient, || state.set("leader", 1)));
        // It is asked, so it leads and waits for the other program.
        while ASKED.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let follower = threads.spawn(|| state.set("follower", 1));
        let left = interruptible(|| true, || state.set("left", 1));
        assert_eq!(left.unwrap_err().kind(), ErrorKind::Cancelled);
        other.execute_batch("ROLLBACK").unwrap();
        leader.join().unwrap().unwrap();
        follower.join().unwrap().unwrap();
    });
    assert_eq!(state.keys("*").unwrap().map(Result::unwrap).collect::<Vec<_>>(), ["a", "follower", "leader"]);
}

#[test]
fn opening_that_waits_can_be_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    // An empty file that somebody is making something of.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE; CREATE TABLE t (x)").unwrap();
    let start = Instant::now();
    let error = interruptible(|| true, || State::open(&path)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(start.elapsed() < SOON);
}

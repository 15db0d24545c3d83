//! Processes that fork. In a file of their own, so that no other test of the process uses SQLite past the store: what such a use
//! holds at the moment of a fork, the child would wait for.

use llmspell_state_persistence::{ErrorKind, State, StateConfig, SyncMode};
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    (directory, path)
}

/// Runs `child` in a forked process and waits for it; it must leave by returning 0.
#[allow(unsafe_code)]
fn in_child(child: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child only runs what the test gives it and leaves by `_exit`.
    let process = unsafe { libc::fork() };
    if process == 0 {
        let code = child();
        // SAFETY: as above.
        unsafe { libc::_exit(code) };
    }
    process
}

#[allow(unsafe_code)]
fn wait_for(process: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a child of this test, and a valid place for its status.
    unsafe { libc::waitpid(process, &raw mut status, 0) };
    status
}

#[test]
fn a_child_of_a_fork_is_told_so_and_can_open_the_store_anew() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", 1).unwrap();
    let inherited = state.clone();
    let child = in_child(|| {
        let refused = inherited.get("a").is_err_and(|error| error.kind() == ErrorKind::Forked);
        drop(inherited);
        let works = State::open(&path).is_ok_and(|mine| mine.increment("a", 1).is_ok());
        i32::from(!(refused && works))
    });
    assert_eq!(wait_for(child), 0, "the child's own checks");
    assert_eq!(state.get("a").unwrap(), Some(json!(2)));
}

#[test]
fn an_idle_child_of_a_fork_does_not_keep_the_store_locked() {
    let (_directory, path) = place();
    let state = State::open(&path).unwrap();
    state.set("a", 1).unwrap();
    let child = in_child(|| {
        std::thread::sleep(std::time::Duration::from_secs(20));
        0
    });
    state.close().unwrap();
    let config = StateConfig { exclusive: true, ..StateConfig::at(&path) };
    let again = State::with_config(config).and_then(|state| state.get("a"));
    // SAFETY: the child made above.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(child, libc::SIGKILL)
    };
    wait_for(child);
    assert_eq!(again.unwrap(), Some(json!(1)));
}

#[test]
fn a_fork_amid_writes_gives_a_child_that_can_open_the_store() {
    let (_directory, path) = place();
    let config = StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::at(&path) };
    let state = State::with_config(config.clone()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..3 {
            let (state, stop) = (state.clone(), &stop);
            threads.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    state.set(&format!("t{thread}"), "x".repeat(3_000)).unwrap();
                    state.get(&format!("t{}", (thread + 1) % 3)).unwrap();
                }
            });
        }
        for _ in 0..40 {
            let child = in_child(|| {
                // A hang is killed, and seen as such.
                // SAFETY: arms a timer of this process.
                #[allow(unsafe_code)]
                unsafe {
                    libc::alarm(20)
                };
                let mine = State::with_config(config.clone()).and_then(|mine| mine.increment("children", 1));
                i32::from(mine.is_err())
            });
            assert_eq!(wait_for(child), 0, "status of a child");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(state.get("children").unwrap(), Some(json!(40)));
}

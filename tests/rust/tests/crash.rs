//! A writing process is killed at random moments: every acknowledged write is there afterwards, every commit is whole.

use llmspell_state_persistence::{Scope, State};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const KILLS: usize = 100;
const WRITERS: usize = 3;

/// Starts the writer, kills it after `life`, and answers the last round that each of its threads was told is stored.
fn killed_after(life: Duration, path: &Path) -> [u64; WRITERS] {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crash_writer"))
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let mut acknowledged = [0; WRITERS];
        for line in output.lines() {
            let line = line.expect("text");
            let (thread, round) = line.split_once(' ').expect("a thread and its round");
            acknowledged[thread.parse::<usize>().expect("a number")] = round.parse().expect("a number");
        }
        acknowledged
    });
    std::thread::sleep(life);
    let ended = child.try_wait().expect("the state of the writer");
    assert!(ended.is_none(), "the writer ended by itself: {ended:?}");
    child.kill().expect("a kill");
    child.wait().expect("the end of the writer");
    reader.join().expect("what was acknowledged")
}

fn round(value: Option<&Value>) -> u64 {
    value.and_then(|value| value.get("round").unwrap_or(value).as_u64()).unwrap_or_default()
}

/// Answers the round that is stored, after a check that every commit is whole.
fn check(scope: &Scope, told: u64, before: &str) -> u64 {
    let stored = round(scope.get("round").unwrap().as_ref());
    assert!(stored >= told, "{before}: round {told} was acknowledged, {stored} is stored");
    for suffix in std::iter::once(String::new()).chain((0..20).map(|n| n.to_string())) {
        let pair = [format!("left{suffix}"), format!("right{suffix}")];
        let [left, right] = pair.map(|key| scope.get(&key).unwrap());
        assert_eq!(left, right, "{before}: half of a commit, left{suffix} and right{suffix}");
        if suffix.is_empty() {
            assert_eq!(round(left.as_ref()), stored, "{before}: the round and its payload");
        }
    }
    stored
}

#[test]
fn a_kill_at_any_moment_loses_no_acknowledged_write_and_halves_no_commit() {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed: CRASH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let (mut last, mut rounds) = ([0; WRITERS], 0);
    for kill in 1..=KILLS {
        // Some die while they open and recover, most while they write.
        let life =
            Duration::from_micros(if kill % 5 == 0 { random.u64(0..15_000) } else { random.u64(5_000..250_000) });
        let told = killed_after(life, &path);
        let state = State::open(&path).unwrap_or_else(|error| panic!("kill {kill}, seed {seed}: {error}"));
        for (thread, last) in last.iter_mut().enumerate() {
            let scope = state.scope(&format!("writer{thread}")).unwrap();
            let about = format!("kill {kill} after {life:?}, thread {thread}, seed {seed}");
            let stored = check(&scope, told[thread].max(*last), &about);
            // At most one commit was under way.
            assert!(
                stored <= told[thread].max(*last) + 1,
                "{about}: {stored} is stored, {} was asked for",
                told[thread]
            );
            rounds += stored - *last;
            *last = stored;
        }
        state.close().unwrap();
    }
    println!("{KILLS} kills, {rounds} commits");
    assert!(rounds > 500, "only {rounds} commits between {KILLS} kills say little");
}

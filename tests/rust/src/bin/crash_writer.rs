//! Writes until it is killed, and says on its output what was acknowledged: `<thread> <round>`, one line each.

use llmspell_state_persistence::{Result, State, StateConfig};
use serde_json::{Value, json};
use std::io::Write as _;

fn number(value: Option<Value>) -> u64 {
    value.and_then(|value| value.as_u64()).unwrap_or_default()
}

/// Each round is one commit that leaves every pair of keys equal.
fn write(state: &State, thread: u64) -> Result<()> {
    let scope = state.scope(&format!("writer{thread}"))?;
    let mut random = fastrand::Rng::new();
    loop {
        let next = number(scope.get("round")?) + 1;
        let payload = json!({"round": next, "text": "x".repeat(random.usize(0..3000))});
        if next.is_multiple_of(2) {
            scope.set_many([("round", json!(next)), ("left", payload.clone()), ("right", payload)])?;
        } else {
            scope.transact(|tx| {
                tx.increment("round", 1)?;
                tx.set("left", &payload)?;
                tx.set(&format!("left{}", next % 20), &payload)?;
                tx.set(&format!("right{}", next % 20), &payload)?;
                tx.set("right", &payload)
            })?;
        }
        // Standard output is written line by line; a line this short reaches a pipe whole.
        let acknowledged = writeln!(std::io::stdout(), "{thread} {next}");
        if acknowledged.is_err() {
            return Ok(());
        }
    }
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_default();
    let state = State::with_config(StateConfig::at(path))?;
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..3)
            .map(|thread| {
                threads.spawn({
                    let state = &state;
                    move || write(state, thread)
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap_or(Ok(())))
    })
}

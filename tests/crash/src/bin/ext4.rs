//! The writer of the `ext4` stage: `ext4 STORE SYNC_MODE BOOT SEED`. Writes from several threads until it dies, and tells
//! every acknowledgement on its output.

use crash::stages::ext4::{THREADS, fill, pair};
use llmspell_state_persistence::{State, StateConfig, harness};
use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, sync_mode, boot, seed] = &arguments[..] else { return Err("ext4 STORE SYNC_MODE BOOT SEED".into()) };
    harness::set_boot(Some(boot));
    let sync_mode = serde_json::from_value(sync_mode.clone().into())?;
    let state = State::with_config(StateConfig { sync_mode, ..StateConfig::at(path) })?;
    let seed: u64 = seed.parse()?;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let state = &state;
            scope.spawn(move || {
                if let Err(error) = write(state, thread, seed) {
                    eprintln!("thread {thread}: {error}");
                    std::process::exit(1);
                }
            });
        }
    });
    Ok(())
}

/// Counts in two keys, changed together, from where the last writer was cut off.
fn write(state: &State, thread: usize, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let keys = pair(thread);
    let before = state.get(&keys[0])?.and_then(|value| value["n"].as_u64()).unwrap_or(0);
    for n in before + 1.. {
        let value = serde_json::json!({ "n": n, "fill": fill(thread, n) });
        state.set_many(keys.iter().map(|key| (key, value.clone())))?;
        if n % 64 == seed % 64 {
            state.delete("nothing")?;
        }
        // One system call, so that no line is torn.
        std::io::stdout().lock().write_all(format!("{thread} {n}\n").as_bytes())?;
    }
    Ok(())
}

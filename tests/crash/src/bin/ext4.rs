//! The writer of the `ext4` stage: `ext4 CONFIG BOOT`, the settings as JSON. Writes from several threads until it dies,
//! and tells every acknowledgement on its output.

use crash::stages::ext4::{THREADS, fill, pair};
use llmspell_state_persistence::{State, harness};
use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, boot] = &arguments[..] else { return Err("ext4 CONFIG BOOT".into()) };
    harness::set_boot(Some(boot));
    let state = State::with_config(serde_json::from_str(config)?)?;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let state = &state;
            scope.spawn(move || {
                if let Err(error) = write(state, thread) {
                    eprintln!("thread {thread}: {error}");
                    std::process::exit(1);
                }
            });
        }
    });
    Ok(())
}

/// Counts in two keys, changed together, from where the last writer was cut off.
fn write(state: &State, thread: usize) -> Result<(), Box<dyn std::error::Error>> {
    let keys = pair(thread);
    let before = state.get(&keys[0])?.and_then(|value| value["n"].as_u64()).unwrap_or(0);
    for n in before + 1.. {
        let value = serde_json::json!({ "n": n, "fill": fill(thread, n) });
        state.set_many(keys.iter().map(|key| (key, value.clone())))?;
        // One system call, so that no line is torn.
        std::io::stdout().lock().write_all(format!("{thread} {n}\n").as_bytes())?;
    }
    Ok(())
}

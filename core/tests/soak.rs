//! Many sets, by which how much of the past is kept shows in times and sizes.

use llmspell_state_persistence::{RetentionPolicy, State, StateConfig, SyncMode};
use serde_json::json;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const FILE: &str = "s.db";

/// Sets over 1,000 keys, with their times and the size of the file in KiB at every tenth of them.
struct Soak {
    name: &'static str,
    directory: TempDir,
    state: State,
    times: Vec<Duration>,
    sizes: Vec<u64>,
}

impl Soak {
    fn new(name: &'static str, retention: RetentionPolicy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let config = StateConfig { retention, sync_mode: SyncMode::Normal, ..StateConfig::at(path) };
        Self { name, directory, state: State::with_config(config).unwrap(), times: Vec::new(), sizes: Vec::new() }
    }

    /// Another tenth of all.
    fn tenth(&mut self, count: usize) {
        for n in self.times.len()..self.times.len() + count {
            let start = Instant::now();
            self.state.set(&format!("user:{}", n % 1_000), json!({ "name": "Alice", "score": n })).unwrap();
            self.times.push(start.elapsed());
        }
        self.sizes.push(std::fs::metadata(self.directory.path().join(FILE)).unwrap().len() >> 10);
    }

    /// Prints the figures, and answers the one in the hundred that takes longest.
    fn end(mut self) -> Duration {
        self.times.sort_unstable();
        let [p50, p99, p999] = [500, 990, 999].map(|at| self.times[self.times.len() * at / 1_000]);
        let Self { name, sizes, .. } = self;
        println!("{name}: p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}; file in KiB after each tenth: {sizes:?}");
        p99
    }
}

#[test]
#[ignore = "measures; scripts/measure.sh runs it"]
fn measured_a_million_sets_with_five_versions_of_a_key() {
    let count: usize = std::env::var("SETS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let all = RetentionPolicy::keep_all();
    let five = RetentionPolicy { max_versions: 5, ..all.clone() };
    let mut soaks = [Soak::new("max_versions = 5", five), Soak::new("everything kept", all)];
    // In turns, two tenths each, so that a machine that is now and then slower is so for both. What one has left to trim when its
    // turn ends falls into that of the other: at most one pass of the three or more of a turn.
    for _ in 0..5 {
        for soak in &mut soaks {
            soak.tenth(count / 10);
            soak.tenth(count / 10);
        }
    }
    let grown = 100 * soaks[0].sizes[9] / soaks[0].sizes[0] - 100;
    let [trimmed, kept] = soaks.map(Soak::end);
    println!(
        "the trimmed file grows by {grown} %, its p99 is {:.2} times that with everything kept",
        trimmed.as_secs_f64() / kept.as_secs_f64()
    );
}

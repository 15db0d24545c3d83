//! Schedule models: the core with loom's locks and atomics in its pipeline. Loom runs a model once for every order of steps, up
//! to [`PREEMPTIONS`] switches that no thread asked for.
//!
//! Each model takes the name of a bug to plant, so that its test can show that it notices; otherwise it answers how many
//! orders there are. It fails by panicking.

pub mod cache;
pub mod pulse;
pub mod queue;
pub mod store;
pub(crate) mod sync;
pub mod watch;

mod engine;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Switches between threads that no thread asked for.
pub const PREEMPTIONS: usize = 3;

/// Stack of a modelled thread, in words.
const STACK: usize = 64 << 10;

thread_local! {
    /// Loom runs all threads of a model on the one that starts it.
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether this bug is planted: by the model that runs, or by the environment as for the rest of the harness.
pub(crate) fn sabotaged(bug: &str) -> bool {
    PLANTED.get().map_or_else(|| std::env::var("LLMSPELL_SABOTAGE").is_ok_and(|name| name == bug), |name| name == bug)
}

/// Runs a model once for every order and counts them.
fn explore(bug: Option<&'static str>, model: impl Fn() + Send + Sync + 'static) -> u64 {
    PLANTED.set(bug);
    let orders = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 10_000;
    builder.max_threads = 4;
    // Bounds on time or number would end a model early and quietly.
    (builder.max_duration, builder.max_permutations) = (None, None);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    orders.load(Ordering::Relaxed)
}

/// Starts a thread of a model.
fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> loom::thread::JoinHandle<T> {
    let thread = loom::thread::Builder::new().stack_size(STACK).spawn(work);
    thread.expect("loom always has room for one of a few threads")
}

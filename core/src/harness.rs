//! Hooks for the crash harness: named points around every durable step, planted bugs, and a store that runs on one thread.
//!
//! Without the feature `harness` nothing of this exists: every function below is a constant.

use std::path::Path;

/// A step that the harness may watch, fail, or die at.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "harness"), expect(dead_code, reason = "nobody watches then"))]
pub enum Event<'a> {
    /// A named point; see [`POINTS`].
    Point(&'static str),
    /// Bytes are about to be written past SQLite.
    Write {
        /// The file.
        path: &'a Path,
        /// Where in it.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// A file is about to get this size past SQLite, its blocks allocated.
    Resize {
        /// The file.
        path: &'a Path,
        /// Its size afterwards.
        len: u64,
    },
    /// A file is about to be synced past SQLite.
    Sync(&'a Path),
    /// A file is about to be removed past SQLite.
    Remove(&'a Path),
}

/// Every named point, in the order in which a store passes them.
#[cfg(feature = "harness")]
pub const POINTS: &[&str] = &[
    "open.guarded",
    "open.created",
    "open.ready",
    "write.begun",
    "write.room",
    "write.applied",
    "write.committed",
    "write.marked",
    "write.published",
    "fork.begun",
    "fork.scope",
    "fork.made",
    "merge.read",
    "merge.done",
    "sweep.begun",
    "sweep.done",
    "trim.planned",
    "trim.run",
    "trim.part",
    "trim.noted",
    "checkpoint.begin",
    "checkpoint.done",
    "settle.reopened",
    "close.stopped",
    "close.emptied",
    "close.left",
];

/// Bugs that the harness must find when they are planted.
#[cfg(feature = "harness")]
pub const SABOTAGES: &[(&str, &str)] = &[
    ("ack-before-commit", "a request is answered as done although its group was rolled back"),
    ("no-sync", "FULL runs as OFF"),
    ("no-guard", "the lock guard takes no locks"),
    ("posix-locks", "the locks on the wal-index are SQLite's own, which any close of that file drops"),
    ("no-check", "the row check is not compared"),
    ("no-page-check", "the checks of pages are not compared"),
    ("no-mark", "the high-water mark is not compared when a store is opened"),
    ("mark-early", "the high-water mark is written before the commit"),
    ("stale-cache", "commits of other processes do not reach the cache"),
    ("fill-anyway", "a value read before a write is cached after it"),
    ("no-reliance", "a transaction's reads are not checked when it commits"),
    ("no-range-reliance", "a transaction's listings are not checked when it commits"),
    ("half-group", "a failed request of a group is not undone"),
    ("group-goes-on", "a group goes on after a failing disk has made SQLite undo it"),
    ("split-commit", "a request of several changes is committed in two parts"),
    ("lost-increment", "an update reads its key outside of the write transaction"),
    ("unknown-is-done", "a COMMIT that failed counts as done"),
    ("unknown-is-failed", "a COMMIT that failed counts as not done"),
    ("believe-the-cache", "a write takes what the cache says of its key for what the database says"),
    ("unpublished", "the cache is not told of this process's own commits"),
    ("forget-to-wake", "a leader hands over to nobody"),
    ("forget-to-lead", "a leader leaves the requests of callers that do not wait to nobody"),
    ("keep-ballast", "a full disk does not release the ballast"),
    ("log-removed-anyway", "nobody notices that the log was removed or replaced"),
    ("forget-at-closing", "closing leaves calls that nobody waits for undone"),
    ("watch-skips-a-row", "a watch misses the row after each page"),
    ("commit-told-in-parts", "a watch takes every change for the end of its commit"),
    ("save-early", "a named watch keeps what it has read, taken or not"),
    ("save-nothing", "saving a named watch does not write"),
    ("no-foreign-wake", "a watch that waits does not learn of other processes' commits"),
    ("wrong-old", "a watch tells the value of the row before for the old one of the key"),
    ("wrong-difference", "a value is stored as its difference from the newest one, and read as that from its base"),
    ("read-two-snapshots", "the keys of one get_many are read one after the other"),
    ("read-expired", "a key whose time has run out is still read"),
    ("expire-untold", "a watch does not tell of keys whose time has run out"),
    ("touch-loses", "a touch takes the value away"),
    ("commit-expired", "a transaction's commit ignores what has expired since it was read"),
    ("trim-watched", "trimming takes what named watches have still to tell"),
    ("trim-bases", "trimming takes rows from which kept ones are stored as differences"),
    ("fork-follows", "what the origin changes a fork has no more"),
    ("trim-forked", "trimming takes what keys of forks still are"),
    ("merge-over", "merging takes the fork's value where both sides have changed a key"),
];

#[cfg(feature = "harness")]
mod active {
    use super::{Event, SABOTAGES};
    use std::cell::Cell;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
    use std::sync::{OnceLock, PoisonError, RwLock};

    type Hook = Box<dyn Fn(&Event<'_>) -> io::Result<()> + Send + Sync>;

    static HOOK: RwLock<Option<Hook>> = RwLock::new(None);
    static HOOKED: AtomicBool = AtomicBool::new(false);
    static VFS: RwLock<Option<String>> = RwLock::new(None);
    static SINGLE_THREADED: AtomicBool = AtomicBool::new(false);
    /// The time in milliseconds since the epoch; 0 leaves the clock alone.
    static NOW_MS: AtomicI64 = AtomicI64::new(0);
    static BOOT: RwLock<Option<String>> = RwLock::new(None);

    thread_local! {
        /// What a hook does to a store must not come back to it.
        static INSIDE: Cell<bool> = const { Cell::new(false) };
        /// The time of this thread, before that of all.
        static OWN_MS: Cell<i64> = const { Cell::new(0) };
    }

    /// Calls `hook` at every event from now on; an error that it answers is the outcome of the step.
    pub fn watch(hook: impl Fn(&Event<'_>) -> io::Result<()> + Send + Sync + 'static) {
        *HOOK.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
        HOOKED.store(true, Ordering::SeqCst);
    }

    /// Calls no hook from now on.
    pub fn unwatch() {
        HOOKED.store(false, Ordering::SeqCst);
        *HOOK.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens stores through this SQLite VFS from now on; nothing is the default one.
    pub fn use_vfs(name: Option<&str>) {
        *VFS.write().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    /// Stores that are opened from now on start no thread: checkpoints happen only inside of writes and of closing.
    pub fn use_one_thread(alone: bool) {
        SINGLE_THREADED.store(alone, Ordering::SeqCst);
    }

    /// Stops the clock at a time in milliseconds since the epoch; 0 lets it go on.
    pub fn set_clock(now_ms: i64) {
        NOW_MS.store(now_ms, Ordering::SeqCst);
    }

    /// Stops the clock of this thread alone, for stores that run on one thread; 0 lets it go as that of all others.
    pub fn set_own_clock(now_ms: i64) {
        OWN_MS.set(now_ms);
    }

    /// Stores that are opened from now on take this for the identity of the machine's boot, as after a power cut.
    pub fn set_boot(boot: Option<&str>) {
        *BOOT.write().unwrap_or_else(PoisonError::into_inner) = boot.map(str::to_owned);
    }

    pub(crate) fn event(event: &Event<'_>) -> io::Result<()> {
        if !HOOKED.load(Ordering::Relaxed) || INSIDE.get() {
            return Ok(());
        }
        INSIDE.set(true);
        let answer = HOOK.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(Ok(()), |hook| hook(event));
        INSIDE.set(false);
        answer
    }

    pub(crate) fn vfs() -> Option<String> {
        VFS.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn one_thread() -> bool {
        SINGLE_THREADED.load(Ordering::Relaxed)
    }

    pub(crate) fn now_ms() -> Option<i64> {
        [OWN_MS.get(), NOW_MS.load(Ordering::Relaxed)].into_iter().find(|now_ms| *now_ms != 0)
    }

    pub(crate) fn boot() -> Option<String> {
        BOOT.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fills bytes from the seed of this thread, in a store that runs on one thread; says whether it did.
    pub(crate) fn fill_random(bytes: &mut [u8]) -> bool {
        if one_thread() {
            fastrand::fill(bytes);
        }
        one_thread()
    }

    /// Whether this bug is planted, by the environment variable `LLMSPELL_SABOTAGE`.
    pub(crate) fn sabotaged(bug: &str) -> bool {
        static PLANTED: OnceLock<Option<String>> = OnceLock::new();
        debug_assert!(SABOTAGES.iter().any(|(name, _)| *name == bug), "{bug} is not in the list");
        PLANTED.get_or_init(|| std::env::var("LLMSPELL_SABOTAGE").ok()).as_deref() == Some(bug)
    }
}

#[cfg(feature = "harness")]
pub(crate) use active::{boot, event, fill_random, now_ms, one_thread, sabotaged, vfs};
#[cfg(feature = "harness")]
pub use active::{set_boot, set_clock, set_own_clock, unwatch, use_one_thread, use_vfs, watch};

#[cfg(not(feature = "harness"))]
mod absent {
    use super::Event;
    use std::io;

    #[inline]
    #[allow(clippy::unnecessary_wraps)] // its twin fails when told to
    pub(crate) fn event(_: &Event<'_>) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn vfs() -> Option<String> {
        None
    }

    /// A model knows all its threads.
    #[inline]
    pub(crate) fn one_thread() -> bool {
        cfg!(models)
    }

    #[inline]
    pub(crate) fn now_ms() -> Option<i64> {
        None
    }

    #[inline]
    pub(crate) fn boot() -> Option<String> {
        None
    }

    #[inline]
    pub(crate) fn fill_random(_: &mut [u8]) -> bool {
        false
    }

    #[cfg(not(models))]
    #[inline]
    pub(crate) fn sabotaged(_: &str) -> bool {
        false
    }

    #[cfg(models)]
    pub(crate) use crate::models::sabotaged;
}

#[cfg(not(feature = "harness"))]
pub(crate) use absent::{boot, event, fill_random, now_ms, one_thread, sabotaged, vfs};

/// Passes a named point, where the harness may look, wait or die. What it answers changes nothing.
pub(crate) fn point(name: &'static str) {
    #[cfg(feature = "harness")]
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    let _ = event(&Event::Point(name));
}

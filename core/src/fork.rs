//! Notices `fork`: the child has the parent's memory but none of its threads, and its locks may be held for ever.

use crate::{Error, Result};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Forks between the first process that watched and this one.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCH: Once = Once::new();
/// Forks that this process has made or come from.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Read while a call is inside the database, written during a fork: SQLite keeps locks and tables of its own for the whole
/// process, and what is half done there would stay half done in the child for ever.
static INSIDE: RwLock<()> = RwLock::new(());

thread_local! {
    static FORKING: Cell<Option<RwLockWriteGuard<'static, ()>>> = const { Cell::new(None) };
}

/// To be held during every call into the database. A thread that holds it must not ask for it again.
pub(crate) fn inside() -> RwLockReadGuard<'static, ()> {
    INSIDE.read().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before() {
    let quiet = INSIDE.write().unwrap_or_else(PoisonError::into_inner);
    // A thread that is ending forks without waiting.
    let _ = FORKING.try_with(|forking| forking.set(Some(quiet)));
}

extern "C" fn after() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    let _ = FORKING.try_with(|forking| drop(forking.take()));
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    after();
}

/// Which process this is, as a number that differs between parent and child and costs no system call.
#[allow(unsafe_code)]
pub fn generation() -> u64 {
    WATCH.call_once(|| {
        // SAFETY: the handlers take and give a lock and add to an atomic, all in the thread that forks, which is the one that
        // lives on in the child. A failure (no memory) leaves forks unnoticed, as in every program that does not watch.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}

/// How often this process has forked, or been forked, since somebody first asked for its generation.
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Whether this process is not the one in which `made` was read.
pub(crate) fn happened_since(made: u64) -> bool {
    GENERATION.load(Ordering::Relaxed) != made
}

/// Refuses the use of what the parent opened.
pub(crate) fn check(made: u64) -> Result<()> {
    if happened_since(made) { Err(Error::forked()) } else { Ok(()) }
}

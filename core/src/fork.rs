//! Notices `fork`: the child has the parent's memory but none of its threads, and its locks may be held for ever.

use crate::{Error, ErrorKind, Result};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Forks between the first process that watched and this one.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static WATCH: Once = Once::new();

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Which process this is, as a number that differs between parent and child.
#[allow(unsafe_code)]
pub(crate) fn generation() -> u64 {
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed in the child of a fork. A failure (no memory) leaves
        // forks unnoticed, as they are in every program that does not watch.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    GENERATION.load(Ordering::Relaxed)
}

/// Whether this process is not the one in which `made` was read.
pub(crate) fn happened_since(made: u64) -> bool {
    GENERATION.load(Ordering::Relaxed) != made
}

/// Refuses the use of what the parent opened.
pub(crate) fn check(made: u64) -> Result<()> {
    if happened_since(made) {
        return Err(Error::new(
            ErrorKind::Forked,
            "this store was opened before a fork and belongs to the parent process; open it again in the child",
        ));
    }
    Ok(())
}

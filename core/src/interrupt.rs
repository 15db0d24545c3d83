//! Ends calls that wait for others when their caller wants it, by Ctrl-C for example.

#[cfg(models)]
use crate::models::sync::own as thread_local;
use crate::{Error, ErrorKind, Result};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Asking may be costly (a binding has to take its interpreter), so it is not done more often. Models know no time.
const EVERY: Duration = Duration::from_millis(if cfg!(models) { 0 } else { 20 });

thread_local! {
    static WANTED: Cell<Option<fn() -> bool>> = const { Cell::new(None) };
}

/// Sets what this thread asks, and puts back what it asked before.
struct Asking(Option<fn() -> bool>);

impl Asking {
    fn set(wanted: Option<fn() -> bool>) -> Self {
        // Nothing while the thread ends: then nobody is asked.
        Self(WANTED.try_with(|current| current.replace(wanted)).ok().flatten())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = WANTED.try_with(|current| current.set(self.0));
    }
}

/// Runs `work`. While one of its calls waits for another thread or process it asks `wanted` now and then, and once that says yes the
/// call ends with `Cancelled`, having changed nothing. A call that is being committed already is not ended.
///
/// ```
/// use llmspell_state_persistence::{State, interruptible};
/// let state = State::in_memory()?;
/// interruptible(|| true, || state.set("a", 1))?;      // did not have to wait
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
pub fn interruptible<T>(wanted: fn() -> bool, work: impl FnOnce() -> T) -> T {
    let _asking = Asking::set(Some(wanted));
    work()
}

/// Runs `work` on behalf of others, too: nobody is asked.
pub(crate) fn uninterruptible<T>(work: impl FnOnce() -> T) -> T {
    let _asking = Asking::set(None);
    work()
}

/// Somebody who waits.
pub(crate) struct Waiting {
    asked: Instant,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self { asked: Instant::now() }
    }

    /// How long to wait before asking again; nothing where nobody is to be asked.
    pub(crate) fn at_most() -> Option<Duration> {
        WANTED.try_with(Cell::get).ok().flatten().map(|_| EVERY)
    }

    /// Asks, if it is time.
    ///
    /// # Errors
    /// `Cancelled`: the caller does not want to wait any longer.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(wanted) = WANTED.try_with(Cell::get).ok().flatten() else { return Ok(()) };
        if self.asked.elapsed() < EVERY {
            return Ok(());
        }
        self.asked = Instant::now();
        if wanted() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "interrupted while waiting for another writer; nothing was changed",
            ));
        }
        Ok(())
    }
}

//! Trying again after a conflict: at once at first, then after random waits that grow, so that rivals fall out of step
//! (exponential back-off with full jitter).

use crate::{Error, ErrorKind, Result};
use std::time::Duration;

/// Attempts that follow the first without a wait.
const AT_ONCE: u32 = 2;
/// Bound of the first random wait, in microseconds; each further one doubles it.
const FIRST_US: u64 = 50;
/// Largest bound of a wait, in microseconds.
const LONGEST_US: u64 = 10_000;

/// The attempts that are left, for a caller that retries by itself, such as a binding to an event loop; see
/// [`Scope::transact`](crate::Scope::transact) for those that need not.
#[derive(Debug)]
pub struct Retry {
    attempts: u32,
    made: u32,
}

impl Retry {
    /// At most `attempts` in all, the first included.
    pub fn new(attempts: u32) -> Self {
        Self { attempts, made: 0 }
    }

    /// After a failed attempt: how long to wait before the next one; nothing when there is none.
    pub fn pause(&mut self) -> Option<Duration> {
        self.made += 1;
        if self.made >= self.attempts {
            return None;
        }
        if self.made <= AT_ONCE {
            return Some(Duration::ZERO);
        }
        let bound = (FIRST_US << (self.made - AT_ONCE).min(16)).min(LONGEST_US);
        Some(Duration::from_micros(fastrand::u64(0..bound)))
    }

    /// After a failed attempt: whether there is another, having waited for its time.
    pub(crate) fn again(&mut self) -> bool {
        let pause = self.pause();
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            std::thread::sleep(pause);
        }
        pause.is_some()
    }

    /// After an error: nothing if it is a conflict and there is another attempt, otherwise the error.
    pub(crate) fn after(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Conflict && self.again() { Ok(()) } else { Err(error) }
    }
}

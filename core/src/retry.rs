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

/// The attempts that are left.
#[derive(Debug)]
pub(crate) struct Retry {
    attempts: u32,
    made: u32,
}

impl Retry {
    /// At most `attempts` in all, the first included.
    pub(crate) fn new(attempts: u32) -> Self {
        Self { attempts, made: 0 }
    }

    /// After a failed attempt: whether there is another, having waited for its time.
    pub(crate) fn again(&mut self) -> bool {
        self.made += 1;
        if self.made >= self.attempts {
            return false;
        }
        if self.made > AT_ONCE {
            let bound = (FIRST_US << (self.made - AT_ONCE).min(16)).min(LONGEST_US);
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..bound)));
        }
        true
    }

    /// After an error: nothing if it is a conflict and there is another attempt, otherwise the error.
    pub(crate) fn after(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Conflict && self.again() { Ok(()) } else { Err(error) }
    }
}

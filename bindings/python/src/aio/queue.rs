//! How threads of the core hand what they found to the thread of an event loop. They know nothing of Python: a thread that
//! took the interpreter while that ends would bring the process down.

use super::wake::Wake;
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes the result of a call, in the loop's thread, out of plain values that it holds.
pub(super) type Outcome = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// Outcomes on their way to one loop. Who sends holds it weakly, so that it, and its descriptor, end with the loop.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Wake,
}

#[derive(Default)]
struct Inner {
    outcomes: VecDeque<(u64, Outcome)>,
    /// The loop was woken for what is there.
    woken: bool,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { inner: Mutex::default(), wake: Wake::new()? })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.wake.fd()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, id: u64, outcome: Outcome) {
        let mut inner = self.lock();
        inner.outcomes.push_back((id, outcome));
        if !std::mem::replace(&mut inner.woken, true) {
            self.wake.set();
        }
    }

    /// All outcomes that are there. One lock for many: the loop must not meet, again and again, a thread that the system
    /// has put aside while it held the lock.
    pub(super) fn take(&self) -> VecDeque<(u64, Outcome)> {
        std::mem::take(&mut self.lock().outcomes)
    }

    /// Has the loop come back at once if there is more for it, here or, as `more` says, elsewhere; else for the next outcome.
    pub(super) fn rest(&self, more: bool) {
        let mut inner = self.lock();
        let more = more || !inner.outcomes.is_empty();
        match (std::mem::replace(&mut inner.woken, more), more) {
            (false, true) => self.wake.set(),
            (true, false) => self.wake.clear(),
            _ => {}
        }
    }
}

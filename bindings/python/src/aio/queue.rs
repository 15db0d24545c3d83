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

    /// The next outcome. The loop stays woken as long as there is one.
    pub(super) fn pop(&self) -> Option<(u64, Outcome)> {
        let mut inner = self.lock();
        let next = inner.outcomes.pop_front();
        if inner.outcomes.is_empty() && std::mem::take(&mut inner.woken) {
            self.wake.clear();
        }
        next
    }
}

//! The futures of an event loop that wait for the core, and how its own thread resolves them.

use super::notes::Made;
use super::queue::{Outcome, Queue};
use super::turn::Turn;
use crate::error::to_py;
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Error, ErrorKind, fork_generation};
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Makes an object of what a call has found.
pub(crate) type Give<T> = for<'py> fn(Python<'py>, T) -> PyResult<Bound<'py, PyAny>>;

/// What one loop waits for. The loop alone holds it, by the callback of its descriptor, so it ends when the loop is closed:
/// what comes later is dropped where it was made.
///
/// Whatever runs code of Python (making a future, waking who waits, classes of our own) is done by the Python side and not
/// below a frame of this library: where the interpreter ends, Python before 3.14 ends other threads that ask for it again by
/// unwinding their stacks, which must not meet Rust.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Completions(Arc<Pending>);

struct Pending {
    event_loop: Py<PyAny>,
    queue: Arc<Queue>,
    turn: Mutex<Turn>,
    futures: Mutex<HashMap<u64, Py<PyAny>>>,
    next: AtomicU64,
    /// The process that made it.
    process: u64,
}

thread_local! {
    /// Those of the loop that ran last in this thread.
    static LAST: RefCell<Weak<Pending>> = const { RefCell::new(Weak::new()) };
}

/// Those of every loop.
static ALL: Mutex<Vec<Weak<Pending>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pending {
    /// What the parent of a fork had is not this process'.
    fn is_of(&self, running: &Bound<'_, PyAny>) -> bool {
        self.event_loop.is(running) && self.process == fork_generation()
    }

    fn next(&self) -> Option<(u64, Outcome)> {
        lock(&self.turn).outcome(|| self.queue.take())
    }

    /// Makes a call, in this turn of the loop or in one of the next.
    fn begin(&self, call: impl FnOnce() + Send + 'static) {
        let (now, is_first) = {
            let mut turn = lock(&self.turn);
            let is_first = !turn.has_more();
            (turn.begin(call), is_first)
        };
        match now {
            Some(call) => call(),
            None if is_first => self.queue.rest(true),
            None => {}
        }
    }
}

#[pymethods]
impl Completions {
    /// Those of a loop, which must have its own thread call `pop` and then `rest` when the descriptor is readable, and hold
    /// what does so.
    #[new]
    #[pyo3(signature = (event_loop: "asyncio.AbstractEventLoop"))]
    fn py_new(event_loop: Bound<'_, PyAny>) -> PyResult<Self> {
        let pending = Arc::new(Pending {
            event_loop: event_loop.unbind(),
            queue: Arc::new(Queue::new()?),
            turn: Mutex::default(),
            futures: Mutex::default(),
            next: AtomicU64::new(0),
            process: fork_generation(),
        });
        lock(&ALL).push(Arc::downgrade(&pending));
        Ok(Self(pending))
    }

    /// Those of a loop that runs in this thread, if it has any.
    #[staticmethod]
    #[pyo3(signature = (event_loop: "asyncio.AbstractEventLoop") -> "Completions | None")]
    fn running(event_loop: &Bound<'_, PyAny>) -> Option<Self> {
        let last = LAST.with_borrow(Weak::upgrade);
        if let Some(last) = last.filter(|last| last.is_of(event_loop)) {
            return Some(Self(last));
        }
        let alive: Vec<Arc<Pending>> = {
            let mut all = lock(&ALL);
            all.retain(|known| known.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        let found = alive.into_iter().find(|known| known.is_of(event_loop))?;
        LAST.set(Arc::downgrade(&found));
        Some(Self(found))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0.event_loop)?;
        // Nobody makes objects while holding it; if somebody else did, these would merely count as in use.
        let Ok(futures) = self.0.futures.try_lock() else { return Ok(()) };
        futures.values().try_for_each(|future| visit.call(future))
    }

    /// What becomes readable when there is something to pop.
    fn fileno(&self) -> RawFd {
        self.0.queue.fd()
    }

    /// A future whose call has ended, its result, and what the call failed with; `None` when there is none now. Futures that
    /// are done already, since whoever waited was cancelled, are left out.
    #[pyo3(signature = () -> "tuple[asyncio.Future[typing.Any], typing.Any, BaseException | None] | None")]
    fn pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Popped<'py>>> {
        if self.0.process != fork_generation() {
            // In a fork the descriptor is the parent's, too: emptying it would take its wake-up away.
            return Ok(None);
        }
        while let Some((id, outcome)) = self.0.next() {
            let future = lock(&self.0.futures).remove(&id);
            let Some(future) = future.map(|future| future.into_bound(py)) else { continue };
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            return Ok(Some(match outcome(py) {
                Ok(result) => (future, Some(result), None),
                Err(error) => (future, None, Some(error.into_value(py))),
            }));
        }
        Ok(None)
    }

    /// Ends a turn of the loop: begins calls that were kept for the next one, and says by the descriptor whether there is
    /// more to do.
    fn rest(&self) {
        if self.0.process != fork_generation() {
            return;
        }
        let calls = lock(&self.0.turn).end();
        for call in calls {
            call();
        }
        let has_more = lock(&self.0.turn).has_more();
        self.0.queue.rest(has_more);
    }

    /// How many calls have not ended.
    #[getter]
    fn pending(&self) -> usize {
        lock(&self.0.futures).len()
    }
}

type Popped<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>, Option<Py<PyBaseException>>);

/// Takes the answer of one call to the loop that waits for it.
pub(crate) struct Reply<T: Send + 'static> {
    queue: Weak<Queue>,
    id: u64,
    give: Give<T>,
    sent: bool,
}

impl<T: Send + 'static> Reply<T> {
    pub(crate) fn send(mut self, answer: core::Result<T>) {
        self.sent = true;
        let give = self.give;
        self.push(Box::new(move |py| give(py, answer.map_err(to_py)?)));
    }

    fn push(&self, outcome: Outcome) {
        if let Some(queue) = self.queue.upgrade() {
            queue.push(self.id, outcome);
        }
    }
}

impl<T: Send + 'static> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.sent {
            // Such as for a watch that nobody has any more.
            self.push(Box::new(|_| Err(to_py(Error::new(ErrorKind::Closed, "what this waited for is gone")))));
        }
    }
}

/// Has a future resolved by a [`Reply`], which `begin` gets.
pub(crate) fn pending<'py, T: Send + 'static>(
    to: &Bound<'py, Completions>,
    future: Bound<'py, PyAny>,
    give: Give<T>,
    begin: impl FnOnce(Reply<T>) + Send + 'static,
) {
    let pending = &to.get().0;
    let id = pending.next.fetch_add(1, Ordering::Relaxed);
    lock(&pending.futures).insert(id, future.unbind());
    let reply = Reply { queue: Arc::downgrade(&pending.queue), id, give, sent: false };
    pending.begin(move || begin(reply));
}

/// Resolves a future at once: to await it does not leave the loop. Nobody waits for it yet, so no code of Python runs here.
fn known<'py>(future: &Bound<'py, PyAny>, result: Bound<'py, PyAny>) -> PyResult<()> {
    future.call_method1(intern!(future.py(), "set_result"), (result,)).map(drop)
}

/// Makes a call without waiting for it.
pub(crate) fn later<'py, T: Send + 'static>(
    to: &Bound<'py, Completions>,
    future: Bound<'py, PyAny>,
    call: core::Result<impl Into<Made<T>>>,
    give: Give<T>,
) -> PyResult<()> {
    match call.map_err(to_py)?.into() {
        Made::Known(answer) => known(&future, give(to.py(), answer.map_err(to_py)?)?),
        Made::Call(call) => {
            pending(to, future, give, move |reply| call.then(|answer| reply.send(answer)));
            Ok(())
        }
    }
}

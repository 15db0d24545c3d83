//! The futures of an event loop that wait for the core, and how its own thread resolves them.

use super::queue::{Outcome, Queue};
use crate::error::to_py;
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Call, Error, ErrorKind, fork_generation};
use pyo3::exceptions::PyNotImplementedError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Futures that are resolved before the loop gets its turn again: each wakes a task, and timers wait for all of them.
const AT_ONCE: usize = 64;

/// Makes an object of what a call has found.
pub(crate) type Give<T> = for<'py> fn(Python<'py>, T) -> PyResult<Bound<'py, PyAny>>;

/// What one loop waits for. The loop alone holds it (by the callback of its descriptor), so it ends when the loop is closed:
/// what comes later is dropped where it was made.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Completions(Arc<Pending>);

struct Pending {
    event_loop: Py<PyAny>,
    create_future: Py<PyAny>,
    queue: Arc<Queue>,
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
    /// Those of the loop that runs in this thread.
    fn current(py: Python<'_>) -> PyResult<Arc<Self>> {
        static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let running = GET_RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
        let last = LAST.with_borrow(Weak::upgrade);
        if let Some(last) = last.filter(|last| last.is_of(&running)) {
            return Ok(last);
        }
        let alive: Vec<Arc<Self>> = {
            let mut all = lock(&ALL);
            all.retain(|known| known.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        let found = match alive.iter().find(|known| known.is_of(&running)) {
            Some(known) => Arc::clone(known),
            None => Self::attach(running)?,
        };
        LAST.set(Arc::downgrade(&found));
        Ok(found)
    }

    /// What the parent of a fork had is not this process'.
    fn is_of(&self, running: &Bound<'_, PyAny>) -> bool {
        self.event_loop.is(running) && self.process == fork_generation()
    }

    fn attach(event_loop: Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let pending = Arc::new(Self {
            create_future: event_loop.getattr(intern!(py, "create_future"))?.unbind(),
            event_loop: event_loop.clone().unbind(),
            queue: Arc::new(Queue::new()?),
            futures: Mutex::default(),
            next: AtomicU64::new(0),
            process: fork_generation(),
        });
        let completions = Bound::new(py, Completions(Arc::clone(&pending)))?;
        let drain = completions.getattr(intern!(py, "drain"))?;
        match event_loop.call_method1(intern!(py, "add_reader"), (pending.queue.fd(), drain)) {
            Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
                py.import("llmspell_state.aio.polling")?.call_method1("poll", (event_loop, completions))?;
            }
            added => drop(added?),
        }
        lock(&ALL).push(Arc::downgrade(&pending));
        Ok(pending)
    }

    fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.create_future.bind(py).call0()
    }
}

#[pymethods]
impl Completions {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0.event_loop)?;
        visit.call(&self.0.create_future)?;
        // Nobody makes objects while holding it; if somebody else did, these would merely count as in use.
        let Ok(futures) = self.0.futures.try_lock() else { return Ok(()) };
        futures.values().try_for_each(|future| visit.call(future))
    }

    /// Resolves futures whose calls have ended, some of them if there are many.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        for _ in 0..AT_ONCE {
            let Some((id, outcome)) = self.0.queue.pop() else { break };
            let future = lock(&self.0.futures).remove(&id);
            if let Some(future) = future {
                resolve(future.bind(py), outcome)?;
            }
        }
        Ok(())
    }

    /// How many calls have not ended.
    fn __len__(&self) -> usize {
        lock(&self.0.futures).len()
    }
}

fn resolve(future: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(()); // whoever waited was cancelled
    }
    match outcome(py) {
        Ok(result) => future.call_method1(intern!(py, "set_result"), (result,))?,
        Err(error) => {
            future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?;
            // Whoever waits may be cancelled before it looks; nobody need hear of the error then.
            future.call_method0(intern!(py, "exception"))?
        }
    };
    Ok(())
}

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

/// A future of the running loop that `begin` has resolved by a [`Reply`].
pub(crate) fn pending<'py, T: Send + 'static>(
    py: Python<'py>,
    give: Give<T>,
    begin: impl FnOnce(Reply<T>),
) -> PyResult<Bound<'py, PyAny>> {
    let current = Pending::current(py)?;
    let future = current.create_future(py)?;
    let id = current.next.fetch_add(1, Ordering::Relaxed);
    lock(&current.futures).insert(id, future.clone().unbind());
    begin(Reply { queue: Arc::downgrade(&current.queue), id, give, sent: false });
    Ok(future)
}

/// A future of the running loop that has its result already: to await it does not leave the loop.
pub(crate) fn known<'py>(py: Python<'py>, result: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let future = Pending::current(py)?.create_future(py)?;
    future.call_method1(intern!(py, "set_result"), (result,))?;
    Ok(future)
}

/// Makes a call without waiting for it.
pub(crate) fn later<'py, T: Send + 'static>(
    py: Python<'py>,
    call: core::Result<Call<T>>,
    give: Give<T>,
) -> PyResult<Bound<'py, PyAny>> {
    match call.map_err(to_py)?.now() {
        Ok(answer) => known(py, give(py, answer.map_err(to_py)?)?),
        Err(call) => pending(py, give, |reply| call.then(|answer| reply.send(answer))),
    }
}

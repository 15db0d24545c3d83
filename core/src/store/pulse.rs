//! Tells who waits for it that somebody has committed, in this process or in another.

use super::{Store, lane};
use crate::harness::{self, sabotaged};
use crate::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, fence};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the stamp is looked at while somebody waits: one load from memory, so that other processes' commits show
/// within a few milliseconds.
const EVERY: Duration = Duration::from_millis(4);

/// Wakes one who waits.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// Those who wait for the next commit.
pub(crate) struct Pulse {
    inner: Mutex<Inner>,
    moved: Condvar,
    /// How many there are, so that a commit for which nobody waits costs nothing.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    waiters: Vec<Waiter>,
    next: u64,
    thread: Option<JoinHandle<()>>,
    stopped: bool,
}

struct Waiter {
    id: u64,
    /// The stamp that it has seen.
    seen: u64,
    wake: Wake,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), moved: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `wake` once the stamp is another than `seen`, or the store is closed: perhaps at once, in this thread.
    /// Answers what takes it back.
    pub(crate) fn wait(store: &Arc<Store>, seen: u64, wake: Wake) -> u64 {
        let pulse = &store.pulse;
        let mut inner = pulse.lock();
        let id = inner.next;
        inner.next += 1;
        inner.waiters.push(Waiter { id, seen, wake });
        pulse.waiting.store(inner.waiters.len(), Ordering::Relaxed);
        let stopped = inner.stopped;
        if !stopped && inner.thread.is_none() && !harness::one_thread() {
            let of = Arc::downgrade(store);
            // Without a thread this process' own commits still wake.
            inner.thread = lane::start("llmspell-pulse", move || watch(&of)).ok();
        }
        if inner.waiters.len() == 1 {
            pulse.moved.notify_one();
        }
        drop(inner);
        // Whoever commits looks for waiters after it has changed the stamp; here it is the other way round.
        fence(Ordering::SeqCst);
        if stopped {
            pulse.beat(None);
        } else {
            pulse.beat(Some(store.stamp()));
        }
        id
    }

    /// Takes back a wait.
    pub(crate) fn forget(&self, id: u64) {
        let mut inner = self.lock();
        let place = inner.waiters.iter().position(|waiter| waiter.id == id);
        let forgotten = place.map(|place| inner.waiters.swap_remove(place));
        self.waiting.store(inner.waiters.len(), Ordering::Relaxed);
        drop(inner);
        drop(forgotten);
    }

    /// Wakes all who have seen another stamp than this; without one, everybody.
    pub(crate) fn beat(&self, stamp: Option<u64>) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut inner = self.lock();
        let woken: Vec<Waiter> =
            inner.waiters.extract_if(.., |waiter| stamp.is_none_or(|stamp| waiter.seen != stamp)).collect();
        self.waiting.store(inner.waiters.len(), Ordering::Relaxed);
        drop(inner);
        for waiter in woken {
            (waiter.wake)();
        }
    }

    /// Wakes everybody and ends the thread.
    pub(crate) fn stop(&self) {
        let thread = {
            let mut inner = self.lock();
            inner.stopped = true;
            self.moved.notify_one();
            inner.thread.take()
        };
        self.beat(None);
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Looks at the stamp as long as somebody waits.
fn watch(store: &Weak<Store>) {
    loop {
        let Some(store) = store.upgrade() else { return };
        let pulse = &store.pulse;
        let mut inner = pulse.lock();
        while inner.waiters.is_empty() && !inner.stopped {
            inner = pulse.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.stopped {
            return;
        }
        drop(inner);
        if !sabotaged("no-foreign-wake") {
            pulse.beat(Some(store.stamp()));
        }
        drop(store);
        std::thread::sleep(EVERY);
    }
}

//! The sweeper: a thread that takes away keys whose time has run out, soon after it has, so that watches and the history learn of it.
//! Reads do not depend on it.

use super::request::{Applied, Change, Request};
use super::{Store, lane};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{Result, harness, limits};
use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two batches, so that writers come first.
const BREATH: Duration = Duration::from_millis(1);
/// After something failed, such as on a full disk.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Wakes the sweeper when it has something to do.
#[derive(Default)]
pub(crate) struct Sweeper {
    inner: Mutex<Inner>,
    moved: Condvar,
}

#[derive(Default)]
struct Inner {
    thread: Option<JoinHandle<()>>,
    /// When the next key expires, as far as this process knows.
    due_ms: Option<i64>,
    stopped: bool,
}

impl Sweeper {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when a key expires. `store` is that of the sweeper.
    pub(crate) fn expect(&self, store: &Weak<Store>, expires_ms: Option<i64>) {
        let Some(time_ms) = expires_ms else { return };
        let mut inner = self.lock();
        if inner.stopped || inner.due_ms.is_some_and(|due_ms| due_ms <= time_ms) {
            return;
        }
        inner.due_ms = Some(time_ms);
        if inner.thread.is_none() && !harness::one_thread() {
            let of = Weak::clone(store);
            // Without a thread keys expire all the same, and whoever writes them next tells of it.
            inner.thread = lane::start("llmspell-sweep", move || watch(&of)).ok();
        }
        self.moved.notify_one();
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        let thread = {
            let mut inner = self.lock();
            inner.stopped = true;
            self.moved.notify_one();
            inner.thread.take()
        };
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    /// Waits until something is due; says whether the store goes on.
    fn wait(&self, store: &Store, at_least: Duration) -> bool {
        let start = Instant::now();
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return false;
            }
            // Other processes set keys, too.
            let interval = store.config().retention.cleanup_interval;
            let due = inner.due_ms.map_or(interval, |due_ms| {
                Duration::from_millis(u64::try_from(due_ms - store.clock_ms()).unwrap_or(0)).min(interval)
            });
            let Some(left) = due.max(at_least).checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                inner.due_ms = None;
                return true;
            };
            inner = self.moved.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn watch(store: &Weak<Store>) {
    let mut at_least = Duration::ZERO;
    loop {
        let Some(store) = store.upgrade() else { return };
        if !store.sweeper.wait(&store, at_least) {
            return;
        }
        at_least = match store.sweep() {
            Ok(_) => BREATH,
            Err(_) => AFTER_FAILURE,
        };
    }
}

impl Store {
    /// Takes away the keys whose time has run out; says how many. Then the sweeper knows of the next.
    pub(crate) fn sweep(self: &Arc<Self>) -> Result<u64> {
        let mut count = 0;
        let mut next_ms = None;
        loop {
            self.engine.read(&mut |reads| {
                next_ms = reads.next_expiry()?;
                Ok(())
            })?;
            if next_ms.is_none_or(|next_ms| next_ms > self.clock_ms()) {
                break;
            }
            let request = Request { changes: vec![Change::Sweep], ..Request::default() };
            let Applied::Swept(swept) = self.submit(request)?.only()? else { break };
            count += swept;
            if swept == limits::SWEEP_ROWS as u64 {
                std::thread::sleep(BREATH);
            }
        }
        self.sweeper.expect(&Arc::downgrade(self), next_ms);
        Ok(count)
    }
}

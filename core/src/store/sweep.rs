//! The sweeper: a thread that takes away keys whose time has run out, soon after it has, so that watches and the history learn of
//! it, and trims the past. Reads do not depend on it.

use super::request::{Applied, Change, Request};
use super::trim::Held;
use super::{Store, lane};
use crate::{Error, Result, harness, interruptible, limits};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two batches, so that writers come first.
pub(super) const BREATH: Duration = Duration::from_millis(1);
/// Between two times that the past is trimmed after many changes, at least; or as long as the first of them took.
const TRIM_PAUSE: Duration = Duration::from_millis(100);
/// After something failed, such as on a full disk.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Wakes the sweeper when it has something to do.
#[derive(Default)]
pub(crate) struct Sweeper {
    inner: Mutex<Inner>,
    moved: Condvar,
    /// Changes that were not looked at when the past was last trimmed, or that this process has made since.
    changes: AtomicUsize,
    /// The thread is to end, also where it waits for another writer.
    ends: Arc<AtomicBool>,
    held: Mutex<Option<Held>>,
}

/// What the sweeper has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Sweep,
    Trim,
}

#[derive(Default)]
struct Inner {
    thread: Option<JoinHandle<()>>,
    /// When the next key expires, as far as this process knows.
    due_ms: Option<i64>,
    /// When the past was last trimmed, and how long that took.
    trimmed: Option<(Instant, Duration)>,
    stopped: bool,
}

thread_local! {
    /// That of the sweeper whose thread this is.
    static ENDS: RefCell<Arc<AtomicBool>> = RefCell::default();
}

/// Whether the thread is to end.
fn ends() -> bool {
    ENDS.with_borrow(|ends| ends.load(Ordering::Relaxed))
}

impl Sweeper {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What trimming has passed over.
    pub(super) fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when a key expires. `store` is that of the sweeper.
    pub(crate) fn expect(&self, store: &Weak<Store>, expires_ms: Option<i64>) {
        let Some(time_ms) = expires_ms else { return };
        let mut inner = self.lock();
        if inner.stopped || inner.due_ms.is_some_and(|due_ms| due_ms <= time_ms) {
            return;
        }
        inner.due_ms = Some(time_ms);
        inner.start(store);
        self.moved.notify_one();
    }

    /// Tells of changes that nobody has looked at for what is to be trimmed.
    pub(super) fn left(&self, changes: i64) {
        self.changes.fetch_max(usize::try_from(changes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts changes of this process.
    pub(crate) fn count(&self, store: &Weak<Store>, changes: usize) {
        let before = self.changes.fetch_add(changes, Ordering::Relaxed);
        if before == 0 || before < limits::TRIM_AFTER && before + changes >= limits::TRIM_AFTER {
            let mut inner = self.lock();
            if !inner.stopped {
                inner.start(store);
                self.moved.notify_one();
            }
        }
    }

    /// Has the past trimmed at once, since much has come to it that nobody has looked at.
    pub(crate) fn hasten(&self, store: &Weak<Store>) {
        self.changes.store(limits::TRIM_AFTER, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.trimmed = Instant::now().checked_sub(TRIM_PAUSE).map(|then| (then, Duration::ZERO));
        inner.start(store);
        self.moved.notify_one();
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.ends.store(true, Ordering::Relaxed);
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

    /// Refuses to go on when the thread is to end.
    pub(super) fn check(&self) -> Result<()> {
        if self.lock().stopped { Err(Error::closed("the store")) } else { Ok(()) }
    }

    /// Waits for something to do; nothing when the store is closed.
    fn wait(&self, store: &Store, at_least: Duration) -> Option<Task> {
        let start = Instant::now();
        let interval = store.config().retention.cleanup_interval;
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return None;
            }
            let (trimmed, took) = *inner.trimmed.get_or_insert((start, Duration::ZERO));
            let mut trim_in = interval.saturating_sub(trimmed.elapsed());
            if self.changes.load(Ordering::Relaxed) >= limits::TRIM_AFTER {
                trim_in = took.max(TRIM_PAUSE).saturating_sub(trimmed.elapsed()).min(trim_in);
            }
            let sweep_in =
                inner.due_ms.map(|due_ms| Duration::from_millis(u64::try_from(due_ms - store.clock_ms()).unwrap_or(0)));
            let left = sweep_in.unwrap_or(trim_in).min(trim_in).max(at_least.saturating_sub(start.elapsed()));
            if !left.is_zero() {
                inner = self.moved.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            } else if sweep_in.is_some_and(|left| left.is_zero()) {
                inner.due_ms = None;
                return Some(Task::Sweep);
            } else {
                self.changes.store(0, Ordering::Relaxed);
                return Some(Task::Trim);
            }
        }
    }
}

impl Inner {
    fn start(&mut self, store: &Weak<Store>) {
        if self.thread.is_none() && !harness::one_thread() {
            let of = Weak::clone(store);
            // Without a thread keys expire all the same, and whoever writes them next tells of it.
            self.thread = lane::start("llmspell-sweep", move || watch(&of)).ok();
        }
    }
}

fn watch(store: &Weak<Store>) {
    let Some(flag) = store.upgrade().map(|store| Arc::clone(&store.sweeper.ends)) else { return };
    ENDS.set(flag);
    interruptible(ends, || work(store));
}

fn work(store: &Weak<Store>) {
    let mut at_least = Duration::ZERO;
    loop {
        let Some(store) = store.upgrade() else { return };
        let Some(task) = store.sweeper.wait(&store, at_least) else { return };
        // Other processes set keys, too, so whoever trims also looks for those.
        let start = Instant::now();
        let done = store.sweep().and_then(|_| if task == Task::Trim { store.trim(false) } else { Ok(0) });
        if task == Task::Trim {
            store.sweeper.lock().trimmed = Some((Instant::now(), start.elapsed()));
        }
        at_least = if done.is_ok() { BREATH } else { AFTER_FAILURE };
    }
}

impl Store {
    /// Takes away the keys whose time has run out; says how many. Then the sweeper knows of the next.
    pub(crate) fn sweep(self: &Arc<Self>) -> Result<u64> {
        let mut count = 0;
        let mut next_ms = None;
        loop {
            self.sweeper.check()?;
            self.engine.read(&mut |reads| {
                next_ms = reads.next_expiry()?;
                Ok(())
            })?;
            if next_ms.is_none_or(|next_ms| next_ms > self.clock_ms()) {
                break;
            }
            let request = Request { changes: vec![Change::Sweep], ..Request::default() };
            harness::point("sweep.begun");
            let Applied::Swept(swept) = self.submit(request)?.only()? else { break };
            harness::point("sweep.done");
            count += swept;
            if swept == limits::SWEEP_ROWS as u64 {
                std::thread::sleep(BREATH);
            }
        }
        self.sweeper.expect(&Arc::downgrade(self), next_ms);
        Ok(count)
    }
}

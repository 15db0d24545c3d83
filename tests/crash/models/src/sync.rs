//! Loom's locks, with condition variables that can be made deaf.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
pub(crate) use loom::sync::{Mutex, MutexGuard};
use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

/// Std's form of a thread's own variable, for a thread of the model.
macro_rules! own {
    (static $name:ident: $type:ty = const { $value:expr };) => {
        loom::thread_local! { static $name: $type = $value; }
    };
}
pub(crate) use own;

/// A fence, unless it is left out.
pub(crate) fn fence(order: Ordering) {
    if !super::sabotaged("no-fence") {
        loom::sync::atomic::fence(order);
    }
}

/// A condition variable. Planted bugs lose its wake-ups, as code does that forgets one.
pub(crate) struct Condvar {
    inner: loom::sync::Condvar,
    /// The first wait with a bound has ended. Std's atomic: no step of the model.
    timed_out: std::sync::atomic::AtomicBool,
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self { inner: loom::sync::Condvar::new(), timed_out: std::sync::atomic::AtomicBool::new(false) }
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.inner.wait(guard)
    }

    /// The first wait ends at once and all others when they are woken: loom has no clock, and the end of a bound is one more
    /// moment among those that it tries anyway.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> LockResult<Option<MutexGuard<'a, T>>> {
        if self.timed_out.swap(true, Ordering::Relaxed) {
            return self.wait(guard).map(Some).map_err(|poisoned| PoisonError::new(Some(poisoned.into_inner())));
        }
        drop(guard);
        Ok(None)
    }

    pub(crate) fn notify_one(&self) {
        if !super::sabotaged("lost-notify-one") {
            self.inner.notify_one();
        }
    }

    pub(crate) fn notify_all(&self) {
        if !super::sabotaged("lost-notify-all") {
            self.inner.notify_all();
        }
    }
}

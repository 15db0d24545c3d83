//! Loom's locks, with condition variables that can be made deaf.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use loom::sync::{Mutex, MutexGuard};
use std::sync::LockResult;

/// A condition variable. Planted bugs lose its wake-ups, as code does that forgets one.
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub(crate) fn notify_one(&self) {
        if !super::sabotaged("lost-notify-one") {
            self.0.notify_one();
        }
    }

    pub(crate) fn notify_all(&self) {
        if !super::sabotaged("lost-notify-all") {
            self.0.notify_all();
        }
    }
}

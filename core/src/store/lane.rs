//! Threads for calls that must not wait where they are made. They are started when first needed and end with the store.

use super::Store;
use crate::harness::sabotaged;
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

/// Something to do for a store.
pub(crate) type Job = Box<dyn FnOnce(&Arc<Store>) + Send>;

/// A queue of jobs and the threads that do them.
pub(crate) struct Lane {
    inner: Mutex<Inner>,
    moved: Condvar,
    name: &'static str,
    most: usize,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for a job.
    idle: usize,
    stopped: bool,
}

impl Lane {
    /// At most `most` threads of that name.
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        Self { inner: Mutex::default(), moved: Condvar::new(), name, most }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do the job, after those before it; hands it back when there is none.
    ///
    /// `which` tells the lane of a store, so that threads find theirs.
    pub(crate) fn run(which: fn(&Store) -> &Self, store: &Arc<Store>, job: Job) -> Result<(), Job> {
        let lane = which(store);
        let mut inner = lane.lock();
        if inner.stopped {
            return Err(job);
        }
        if inner.idle <= inner.jobs.len() && inner.threads.len() < lane.most {
            let of = Arc::clone(store);
            if let Ok(thread) = start(lane.name, move || which(&of).work(&of)) {
                inner.threads.push(thread);
            } else if inner.threads.is_empty() {
                return Err(job);
            }
        }
        inner.jobs.push_back(job);
        if inner.idle > 0 {
            lane.moved.notify_one();
        }
        Ok(())
    }

    fn work(&self, store: &Arc<Store>) {
        let mut inner = self.lock();
        loop {
            if inner.stopped && sabotaged("forget-at-closing") {
                return;
            }
            if let Some(job) = inner.jobs.pop_front() {
                drop(inner);
                // Whoever gave the job has its own answer to a panic.
                let _ = catch_unwind(AssertUnwindSafe(|| job(store)));
                inner = self.lock();
            } else if inner.stopped {
                return;
            } else {
                inner.idle += 1;
                inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
                inner.idle -= 1;
            }
        }
    }

    /// Does what was handed in already, takes nothing more, and waits for the threads to end; one of them may be the caller.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut inner = self.lock();
            inner.stopped = true;
            self.moved.notify_all();
            std::mem::take(&mut inner.threads)
        };
        let here = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != here) {
            let _ = thread.join();
        }
    }
}

/// Starts a thread that gets no signals: a host may count on them to wake a thread of its own.
#[allow(unsafe_code)]
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    // SAFETY: sets of signals are plain data, filled before they are read; a mask belongs to the calling thread, which gets
    // its own back.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let started = std::thread::Builder::new().name(name.into()).spawn(work);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        started
    }
}

/// Does something once in a thread of its own; where none can be started, in this one.
pub(crate) fn elsewhere(name: &str, work: impl FnOnce() + Send + 'static) {
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let there = Arc::clone(&work);
    let started = start(name, move || {
        if let Some(work) = take(&there) {
            work();
        }
    });
    if started.is_err()
        && let Some(work) = take(&work)
    {
        work();
    }
}

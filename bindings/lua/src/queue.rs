//! What calls that nobody waits for have come to: the core's threads put it here, Lua's own thread fetches it. No thread of
//! the core ever touches Lua.

use crate::bell::Bell;
use crate::call::{Call, Returned};
use crate::error::{self, Failure};
use crate::handle::{self, Object};
use crate::outcome::Outcome;
use crate::stack::{Place, Stack};
use crate::waiting;
use llmspell_state_persistence::{Error, ErrorKind};
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The queue of a Lua state.
static QUEUE: Place = Place::new();

/// Not the number of a call. Told with the number of the last call that will have no answer, since a parent process made it.
const NOBODY: u64 = 0;

/// What a call came to.
type Told = Result<Outcome, Error>;

/// Answers by the number of their call.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    bell: Bell,
    alarm: Condvar,
    /// How many calls there were: the number of the newest. Not under the lock, which a fork may find taken.
    calls: AtomicU64,
    /// The process that made it: the bell is shared with forks, which must leave it alone.
    process: u32,
    made: Instant,
}

#[derive(Default)]
struct Inner {
    told: VecDeque<(u64, Told)>,
    rings: bool,
    /// When the bell is to ring even if nothing was told.
    alarm: Option<Instant>,
    has_thread: bool,
    closed: bool,
}

impl Queue {
    /// A queue that counts on from the calls of another one.
    fn new(calls: u64) -> Result<Self, Failure> {
        let bell = Bell::new().map_err(|e| Error::new(ErrorKind::Io, format!("no event descriptor: {e}")))?;
        let process = std::process::id();
        let calls = AtomicU64::new(calls);
        Ok(Self { inner: Mutex::default(), bell, alarm: Condvar::new(), calls, process, made: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who will tell what a call came to.
    pub(crate) fn teller(self: &Arc<Self>) -> Teller {
        let id = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        Teller { queue: Arc::clone(self), id, has_told: false }
    }

    fn tell(&self, id: u64, told: Told) {
        let mut inner = self.lock();
        if inner.closed {
            drop(inner);
            return;
        }
        inner.told.push_back((id, told));
        if !mem::replace(&mut inner.rings, true) {
            self.bell.ring();
        }
    }

    /// Rings without having anything to tell.
    fn ring(&self) {
        if !mem::replace(&mut self.lock().rings, true) {
            self.bell.ring();
        }
    }

    /// The next answer. The bell is silent once there is none.
    fn take(&self) -> Option<(u64, Told)> {
        let mut inner = self.lock();
        let next = inner.told.pop_front();
        if next.is_none() && mem::replace(&mut inner.rings, false) {
            self.bell.silence();
        }
        next
    }

    /// Rings at that time; another alarm replaces it.
    fn set_alarm(self: &Arc<Self>, at: Option<Instant>) {
        let mut inner = self.lock();
        inner.alarm = at;
        self.alarm.notify_one();
        if at.is_some() && !mem::replace(&mut inner.has_thread, true) {
            let queue = Arc::clone(self);
            drop(inner);
            if !quietly("llmspell-alarm", move || queue.watch_clock()) {
                // Too often rather than never.
                self.lock().has_thread = false;
                self.ring();
            }
        }
    }

    /// Rings the bell at the time of the alarm, until the queue is closed.
    fn watch_clock(&self) {
        let mut inner = self.lock();
        while !inner.closed {
            let left = inner.alarm.map(|at| at.saturating_duration_since(Instant::now()));
            inner = match left {
                Some(Duration::ZERO) => {
                    inner.alarm = None;
                    if !mem::replace(&mut inner.rings, true) {
                        self.bell.ring();
                    }
                    inner
                }
                Some(left) => self.alarm.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.alarm.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Lets go of everything: Lua ends.
    fn close(&self) {
        if self.is_of_parent() {
            return;
        }
        let told = {
            let mut inner = self.lock();
            inner.closed = true;
            self.alarm.notify_one();
            mem::take(&mut inner.told)
        };
        // Answers can be handles, whose end may close a store: not under the lock.
        drop(told);
    }

    fn is_of_parent(&self) -> bool {
        self.process != std::process::id()
    }
}

/// Runs `work` in a thread that gets no signals: a host may count on them to wake a thread of its own. Says whether there is
/// one.
pub(crate) fn quietly(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    // SAFETY: sets of signals are plain data, filled before they are read; a mask belongs to the calling thread, which gets
    // its own back.
    unsafe {
        let (mut all, mut before) = (mem::zeroed::<libc::sigset_t>(), mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let started = std::thread::Builder::new().name(name.into()).spawn(work);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        started.is_ok()
    }
}

/// The one who tells what a call came to, once.
pub(crate) struct Teller {
    queue: Arc<Queue>,
    id: u64,
    has_told: bool,
}

impl Teller {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn tell(mut self, told: Told) {
        self.has_told = true;
        self.queue.tell(self.id, told);
    }
}

/// Nobody must wait for an answer that cannot come.
impl Drop for Teller {
    fn drop(&mut self) {
        if !self.has_told {
            let gone = Error::new(ErrorKind::Cancelled, "what was waited for went away before it had an answer");
            self.queue.tell(self.id, Err(gone));
        }
    }
}

/// The queue as Lua holds it: when Lua ends, nothing more is told.
pub(crate) struct Held(Arc<Queue>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The queue of this Lua; a fork gets one of its own.
pub(crate) fn current(stack: Stack) -> Result<Arc<Queue>, Failure> {
    let before = known(stack);
    if let Some(queue) = &before
        && !queue.is_of_parent()
    {
        return Ok(Arc::clone(queue));
    }
    let calls = before.map_or(0, |parent| parent.calls.load(Ordering::Relaxed));
    let queue = Arc::new(Queue::new(calls)?);
    if calls > 0 {
        queue.tell(NOBODY, Ok(Outcome::Count(calls)));
    }
    handle::push(stack, Object::Queue(Held(Arc::clone(&queue))))?;
    stack.protected(1, 0, &|stack: Stack| stack.set_place(&QUEUE))?;
    Ok(queue)
}

fn known(stack: Stack) -> Option<Arc<Queue>> {
    stack.push_place(&QUEUE);
    let queue = handle::held_queue(stack, -1).map(|held| Arc::clone(&held.0));
    stack.pop(1);
    queue
}

/// `take()`: the number of the next call that is done, whether it went well, and its results or its error.
pub(crate) fn take(call: &Call) -> Returned {
    call.set_top(0);
    let Some((id, told)) = current(**call)?.take() else { return Ok(0) };
    call.push_count(id);
    call.push_boolean(true);
    let failure = match told {
        Ok(outcome) => match outcome.push(**call) {
            Ok(results) => return Ok(2 + results),
            Err(failure) => failure,
        },
        Err(error) => error.into(),
    };
    // In place of everything else.
    error::push_placeless(call, &failure);
    if call.top() > 1 {
        call.move_top(1);
        call.set_top(1);
    }
    call.push_count(id);
    call.push_boolean(false);
    call.push_copy(1);
    Ok(3)
}

/// `wait(seconds)`: until the bell rings, at most so long; without a time, as long as it takes.
pub(crate) fn wait(call: &Call) -> Returned {
    /// A signal that comes between a look and the next wait must not be slept through.
    const LOOK_MS: u128 = 200;
    let most = call.seconds(1)?;
    let queue = current(**call)?;
    let deadline = most.and_then(|most| Instant::now().checked_add(most));
    waiting::while_not_interrupted(**call, |look| {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up: whoever comes too early would have to come again.
            let ms = left.map_or(LOOK_MS, |left| left.as_nanos().div_ceil(1_000_000).min(LOOK_MS));
            #[allow(clippy::cast_possible_truncation)] // a small number
            queue.bell.wait(ms as i32);
            if queue.lock().rings || left.is_some_and(|left| left.is_zero()) || !look() {
                return;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return;
            }
        }
    })?;
    Ok(0)
}

/// `ring()`: makes the descriptor readable.
pub(crate) fn ring(call: &Call) -> Returned {
    current(**call)?.ring();
    Ok(0)
}

/// `alarm(seconds)`: makes the descriptor readable in so many seconds; without a time, takes that back.
pub(crate) fn alarm(call: &Call) -> Returned {
    let at = call.seconds(1)?.and_then(|after| Instant::now().checked_add(after));
    current(**call)?.set_alarm(at);
    Ok(0)
}

/// `fd()`: the descriptor.
pub(crate) fn fd(call: &Call) -> Returned {
    call.push_integer(current(**call)?.bell.fd().into());
    Ok(1)
}

/// `now()`: seconds of a clock that never goes back.
pub(crate) fn now(call: &Call) -> Returned {
    call.push_float(current(**call)?.made.elapsed().as_secs_f64());
    Ok(1)
}

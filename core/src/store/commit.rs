//! Commit groups: whoever finds the writer free leads, commits what waits together with its own request, and answers
//! everybody. A lone caller pays for no other thread, many callers share one commit and one sync.

use crate::clock::Stopwatch;
use crate::harness::sabotaged;
use crate::interrupt::{Waiting, uninterruptible};
#[cfg(models)]
use crate::models::sync::own as thread_local;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::{Error, limits};
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
#[cfg(not(models))]
use std::time::{Duration, Instant};

/// A group that is waited for has so many requests at least.
#[cfg(not(models))]
const LINGER_FROM: usize = 4;
/// How long it is waited for at most.
#[cfg(not(models))]
const LINGER: Duration = Duration::from_millis(1);
/// How long one who waits looks away. When nobody has come meanwhile, nobody is waited for.
#[cfg(not(models))]
const SLICE: Duration = Duration::from_micros(30);

/// How much a queue and its groups hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) queue_requests: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) group_requests: usize,
    pub(crate) group_bytes: usize,
    pub(crate) leader_groups: usize,
}

/// Whoever commits what the queue gathers.
pub(crate) trait Writer {
    /// The numbers of `limits`, unless a model wants to reach them sooner.
    const BOUNDS: Bounds = Bounds {
        queue_requests: limits::QUEUE_REQUESTS,
        queue_bytes: limits::QUEUE_BYTES,
        group_requests: limits::GROUP_REQUESTS,
        group_bytes: limits::GROUP_BYTES,
        leader_groups: limits::LEADER_GROUPS,
    };
    /// What callers ask for.
    type Request: Default;
    /// What they are told.
    type Answer;
    /// Bytes that wait with a request in the queue.
    fn footprint(request: &Self::Request) -> usize;
    /// Commits a group and answers each request, in their order. Never called twice at once.
    fn commit(&self, group: Vec<Self::Request>) -> Vec<Self::Answer>;
    /// The answer to a request that was taken back.
    fn refused(error: Error) -> Self::Answer;
    /// Whether an answer says that its caller does not want to wait any longer.
    fn is_cancelled(_: &Self::Answer) -> bool {
        false
    }
    /// The answer to a request of which nobody knows what became of it.
    fn unknown() -> Self::Answer;
    /// Has some thread that may wait call [`Commits::lead`]; says whether there is one.
    fn lead_elsewhere(&self) -> bool;
}

/// Gets the answer to a request whose caller does not wait.
pub(crate) type Then<W> = Box<dyn FnOnce(<W as Writer>::Answer) + Send>;

thread_local! {
    // The queue whose leader this thread is while it tells callers that left; 0 for none.
    static TELLING: Cell<usize> = const { Cell::new(0) };
}

/// Requests that wait for the writer.
pub(crate) struct Commits<W: Writer> {
    queue: Mutex<Queue<W>>,
    room: Condvar,
    /// Of groups that were led for callers that left: how many requests they had lately, and how many microseconds the last of
    /// them waited for the disk.
    last: (AtomicUsize, AtomicU64),
}

struct Queue<W: Writer> {
    waiting: VecDeque<Arc<Ticket<W>>>,
    bytes: usize,
    /// Callers for whom there is no room. Waking nobody would still cost a system call.
    outside: usize,
    /// Somebody leads. Whoever waits will be answered or made leader.
    led: bool,
}

/// The place of one request.
struct Ticket<W: Writer> {
    bytes: usize,
    stage: Mutex<Stage<W>>,
    moved: Condvar,
    /// Gets the answer where no thread waits for it, nor can lead.
    then: Option<Mutex<Option<Then<W>>>>,
}

enum Stage<W: Writer> {
    Waiting(W::Request),
    /// In a leader's hands.
    Taken,
    /// The caller leads from now on, its own request first.
    Leads(W::Request),
    Answered(W::Answer),
}

/// Requests in a leader's hands, each with its caller's place.
type Group<W> = Vec<(Arc<Ticket<W>>, <W as Writer>::Request)>;

impl<W: Writer> Ticket<W> {
    fn new(request: W::Request, bytes: usize, then: Option<Then<W>>) -> Arc<Self> {
        let then = then.map(|then| Mutex::new(Some(then)));
        Arc::new(Self { bytes, stage: Mutex::new(Stage::Waiting(request)), moved: Condvar::new(), then })
    }

    fn stage(&self) -> MutexGuard<'_, Stage<W>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<W::Request> {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Waiting(request) => Some(request),
            other => {
                *stage = other;
                None
            }
        }
    }

    fn answer(&self, answer: W::Answer) {
        let Some(then) = &self.then else {
            *self.stage() = Stage::Answered(answer);
            self.moved.notify_one();
            return;
        };
        let then = then.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of whoever is told must not keep the answers of others.
        let _ = catch_unwind(AssertUnwindSafe(|| then.map(|then| then(answer))));
    }

    fn make_leader(&self) {
        let mut stage = self.stage();
        *stage = match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Waiting(request) => Stage::Leads(request),
            other => other,
        };
        self.moved.notify_one();
    }
}

impl<W: Writer> Default for Commits<W> {
    fn default() -> Self {
        let queue = Queue { waiting: VecDeque::new(), bytes: 0, outside: 0, led: false };
        Self { queue: Mutex::new(queue), room: Condvar::new(), last: (AtomicUsize::new(0), AtomicU64::new(0)) }
    }
}

impl<W: Writer> Commits<W> {
    fn queue(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits a request, alone or with others, and tells what came of it.
    pub(crate) fn submit(&self, writer: &W, request: W::Request) -> W::Answer {
        if self.is_telling() {
            // Whoever is told makes a call of its own. Nobody else commits meanwhile, and nobody else could commit this.
            return commit(writer, vec![request]).next().unwrap_or_else(W::unknown);
        }
        let bytes = W::footprint(&request);
        let mut waiting = Waiting::new();
        let mut queue = self.queue();
        while queue.waiting.len() >= W::BOUNDS.queue_requests
            || (queue.bytes + bytes > W::BOUNDS.queue_bytes && queue.bytes > 0)
        {
            queue.outside += 1;
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.outside -= 1;
        }
        if !queue.led {
            queue.led = true;
            drop(queue);
            return self.lead_with(writer, request, bytes);
        }
        let ticket = Ticket::new(request, bytes, None);
        queue.waiting.push_back(Arc::clone(&ticket));
        queue.bytes += bytes;
        drop(queue);
        let mut stage = ticket.stage();
        loop {
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Answered(answer) => return answer,
                Stage::Leads(request) => {
                    drop(stage);
                    return self.lead_with(writer, request, bytes);
                }
                not_yet => *stage = not_yet,
            }
            let Some(most) = Waiting::at_most() else {
                stage = ticket.moved.wait(stage).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(ticket.moved.wait_timeout(stage, most).unwrap_or_else(PoisonError::into_inner));
            // Without the lock: whoever is asked may take time.
            if let Err(error) = waiting.check()
                && self.take_back(&ticket)
            {
                return W::refused(error);
            }
            stage = ticket.stage();
        }
    }

    /// Has a request committed without waiting for it; whoever commits it calls `then`.
    ///
    /// There is always room: a caller that cannot wait would only have to keep its request elsewhere.
    pub(crate) fn post(&self, writer: &W, request: W::Request, then: Then<W>) {
        let bytes = W::footprint(&request);
        let ticket = Ticket::new(request, bytes, Some(then));
        let mut queue = self.queue();
        queue.waiting.push_back(ticket);
        queue.bytes += bytes;
        let is_led = std::mem::replace(&mut queue.led, true);
        drop(queue);
        if !is_led && !writer.lead_elsewhere() {
            self.lead(writer);
        }
    }

    /// Takes a request out of the queue, unless a leader has it already.
    fn take_back(&self, ticket: &Arc<Ticket<W>>) -> bool {
        let mut queue = self.queue();
        let Some(place) = queue.waiting.iter().position(|other| Arc::ptr_eq(other, ticket)) else { return false };
        queue.waiting.remove(place);
        queue.bytes -= ticket.bytes;
        self.let_in(&queue);
        true
    }

    /// Commits the leader's own request with what waits, then a bounded number of groups for others, and hands over.
    fn lead_with(&self, writer: &W, own: W::Request, bytes: usize) -> W::Answer {
        let mut group = self.gather(W::BOUNDS.group_requests - 1, W::BOUNDS.group_bytes.saturating_sub(bytes));
        let mut requests = vec![own];
        requests.extend(group.iter_mut().map(|(_, request)| std::mem::take(request)));
        // Nobody but this caller may be cancelled on its behalf.
        let mut answers =
            if group.is_empty() { commit(writer, requests) } else { uninterruptible(|| commit(writer, requests)) };
        let own = answers.next().unwrap_or_else(W::unknown);
        self.answer(group, answers);
        // Who did not want to wait for its own request must not wait for those of others.
        self.lead_groups(writer, if W::is_cancelled(&own) { 0 } else { W::BOUNDS.leader_groups });
        own
    }

    /// Leads without a request of its own, as [`Writer::lead_elsewhere`] has been asked for.
    pub(crate) fn lead(&self, writer: &W) {
        // At least one: whoever was asked to lead would otherwise only ask again.
        self.lead_groups(writer, W::BOUNDS.leader_groups.max(1));
    }

    /// Commits so many groups for others, and hands over.
    fn lead_groups(&self, writer: &W, groups: usize) {
        let commit_group = |mut group: Group<W>| {
            let (count, started) = (group.len(), Stopwatch::start());
            let requests = group.iter_mut().map(|(_, request)| std::mem::take(request)).collect();
            let answers = uninterruptible(|| commit(writer, requests));
            let expected = self.last.0.load(Ordering::Relaxed);
            self.last.0.store(count.max(expected - expected.div_ceil(4)), Ordering::Relaxed);
            self.last.1.store(u64::try_from(started.waited().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.answer(group, answers);
        };
        for _ in 0..groups {
            self.linger();
            let group = self.gather(W::BOUNDS.group_requests, W::BOUNDS.group_bytes);
            if group.is_empty() {
                break;
            }
            commit_group(group);
        }
        while !self.hand_over(writer) {
            commit_group(self.gather(W::BOUNDS.group_requests, W::BOUNDS.group_bytes));
        }
    }

    /// Waits a moment for those who were answered together last: they tend to come back together. Otherwise the first of them
    /// would be a group alone, and all others wait for its sync. Where a sync takes no time, working on the first while the others
    /// come is faster.
    #[cfg(not(models))]
    fn linger(&self) {
        let (count, micros) = (self.last.0.load(Ordering::Relaxed), self.last.1.load(Ordering::Relaxed));
        if count < LINGER_FROM {
            return;
        }
        let most = Duration::from_micros(micros / 4).min(LINGER);
        let start = Instant::now();
        let mut before = 0;
        loop {
            let waiting = self.queue().waiting.len();
            if waiting >= count || waiting <= before || start.elapsed() >= most {
                return;
            }
            before = waiting;
            std::thread::sleep(SLICE);
        }
    }

    #[cfg(models)]
    #[allow(clippy::unused_self)] // a model has no time to wait for
    fn linger(&self) {}

    /// Takes waiting requests, at least one if there is one, as far as the bounds allow.
    fn gather(&self, most: usize, most_bytes: usize) -> Group<W> {
        let mut queue = self.queue();
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < most
            && let Some(next) = queue.waiting.front()
            && (group.is_empty() || bytes + next.bytes <= most_bytes)
            && let Some(ticket) = queue.waiting.pop_front()
        {
            bytes += ticket.bytes;
            queue.bytes -= ticket.bytes;
            if let Some(request) = ticket.take() {
                group.push((ticket, request));
            }
        }
        self.let_in(&queue);
        group
    }

    /// The first who waits leads next, or another thread if that caller left; if nobody does, the writer is free.
    /// Answers false when there is something to do and nobody else to lead.
    fn hand_over(&self, writer: &W) -> bool {
        let mut queue = self.queue();
        match queue.waiting.pop_front() {
            Some(left) if left.then.is_some() => {
                queue.waiting.push_front(left);
                drop(queue);
                return sabotaged("forget-to-lead") || writer.lead_elsewhere();
            }
            Some(ticket) => {
                queue.bytes -= ticket.bytes;
                if !sabotaged("forget-to-wake") {
                    ticket.make_leader();
                }
            }
            None => queue.led = false,
        }
        self.let_in(&queue);
        true
    }

    fn answer(&self, group: Group<W>, answers: impl Iterator<Item = W::Answer>) {
        let before = TELLING.try_with(|telling| telling.replace(self.name())).unwrap_or_default();
        for ((ticket, _), answer) in group.into_iter().zip(answers) {
            ticket.answer(answer);
        }
        let _ = TELLING.try_with(|telling| telling.set(before));
    }

    /// Whether anybody leads: who commits now will commit what waits, too.
    pub(crate) fn is_led(&self) -> bool {
        self.queue().led
    }

    /// Whether this thread leads and is telling somebody.
    fn is_telling(&self) -> bool {
        TELLING.try_with(Cell::get).is_ok_and(|telling| telling == self.name())
    }

    /// Where it lies, which is another place for every queue.
    fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn let_in(&self, queue: &Queue<W>) {
        if queue.outside > 0 {
            self.room.notify_all();
        }
    }
}

/// Commits a group. Whatever happens there is an answer for everybody: a panic must not leave anybody waiting.
fn commit<W: Writer>(writer: &W, requests: Vec<W::Request>) -> impl Iterator<Item = W::Answer> {
    let answers = catch_unwind(AssertUnwindSafe(|| writer.commit(requests))).unwrap_or_default();
    answers.into_iter().chain(std::iter::repeat_with(W::unknown))
}

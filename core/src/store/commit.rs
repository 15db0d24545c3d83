//! Commit groups: whoever finds the writer free leads, commits what waits together with its own request, and answers
//! everybody. A lone caller pays for no other thread, many callers share one commit and one sync.

use super::Store;
use super::request::{Request, Response};
use crate::{Error, ErrorKind, Result, limits};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Requests that wait for the writer.
#[derive(Default)]
pub(crate) struct Commits {
    queue: Mutex<Queue>,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Ticket>>,
    bytes: usize,
    /// Callers for whom there is no room. Waking nobody would still cost a system call.
    outside: usize,
    /// Somebody leads. Whoever waits will be answered or made leader.
    led: bool,
}

/// The place of one waiting caller.
struct Ticket {
    bytes: usize,
    stage: Mutex<Stage>,
    moved: Condvar,
}

enum Stage {
    Waiting(Request),
    /// In a leader's hands.
    Taken,
    /// The caller leads from now on, its own request first.
    Leads(Request),
    Answered(Result<Response>),
}

impl Ticket {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Request> {
        let mut stage = self.stage();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Waiting(request) => Some(request),
            other => {
                *stage = other;
                None
            }
        }
    }

    fn answer(&self, result: Result<Response>) {
        *self.stage() = Stage::Answered(result);
        self.moved.notify_one();
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

impl Commits {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits a request, alone or with others, and tells what came of it.
    pub(crate) fn submit(&self, store: &Store, request: Request) -> Result<Response> {
        let bytes = request.footprint();
        let mut queue = self.queue();
        while queue.waiting.len() >= limits::QUEUE_REQUESTS
            || (queue.bytes + bytes > limits::QUEUE_BYTES && queue.bytes > 0)
        {
            queue.outside += 1;
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.outside -= 1;
        }
        if !queue.led {
            queue.led = true;
            drop(queue);
            return self.lead(store, request, bytes);
        }
        let ticket = Arc::new(Ticket { bytes, stage: Mutex::new(Stage::Waiting(request)), moved: Condvar::new() });
        queue.waiting.push_back(Arc::clone(&ticket));
        queue.bytes += bytes;
        drop(queue);
        let mut stage = ticket.stage();
        loop {
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Answered(result) => return result,
                Stage::Leads(request) => {
                    drop(stage);
                    return self.lead(store, request, bytes);
                }
                waiting => {
                    *stage = waiting;
                    stage = ticket.moved.wait(stage).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Commits the leader's own request with what waits, then a bounded number of groups for others, and hands over.
    fn lead(&self, store: &Store, own: Request, bytes: usize) -> Result<Response> {
        let mut group = self.gather(limits::GROUP_REQUESTS - 1, limits::GROUP_BYTES.saturating_sub(bytes));
        let mut requests = vec![own];
        requests.extend(group.iter_mut().map(|(_, request)| std::mem::take(request)));
        let mut results = commit(store, requests).into_iter();
        let own = results.next().unwrap_or_else(|| Err(Error::closed("the store")));
        answer(group, results);
        for _ in 0..limits::LEADER_GROUPS {
            let mut group = self.gather(limits::GROUP_REQUESTS, limits::GROUP_BYTES);
            if group.is_empty() {
                break;
            }
            let requests = group.iter_mut().map(|(_, request)| std::mem::take(request)).collect();
            let results = commit(store, requests);
            answer(group, results);
        }
        self.hand_over();
        own
    }

    /// Takes waiting requests, at least one if there is one, as far as the bounds allow.
    fn gather(&self, most: usize, most_bytes: usize) -> Vec<(Arc<Ticket>, Request)> {
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

    /// The first who waits leads next; if nobody does, the writer is free.
    fn hand_over(&self) {
        let mut queue = self.queue();
        match queue.waiting.pop_front() {
            Some(ticket) => {
                queue.bytes -= ticket.bytes;
                ticket.make_leader();
            }
            None => queue.led = false,
        }
        self.let_in(&queue);
    }

    fn let_in(&self, queue: &Queue) {
        if queue.outside > 0 {
            self.room.notify_all();
        }
    }
}

fn answer(group: Vec<(Arc<Ticket>, Request)>, results: impl IntoIterator<Item = Result<Response>>) {
    for ((ticket, _), result) in group.into_iter().zip(results) {
        ticket.answer(result);
    }
}

/// Commits a group. Whatever happens there is an answer for everybody: a panic must not leave anybody waiting.
fn commit(store: &Store, requests: Vec<Request>) -> Vec<Result<Response>> {
    let count = requests.len();
    catch_unwind(AssertUnwindSafe(|| store.commit(requests))).unwrap_or_else(|_| {
        let broken = || {
            Error::new(
                ErrorKind::CommitUnknown,
                "the writer failed unexpectedly; read the keys again to know what is stored",
            )
        };
        (0..count).map(|_| Err(broken())).collect()
    })
}

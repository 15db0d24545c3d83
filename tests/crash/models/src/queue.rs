//! The commit queue: who leads, who is answered, who is let in.

use super::{explore, spawn};
use crate::interruptible;
use crate::store::commit::{Bounds, Commits, Writer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A writer that keeps a list. `ROOM` callers may wait, a group is `GROUP` requests, a leader commits `GROUPS` for others.
#[derive(Default)]
struct List<const ROOM: usize, const GROUP: usize, const GROUPS: usize> {
    /// Std's lock: no step of the model.
    committed: Mutex<Vec<usize>>,
    /// Somebody commits, as a step of the model.
    busy: loom::sync::atomic::AtomicBool,
    /// Two committed at once; told afterwards, since the queue catches panics.
    collided: AtomicBool,
}

/// A request that the writer panics over.
const POISON: usize = 0;

impl<const ROOM: usize, const GROUP: usize, const GROUPS: usize> Writer for List<ROOM, GROUP, GROUPS> {
    const BOUNDS: Bounds = Bounds {
        queue_requests: ROOM,
        queue_bytes: usize::MAX,
        group_requests: GROUP,
        group_bytes: usize::MAX,
        leader_groups: GROUPS,
    };
    type Request = usize;
    /// The request itself, or nothing when it was taken back or nobody knows.
    type Answer = Option<usize>;

    fn footprint(_: &usize) -> usize {
        1
    }

    fn commit(&self, group: Vec<usize>) -> Vec<Option<usize>> {
        if self.busy.swap(true, Ordering::AcqRel) {
            self.collided.store(true, Ordering::Relaxed);
        }
        let poisoned = group.contains(&POISON);
        if !poisoned {
            self.committed.lock().expect("nobody panics with it").extend(&group);
        }
        self.busy.store(false, Ordering::Release);
        // Not by `panic!`, whose message would be printed for every order.
        if poisoned {
            std::panic::resume_unwind(Box::new("poison"));
        }
        group.into_iter().map(Some).collect()
    }

    fn refused(_: crate::Error) -> Option<usize> {
        None
    }

    fn lead_elsewhere(&self) -> bool {
        false
    }

    fn unknown() -> Option<usize> {
        assert!(!super::sabotaged("no-answer"), "the leader forgets the answer");
        None
    }
}

/// A request whose caller does not want to wait.
const IMPATIENT: usize = 9;

/// Submits each caller's requests from a thread of its own, the first from this one.
fn run<const ROOM: usize, const GROUP: usize, const GROUPS: usize>(callers: &'static [&'static [usize]]) {
    type State<const ROOM: usize, const GROUP: usize, const GROUPS: usize> =
        (Commits<List<ROOM, GROUP, GROUPS>>, List<ROOM, GROUP, GROUPS>);
    let shared: Arc<State<ROOM, GROUP, GROUPS>> = Arc::default();
    let call = |requests: &'static [usize]| {
        let shared = Arc::clone(&shared);
        move || -> Vec<Option<usize>> {
            let (commits, list) = &*shared;
            let submit = |request: &usize| match *request {
                IMPATIENT => interruptible(|| true, || commits.submit(list, IMPATIENT)),
                request => commits.submit(list, request),
            };
            requests.iter().map(submit).collect()
        }
    };
    let others: Vec<_> = callers[1..].iter().map(|requests| spawn(call(requests))).collect();
    let mut answers = vec![call(callers[0])()];
    answers.extend(others.into_iter().map(|other| other.join().expect("a caller does not panic")));

    let list = &shared.1;
    assert!(!list.collided.load(Ordering::Relaxed), "two callers led at once");
    let mut committed = list.committed.lock().expect("nobody panics with it").clone();
    let in_groups_with_poison = callers.iter().any(|requests| requests.contains(&POISON));
    let mut told = Vec::new();
    for (requests, answers) in callers.iter().zip(answers) {
        for (request, answer) in requests.iter().zip(answers) {
            if let Some(answer) = answer {
                assert_eq!(answer, *request, "the answer of another request");
                told.push(answer);
            } else {
                let excused = in_groups_with_poison || *request == IMPATIENT;
                assert!(excused, "request {request} has no answer for no reason");
            }
        }
    }
    committed.sort_unstable();
    told.sort_unstable();
    assert_eq!(committed, told, "committed and told so");
}

/// Groups of one and no group for others: every commit is handed over. Three callers, one of whom comes twice.
pub fn hand_over(bug: Option<&'static str>) -> u64 {
    explore(bug, || run::<4, 1, 0>(&[&[1, 4], &[2], &[3]]))
}

/// A leader that commits for others before it hands over.
pub fn lead_for_others(bug: Option<&'static str>) -> u64 {
    explore(bug, || run::<4, 2, 1>(&[&[1, 4], &[2], &[3]]))
}

/// Room for one caller only.
pub fn room(bug: Option<&'static str>) -> u64 {
    explore(bug, || run::<1, 1, 0>(&[&[1], &[2], &[3]]))
}

/// A writer that panics: all of that group are told that nobody knows, all others are committed.
pub fn panic(bug: Option<&'static str>) -> u64 {
    explore(bug, || run::<4, 2, 1>(&[&[POISON], &[2], &[3]]))
}

/// A caller that takes its request back while others lead, or is told that it was too late.
pub fn take_back(bug: Option<&'static str>) -> u64 {
    explore(bug, || run::<4, 2, 1>(&[&[1, 4], &[IMPATIENT], &[3]]))
}

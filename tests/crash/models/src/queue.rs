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
    helper: loom::sync::Mutex<Helper>,
    called: loom::sync::Condvar,
    /// What callers that left were told.
    told: Mutex<Vec<(usize, Option<usize>)>>,
}

/// The thread that leads for callers that left.
#[derive(Default)]
struct Helper {
    is_there: bool,
    /// How often it was asked to lead.
    calls: usize,
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
        let mut helper = self.helper.lock().expect("nobody panics with it");
        if helper.is_there {
            helper.calls += 1;
            self.called.notify_one();
        }
        helper.is_there
    }

    fn unknown() -> Option<usize> {
        assert!(!super::sabotaged("no-answer"), "the leader forgets the answer");
        None
    }
}

/// A request whose caller does not want to wait.
const IMPATIENT: usize = 9;

/// Requests from here on are posted: their callers leave.
const LEFT: usize = 10;

impl<const ROOM: usize, const GROUP: usize, const GROUPS: usize> List<ROOM, GROUP, GROUPS> {
    /// Leads when asked, until nobody will ask any more.
    fn help(&self, commits: &Commits<Self>) {
        loop {
            {
                let mut helper = self.helper.lock().expect("nobody panics with it");
                while helper.calls == 0 && helper.is_there {
                    helper = self.called.wait(helper).expect("nobody panics with it");
                }
                if helper.calls == 0 {
                    return;
                }
                helper.calls -= 1;
            }
            commits.lead(self);
        }
    }

    fn send_helper_home(&self) {
        self.helper.lock().expect("nobody panics with it").is_there = false;
        self.called.notify_one();
    }
}

/// Submits each caller's requests from a thread of its own, the first from this one.
fn run<const ROOM: usize, const GROUP: usize, const GROUPS: usize>(callers: &'static [&'static [usize]]) {
    run_with::<ROOM, GROUP, GROUPS>(callers, false);
}

/// The same, perhaps with a thread that leads for those who left.
fn run_with<const ROOM: usize, const GROUP: usize, const GROUPS: usize>(
    callers: &'static [&'static [usize]],
    with_helper: bool,
) {
    type State<const ROOM: usize, const GROUP: usize, const GROUPS: usize> =
        (Commits<List<ROOM, GROUP, GROUPS>>, List<ROOM, GROUP, GROUPS>);
    let shared: Arc<State<ROOM, GROUP, GROUPS>> = Arc::default();
    let helper = with_helper.then(|| {
        shared.1.helper.lock().expect("nobody panics with it").is_there = true;
        let shared = Arc::clone(&shared);
        spawn(move || shared.1.help(&shared.0))
    });
    let call = |requests: &'static [usize]| {
        let shared = Arc::clone(&shared);
        move || -> Vec<(usize, Option<usize>)> {
            let (commits, list) = &*shared;
            let submit = |request: &usize| match *request {
                IMPATIENT => Some((IMPATIENT, interruptible(|| true, || commits.submit(list, IMPATIENT)))),
                request @ LEFT.. => {
                    let told = Arc::clone(&shared);
                    let tell = move |answer| told.1.told.lock().expect("nobody panics with it").push((request, answer));
                    commits.post(list, request, Box::new(tell));
                    None
                }
                request => Some((request, commits.submit(list, request))),
            };
            requests.iter().filter_map(submit).collect()
        }
    };
    let others: Vec<_> = callers[1..].iter().map(|requests| spawn(call(requests))).collect();
    let mut answers = call(callers[0])();
    answers.extend(others.into_iter().flat_map(|other| other.join().expect("a caller does not panic")));
    let list = &shared.1;
    list.send_helper_home();
    if let Some(helper) = helper {
        helper.join().expect("the helper does not panic");
    }
    answers.append(&mut list.told.lock().expect("nobody panics with it"));

    assert!(!list.collided.load(Ordering::Relaxed), "two callers led at once");
    let mut committed = list.committed.lock().expect("nobody panics with it").clone();
    let in_groups_with_poison = callers.iter().any(|requests| requests.contains(&POISON));
    let mut told = Vec::new();
    let mut asked: Vec<usize> = callers.concat();
    for (request, answer) in &answers {
        if let Some(answer) = answer {
            assert_eq!(answer, request, "the answer of another request");
            told.push(*answer);
        } else {
            let excused = in_groups_with_poison || *request == IMPATIENT;
            assert!(excused, "request {request} has no answer for no reason");
        }
    }
    let mut answered: Vec<usize> = answers.iter().map(|(request, _)| *request).collect();
    asked.sort_unstable();
    answered.sort_unstable();
    assert_eq!(answered, asked, "who was answered and who asked");
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

/// Callers that left and one that waits hand over to one another, with a thread that leads for those who left.
pub fn left(bug: Option<&'static str>) -> u64 {
    explore(bug, || run_with::<4, 1, 0>(&[&[10, 1], &[11]], true))
        + explore(bug, || run_with::<4, 2, 1>(&[&[10, 1], &[2, 11]], true))
}

/// Only callers that left.
pub fn all_left(bug: Option<&'static str>) -> u64 {
    explore(bug, || run_with::<4, 1, 0>(&[&[10, 12], &[11]], true))
}

/// The same where no thread can be had.
pub fn left_alone(bug: Option<&'static str>) -> u64 {
    explore(bug, || run_with::<4, 1, 0>(&[&[10, 1], &[2, 11], &[12]], false))
}

/// A writer that panics over a request whose caller left: its group is told that nobody knows, all others are committed.
pub fn left_panic(bug: Option<&'static str>) -> u64 {
    explore(bug, || run_with::<4, 2, 1>(&[&[10, POISON], &[11]], true))
}

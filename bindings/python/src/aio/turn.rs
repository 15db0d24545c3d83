//! How much of what there is to do a loop does in one turn. Timers wait for all of it.

use super::queue::Outcome;
use std::collections::VecDeque;

/// Calls that tasks hand to the core themselves in one turn. A thousand tasks that begin at once make a thousand calls
/// before any timer has its turn: all but the first ones only line up, without waking threads that would take the processor
/// from the loop, or its locks.
const AT_ONCE: usize = 64;

/// Calls out of that line which are handed over together when a turn ends. That takes no more than the core's lock for each.
const TOGETHER: usize = 512;

/// Makes a call.
type Begin = Box<dyn FnOnce() + Send>;

/// What is left for the turns to come, in its order.
#[derive(Default)]
pub(super) struct Turn {
    begun: usize,
    calls: VecDeque<Begin>,
    outcomes: VecDeque<(u64, Outcome)>,
}

impl Turn {
    /// Hands a call back if it is to be made now, or keeps it.
    pub(super) fn begin<C: FnOnce() + Send + 'static>(&mut self, call: C) -> Option<C> {
        if self.calls.is_empty() && self.begun < AT_ONCE {
            self.begun += 1;
            return Some(call);
        }
        self.calls.push_back(Box::new(call));
        None
    }

    /// The next outcome, of `more` when there is none left.
    pub(super) fn outcome(&mut self, more: impl FnOnce() -> VecDeque<(u64, Outcome)>) -> Option<(u64, Outcome)> {
        if self.outcomes.is_empty() {
            self.outcomes = more();
        }
        self.outcomes.pop_front()
    }

    /// Ends a turn, with these calls.
    pub(super) fn end(&mut self) -> Vec<Begin> {
        self.begun = 0;
        self.calls.drain(..self.calls.len().min(TOGETHER)).collect()
    }

    /// Whether something is left.
    pub(super) fn has_more(&self) -> bool {
        !self.calls.is_empty() || !self.outcomes.is_empty()
    }
}

//! Forks of scopes, and merging back what has come of them.
//!
//! The core tells which conflicts are open, the script answers each, and the core merges with the answers: no thread of the
//! core ever calls the script, and where it can, its function may yield.

use crate::call::{Call, Returned, function};
use crate::error::Failure;
use crate::handle::{self, Class, Functions, MARKER, Object};
use crate::history::readable;
use crate::outcome::Outcome;
use crate::stack::Stack;
use crate::verb::{Verb, post, wait};
use crate::{iterators, later, value};
use llmspell_state_persistence as state;
use llmspell_state_persistence::{MergeConflict, Merged, Resolution, Result as Answer, Scope};
use std::os::raw::c_int;

/// The methods of a state and a scope.
pub(crate) static TREE: Functions =
    &[function!("fork", |call| wait(call, fork)), function!("merge_from", reading late merge_from)];

/// The same for who does not wait. What `merge_from` begins goes on with every conflict answered, and `merge_again`.
pub(crate) static LATER: Functions = &[
    function!("fork", |call| post(call, fork)),
    function!("merge_from", |call| begin(call, Merging::new(call)?)),
    function!("merge_again", merge_again),
    function!("conflict", conflict),
    function!("answer", reading late answer),
];

/// What a script answers a conflict with, if not with a value.
pub(crate) struct Marker {
    pub(crate) name: &'static str,
    resolution: Resolution,
}

pub(crate) static MARKERS: [Marker; 3] = [
    Marker { name: "ours", resolution: Resolution::Ours },
    Marker { name: "theirs", resolution: Resolution::Theirs },
    Marker { name: "deleted", resolution: Resolution::Delete },
];

pub(crate) static MARKER_CLASS: Class = Class {
    place: &MARKER,
    name: "Marker",
    metamethods: &[&[function!("__gc", handle::collect), function!("__tostring", tostring)]],
    methods: &[],
};

/// A merge that is under way.
pub(crate) struct Merging {
    merging: state::Merging,
    /// Where there is no function, conflicts are left alone.
    fork: Option<Scope>,
}

/// What came of one more attempt.
pub(crate) enum Round {
    Done(Merged),
    Open(Box<Merging>),
}

impl Merging {
    /// `merge_from(fork, resolve)`
    fn new(call: &Call) -> Result<Box<Self>, Failure> {
        let scope = call.own_scope()?;
        let fork = match handle::object(call, 2) {
            Some(Object::Scope(fork)) => fork.clone(),
            Some(Object::State(state)) => (**state).clone(),
            _ => return Err(call.expected(2, "Scope")),
        };
        let has_resolver = !call.is_missing(3);
        if has_resolver {
            call.check_function(3)?;
        }
        Ok(Box::new(Self { merging: scope.merging(&fork), fork: Some(fork).filter(|_| !has_resolver) }))
    }

    fn attempt(mut self: Box<Self>) -> Answer<Round> {
        if let Some(fork) = &self.fork {
            return self.merging.scope().merge_from(fork).map(Round::Done);
        }
        Ok(self.merging.attempt()?.map_or_else(|| Round::Open(self), Round::Done))
    }

    /// Answers the conflict that comes next with the value at `index`; nil leaves it alone.
    fn answer(&mut self, call: &Call, index: c_int) -> Result<(), Failure> {
        let resolution = if call.is_missing(index) {
            None
        } else if let Some(Object::Marker(marker)) = handle::object(call, index) {
            Some(marker.resolution.clone())
        } else {
            Some(Resolution::Value(value::read(call, index, self.merging.scope().max_value_bytes())?))
        };
        self.merging.answer(resolution);
        Ok(())
    }
}

/// `fork(name, new_name)`
fn fork(call: &Call) -> Verb {
    let (scope, name, new_name) = (call.own_scope()?, call.text(2)?.to_owned(), call.text(3)?.to_owned());
    Ok(scope.call(move |scope| scope.fork(&name, &new_name).map(|fork| Outcome::Handle(Object::Scope(fork)))))
}

fn merge_from(call: &Call) -> Returned {
    let mut merging = Merging::new(call)?;
    call.set_top(3);
    loop {
        merging = match merging.attempt()? {
            Round::Done(merged) => return Outcome::Merged(merged).push(**call),
            Round::Open(merging) => merging,
        };
        while let Some(conflict) = merging.merging.open() {
            call.set_top(3);
            call.push_copy(3);
            push_conflict(**call, conflict)?;
            call.call_back(1, 1)?;
            call.make_room()?;
            merging.answer(call, call.top())?;
        }
    }
}

/// Has one more attempt made, which comes to a table, or to the merge again where conflicts are open.
fn begin(call: &Call, merging: Box<Merging>) -> Returned {
    let made = merging.merging.scope().clone().call(move |_| merging.attempt());
    later::begin(call, made, |round| match round {
        Round::Done(merged) => Outcome::Merged(merged),
        Round::Open(merging) => Outcome::Handle(Object::Merging(Some(merging))),
    })
}

/// The merge at index 1, for as long as Lua does not run.
fn merging(call: &Call) -> Result<&mut Option<Box<Merging>>, Failure> {
    match handle::object(call, 1) {
        Some(Object::Merging(merging)) => Ok(merging),
        _ => Err(iterators::gone()),
    }
}

fn merge_again(call: &Call) -> Returned {
    let merging = merging(call)?.take().ok_or_else(iterators::gone)?;
    begin(call, merging)
}

/// The conflict that is to be answered next, or nil.
fn conflict(call: &Call) -> Returned {
    // A copy: a finalizer may take the merge away meanwhile.
    match merging(call)?.as_ref().and_then(|merging| merging.merging.open().cloned()) {
        Some(conflict) => push_conflict(**call, &conflict)?,
        None => call.push_nil(),
    }
    Ok(1)
}

/// `answer(merging, value)`
fn answer(call: &Call) -> Returned {
    call.set_top(2);
    if let Some(mut merging) = merging(call)?.take() {
        merging.answer(call, 2)?;
        *self::merging(call)? = Some(merging);
    }
    Ok(0)
}

/// The conflict as a table; sides that are not there are not in it.
fn push_conflict(stack: Stack, conflict: &MergeConflict) -> Result<(), Failure> {
    let [base, ours, theirs] = [&conflict.base, &conflict.ours, &conflict.theirs].map(|side| readable(side.as_ref()));
    let (base, ours, theirs) = (base?, ours?, theirs?);
    stack.protected(0, 1, &|stack: Stack| {
        value::make_place(stack, "path", &conflict.path, &conflict.key);
        for (name, tape) in [("base", base), ("ours", ours), ("theirs", theirs)] {
            if let Some(tape) = tape {
                value::make(stack, tape);
                stack.set_field(1, name);
            }
        }
    })
}

/// What came of a merge, as a table.
pub(crate) fn push_merged(stack: Stack, merged: &Merged) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 3);
        for (name, count) in [("version", merged.version), ("keys", merged.keys)] {
            stack.push_count(count);
            stack.set_field(1, name);
        }
        value::make_places(stack, "path", &merged.conflicts);
        stack.set_field(1, "conflicts");
    })
}

fn tostring(call: &Call) -> Returned {
    let Some(Object::Marker(marker)) = handle::object(call, 1) else {
        return Err(call.bad_self("State.ours, State.theirs or State.deleted"));
    };
    let text = &*format!("State.{}", marker.name);
    call.protected(0, 1, &|stack: Stack| stack.push_bytes(text.as_bytes()))?;
    Ok(1)
}

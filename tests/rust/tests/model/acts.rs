//! What happens to a store, one after the other.

use super::verbs::{SCOPES, Time, Verb, key, pattern, value, verb};
use proptest::prelude::*;
use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A verb, of the run that may be undone or of nobody in particular.
    Plain {
        scope: usize,
        verb: Verb,
        by_run: bool,
    },
    /// Verbs inside, verbs of others meanwhile, verbs inside again; then a commit or a rollback.
    Transaction(Transaction),
    /// Calls that are made one after the other without waiting for them: keys that are set, or deleted. The store may be closed
    /// meanwhile.
    Post {
        calls: Vec<(usize, String, Option<Value>)>,
        close: bool,
    },
    /// Those who follow the scopes take what there is, and may keep how far they have come.
    Follow {
        save: bool,
    },
    /// Time passes until the next key has expired.
    Wait,
    /// How long keys of a scope live that are set without saying so.
    DefaultTime(usize, Time),
    /// A scope as it was at an earlier moment is what it was then.
    Look(Past),
    Revert(Past, String),
    RevertTo(Past, String),
    /// What the run has done is taken back, all of it or what came after an earlier moment.
    Undo(Option<usize>),
    /// The scope, or its first fork, is forked.
    Fork {
        again: bool,
    },
    /// A fork is merged into what it was made from.
    Merge(usize),
    Cleanup,
    /// Keys may expire while the store is closed: nobody has told of them when it is read again.
    Reopen {
        wait: bool,
    },
    /// A process sets keys, or deletes those without a number, and is killed while the last of it is under way.
    Kill(Vec<(String, Option<i64>)>),
}

#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) by_run: bool,
    pub(crate) early: Vec<(usize, Verb)>,
    pub(crate) others: Vec<(usize, Verb)>,
    /// It waits for the next key to expire.
    pub(crate) linger: bool,
    pub(crate) late: Vec<(usize, Verb)>,
    pub(crate) commit: bool,
}

/// A scope at one of the moments that are remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) scope: usize,
    pub(crate) moment: usize,
}

fn past() -> impl Strategy<Value = Past> {
    // Often one that is not long ago.
    let moment = prop_oneof![0_usize..4, 0_usize..60];
    (0..SCOPES, moment).prop_map(|(scope, moment)| Past { scope, moment })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let verbs = |most| prop::collection::vec(verb(), 0..most);
    (any::<bool>(), verbs(6), verbs(3), prop::bool::weighted(0.15), verbs(4), any::<bool>()).prop_map(
        |(by_run, early, others, linger, late, commit)| Transaction { by_run, early, others, linger, late, commit },
    )
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        48 => (verb(), prop::bool::weighted(0.3)).prop_map(|((scope, verb), by_run)| Act::Plain { scope, verb, by_run }),
        20 => transaction().prop_map(Act::Transaction),
        6 => (prop::collection::vec((0..SCOPES, key(), prop::option::of(value())), 1..8), prop::bool::weighted(0.2))
            .prop_map(|(calls, close)| Act::Post { calls, close }),
        8 => any::<bool>().prop_map(|save| Act::Follow { save }),
        5 => Just(Act::Wait),
        1 => (0..SCOPES, prop_oneof![Just(Time::Default), Just(Time::Never), Just(Time::Long)])
            .prop_map(|(scope, time)| Act::DefaultTime(scope, time)),
        10 => past().prop_map(Act::Look),
        2 => (past(), key()).prop_map(|(past, key)| Act::Revert(past, key)),
        2 => (past(), pattern()).prop_map(|(past, pattern)| Act::RevertTo(past, pattern)),
        4 => prop::option::weighted(0.3, 0_usize..20).prop_map(Act::Undo),
        5 => any::<bool>().prop_map(|again| Act::Fork { again }),
        6 => (0_usize..2).prop_map(Act::Merge),
        3 => Just(Act::Cleanup),
        5 => any::<bool>().prop_map(|wait| Act::Reopen { wait }),
        1 => prop::collection::vec((key(), prop::option::of(-5_i64..5)), 1..5).prop_map(Act::Kill),
    ]
}

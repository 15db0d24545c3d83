//! What has been done to a scope, in its order, and what a watch or a history tells of it.

use super::story::{Spec, Told};
use crate::{Failure, hold};
use std::collections::{BTreeSet, HashMap};

/// A change that was made, or that may have been.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub(super) key: String,
    pub(super) operation: &'static str,
    /// What the key may have been afterwards.
    pub(super) specs: Vec<Option<Spec>>,
    /// Its time may run out.
    pub(super) may_end: bool,
    /// That of its commit, where that was told.
    pub(super) version: Option<u64>,
    /// A version before it.
    pub(super) after: u64,
    /// It was acknowledged.
    pub(super) is_sure: bool,
}

/// How far a named watch is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    version: Option<u64>,
    /// It may have been moved by somebody who was killed.
    pub(super) is_unsure: bool,
}

impl Kept {
    /// It stood at `from` and stands at `to` now.
    pub(super) fn moved(&mut self, from: Option<u64>, to: u64) -> Result<(), Failure> {
        let is_known = self.version.is_none_or(|kept| from == Some(kept) || self.is_unsure && from > Some(kept));
        hold!(is_known, "the watch is kept at {from:?}, not at {:?}", self.version);
        hold!(from.is_none_or(|from| to >= from), "the watch went back from {from:?} to {to}");
        *self = Self { version: Some(to), is_unsure: false };
        Ok(())
    }
}

impl Effect {
    fn is(&self, key: &str, operation: &str, spec: Option<Spec>) -> bool {
        self.key == key && self.operation == operation && self.specs.contains(&spec)
    }
}

/// The places in a list of effects at which somebody may be who was told some of them in their order.
struct Places(BTreeSet<usize>);

impl Places {
    /// One more was told. Those that may not have been can be passed over.
    fn step(&mut self, effects: &[&Effect], is_it: impl Fn(&Effect) -> bool, is_optional: impl Fn(&Effect) -> bool) {
        let mut next = BTreeSet::new();
        for place in &self.0 {
            for (number, effect) in effects.iter().enumerate().skip(*place) {
                if is_it(effect) {
                    next.insert(number + 1);
                }
                if !is_optional(effect) {
                    break;
                }
            }
        }
        self.0 = next;
    }
}

/// Compares what a watch has told since `from` with what was done. `is_all` when it had no more to tell.
pub(super) fn explain(effects: &[Effect], from: Option<u64>, told: &[Told], is_all: bool) -> Result<(), Failure> {
    let since = from.unwrap_or(0);
    let start = match from {
        Some(from) => effects.iter().rposition(|effect| effect.version.is_some_and(|version| version <= from)),
        // It was made when it was first opened.
        None => effects.len().checked_sub(1),
    };
    let (before, after) = effects.split_at(start.map_or(0, |last| last + 1));
    let is_optional = |effect: &Effect| !effect.is_sure || effect.version.is_none() && effect.after < since;
    // What a key may have been; nothing is known of others.
    let mut values: HashMap<&str, Vec<Option<Spec>>> = HashMap::new();
    for effect in before {
        let mut specs = effect.specs.clone();
        specs.extend(effect.may_end.then_some(None));
        values.insert(&effect.key, specs);
    }
    for effect in effects.iter().filter(|effect| is_optional(effect)) {
        values.remove(&*effect.key);
    }
    let after: Vec<&Effect> = after.iter().collect();
    let mut places = Places(BTreeSet::from([0]));
    for change in told {
        let Told { version, key, operation, spec, old } = change;
        hold!(*version > since, "a watch that is kept at {from:?} told {change:?}");
        if operation != "expire" {
            let is_it =
                |effect: &Effect| effect.is(key, operation, *spec) && effect.version.is_none_or(|own| own == *version);
            let first = places.0.first().copied().unwrap_or(0);
            places.step(&after, is_it, is_optional);
            hold!(
                !places.0.is_empty(),
                "a watch that is kept at {from:?} told {change:?}, and not {:?}",
                after.get(first)
            );
        }
        let known = values.insert(key, vec![*spec]);
        hold!(
            known.as_ref().is_none_or(|known| known.contains(old)),
            "a watch told {change:?}, but the key was {known:?}"
        );
        hold!(operation != "expire" || old.is_some(), "a watch told {change:?}, but the key was not there");
    }
    let left = |place: &usize| after[*place..].iter().find(|effect| !is_optional(effect));
    match places.0.iter().map(left).min_by_key(Option::is_some).flatten() {
        Some(left) if is_all && from.is_some() => {
            Err(Failure::new(format!("a watch that is kept at {from:?} did not tell {left:?}")))
        }
        _ => Ok(()),
    }
}

/// Compares the history of a key, the newest change first, with what was done to it. Expiring is told by nobody.
pub(super) fn compare_history(
    effects: &[Effect],
    key: &str,
    history: &[(&'static str, Option<Spec>)],
) -> Result<(), Failure> {
    let effects: Vec<&Effect> = effects.iter().rev().filter(|effect| effect.key == key).collect();
    let mut places = Places(BTreeSet::from([0]));
    for (operation, spec) in history.iter().filter(|(operation, _)| *operation != "expire") {
        let first = places.0.first().copied().unwrap_or(0);
        places.step(&effects, |effect| effect.is(key, operation, *spec), |effect| !effect.is_sure);
        let instead = effects.get(first);
        hold!(!places.0.is_empty(), "the history of {key} tells {operation} {spec:?} instead of {instead:?}");
    }
    Ok(())
}

/// Changes of a key that are there for certain.
pub(super) fn certain(effects: &[Effect], key: &str) -> usize {
    effects.iter().filter(|effect| effect.key == key && effect.is_sure).count()
}

//! What must hold in a store that somebody has left.

use super::model::{Model, Span, fitting};
use super::story::{Answer, Spec, now_ms};
use super::stream::{certain, compare_history, explain};
use super::work::follow;
use crate::{Failure, hold};
use llmspell_state_persistence::{Entry, Scope, State};
use std::collections::{BTreeMap, BTreeSet};

/// Looks at everything; what was not known before is known afterwards. `depth` is how many versions of each key must be there.
pub(super) fn look(state: &State, model: &mut Model, depth: usize) -> Result<(), Failure> {
    let found = state.verify()?;
    hold!(found.is_ok(), "verify: {}", found.problems.join("; "));
    let names: BTreeSet<String> = state.scopes()?.into_iter().collect();
    let is_missing = |name: &String| !names.contains(name);
    if let Some((name, _)) = model.scopes.iter().find(|(name, known)| known.is_sure && is_missing(name)) {
        return Err(Failure::new(format!("scope {name} is missing")));
    }
    model.scopes.retain(|name, _| !is_missing(name));
    for (name, known) in &mut model.scopes {
        known.is_sure = true;
        let scope = state.scope(name)?;
        let told = |failure: Failure| Failure::new(format!("{name}: {failure}"));
        for (key, cell) in &mut known.cells {
            let (span, spec) = timed(|| spec(scope.entry(key)?.as_deref()))?;
            let left = fitting(cell, spec, span);
            hold!(!left.is_empty(), "{name} {key} is {spec:?} at {span:?}, not {cell:?}");
            *cell = left;
        }
        let merged = known.merging.drain(..).map(|(key, spec)| known.cells[&key].iter().any(|may| may.spec == spec));
        let merged: Vec<bool> = merged.collect();
        hold!(merged.windows(2).all(|both| both[0] == both[1]), "{name}: a merge is there in part");
        listed(&scope, &known.cells).map_err(told)?;
        let keys: Vec<&String> = known.cells.keys().collect();
        for key in keys {
            let revisions = scope.history(key, None)?;
            let history: Vec<_> = revisions
                .iter()
                .map(|revision| {
                    let spec = revision.value.as_ref().map(Spec::read).transpose();
                    spec.map(|spec| (revision.operation.name(), spec)).map_err(Failure::new)
                })
                .collect::<Result<_, _>>()?;
            compare_history(&known.effects, key, &history).map_err(told)?;
            let wanted = if known.is_fork() { 0 } else { depth.min(certain(&known.effects, key)) };
            hold!(history.len() >= wanted, "{name} {key}: {} versions are kept, not {wanted}", history.len());
        }
    }
    Ok(())
}

/// The named watches tell everything since they were kept.
pub(super) fn watches(state: &State, model: &mut Model, slots: usize) -> Result<u64, Failure> {
    let mut count = 0;
    for name in model.watched(slots).collect::<Vec<_>>() {
        let Answer::Followed { from, told, to } = follow(&state.scope(&name)?, usize::MAX)? else { continue };
        count += told.len() as u64;
        let wrong = |failure: Failure| Failure::new(format!("{name}: {failure}"));
        model.kept.entry(name.clone()).or_default().moved(from, to).map_err(wrong)?;
        explain(&model.scopes[&name].effects, from, &told, true).map_err(wrong)?;
    }
    Ok(count)
}

fn timed<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<(Span, T), Failure> {
    let start = now_ms();
    let answer = call()?;
    Ok((Span(start, now_ms()), answer))
}

fn spec(entry: Option<&Entry>) -> Result<Option<Spec>, Failure> {
    let read = |entry: &Entry| Spec::read(entry.document());
    entry.map(read).transpose().map_err(|why| Failure::new(format!("a value is {why}")))
}

/// Every listing has what is there, and nothing whose time has run out.
fn listed(scope: &Scope, cells: &BTreeMap<String, super::model::Cell>) -> Result<(), Failure> {
    let (keys_span, keys) = timed(|| Ok(scope.keys("*")?.collect::<Result<Vec<_>, _>>()?))?;
    let (items_span, items) = timed(|| {
        let items = scope.items("*")?.map(|item| -> Result<_, Failure> {
            let (key, entry) = item?;
            Ok((key, spec(Some(&*entry))?))
        });
        items.collect::<Result<BTreeMap<_, _>, _>>()
    })?;
    let (count_span, count) = timed(|| Ok(scope.count("*")?))?;
    let (mut least, mut most) = (0, 0);
    for (key, cell) in cells {
        let is_listed = keys.contains(key);
        let fits = |may: &super::model::May| {
            if is_listed { may.may_be_there(keys_span) } else { may.may_be_gone(keys_span) }
        };
        hold!(cell.iter().any(fits), "{key} is among the keys: {is_listed}; it is {cell:?}");
        let item = items.get(key).copied().flatten();
        hold!(!fitting(cell, item, items_span).is_empty(), "{key} is {item:?} among the items; it is {cell:?}");
        least += u64::from(!cell.iter().any(|may| may.may_be_gone(count_span)));
        most += u64::from(cell.iter().any(|may| may.may_be_there(count_span)));
    }
    let unknown = keys.iter().chain(items.keys()).find(|key| !cells.contains_key(*key));
    hold!(unknown.is_none(), "{unknown:?} is listed, which nobody has set");
    hold!((least..=most).contains(&count), "{count} keys are counted, not {least} to {most}");
    Ok(())
}

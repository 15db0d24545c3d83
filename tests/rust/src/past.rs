//! The verbs of history, and the reading verbs of a view.

use crate::contract::{Answer, Failure, Handle, Run, Step, wrong};
use crate::forms::missing;
use crate::surface::{Said, pair};
use crate::verbs::{of_change, select};
use llmspell_state_persistence::{Difference, Moment, Origin, Result, Scope, Undo, View};
use serde_json::{Value, json};

pub(crate) const VERBS: &[&str] = &["as_run", "history", "revision", "at", "diff", "revert", "revert_to", "undo"];

/// What the arguments of a step say.
struct Given<'r, 'v> {
    run: &'r Run<'v>,
    step: &'r Step<'r>,
}

impl Given<'_, '_> {
    fn expanded(&self, value: &Value) -> Answer {
        self.run.known.expand(value).map_err(Failure::Wrong)
    }

    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let found = self.step.members.get(name).map(|value| self.expanded(value)).transpose()?;
        Ok(found.and_then(|text| text.as_str().map(str::to_owned)))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let found = self.step.members.get(name).map(|value| self.expanded(value)).transpose()?;
        Ok(found.and_then(|number| number.as_u64()))
    }

    fn version(&self, index: usize) -> Result<Option<u64>, Failure> {
        let found = self.step.arguments.get(index).map(|value| self.expanded(value)).transpose()?;
        Ok(found.and_then(|number| number.as_u64()))
    }

    fn origin(&self) -> Result<Origin, Failure> {
        Ok(Origin { actor: self.text("actor")?, run: self.text("run")?, reason: self.text("reason")? })
    }
}

pub(crate) fn origin_value(origin: Origin, rest: Value) -> Value {
    let mut value = rest;
    for (name, part) in [("actor", origin.actor), ("run", origin.run), ("reason", origin.reason)] {
        value[name] = part.map_or_else(missing, Value::from);
    }
    value
}

impl Run<'_> {
    /// The verbs of history.
    pub(crate) fn past(&mut self, step: &Step<'_>, scope: &Scope, key: &str) -> Answer {
        let given = Given { run: self, step };
        let (first, second) = (given.version(0)?.unwrap_or_default(), given.version(1)?);
        let pattern = given.text("pattern")?.unwrap_or_else(|| "*".into());
        let key = key.to_owned();
        Ok(match step.verb {
            "as_run" => {
                let handle = Handle::Scope(scope.as_run(given.origin()?)?);
                self.name(step, handle)
            }
            "history" => {
                let limit = given.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
                let told = self.ask(scope, move |scope| scope.history(&key, limit))?.into_iter();
                told.map(|revision| json!([revision.operation.name(), of_change(revision.value.as_ref())])).collect()
            }
            "revision" => {
                let at = second.and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
                let told = self.ask(scope, move |scope| scope.history(&key, None))?;
                let Some(revision) = told.into_iter().nth(at) else {
                    return wrong(format!("there is no revision {at}"));
                };
                let value = json!({
                    "operation": revision.operation.name(),
                    "value": of_change(revision.value.as_ref()),
                    "version": revision.version,
                    "time": revision.time_ms,
                });
                origin_value(revision.origin, value)
            }
            "at" => {
                let view = self.ask(scope, move |scope| scope.at(first))?;
                self.name(step, Handle::View(view))
            }
            "diff" => {
                let until = second.map(Moment::Version);
                let told =
                    self.ask(scope, move |scope| scope.diff(first, until, &pattern)?.collect::<Result<Vec<_>>>())?;
                told.into_iter()
                    .map(|Difference { key, from, to }| json!([key, of_change(from.as_ref()), of_change(to.as_ref())]))
                    .collect()
            }
            "revert" => self.ask(scope, move |scope| scope.revert(&key, second.unwrap_or_default()))?.said(),
            "revert_to" => self.ask(scope, move |scope| scope.revert_to(first, &pattern))?.said(),
            _ => {
                let Origin { actor, run, .. } = given.origin()?;
                let since = given.number("since")?.unwrap_or_default();
                let done = self.ask(scope, move |scope| scope.undo(Undo { actor, run, since }))?;
                json!({"keys": done.keys, "refused": done.refused})
            }
        })
    }

    fn look<T: Send + 'static>(
        &self,
        view: &View,
        question: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.runtime {
            None => question(view),
            Some(runtime) => runtime.block_on(view.call(question).into_future()),
        }
    }

    /// The reading verbs of a view, gone down into the scopes that the step names.
    pub(crate) fn viewing(&self, step: &Step<'_>, view: &View) -> Answer {
        let mut view = view.clone();
        for name in step.members.get("in").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_str().unwrap_or_default().to_owned();
            view = self.look(&view, move |view| view.scope(&name))?;
        }
        let given = Given { run: self, step };
        let first = step.arguments.first().map(|value| given.expanded(value)).transpose()?.unwrap_or_default();
        let key = first.as_str().unwrap_or_default().to_owned();
        let pattern = if step.arguments.is_empty() { "*".to_owned() } else { key.clone() };
        Ok(match step.verb {
            "get" => match self.look(&view, move |view| view.get(&key))? {
                Some(value) => value,
                None => step.members.get("default").map_or_else(|| Ok(missing()), |value| given.expanded(value))?,
            },
            "entry" => self.look(&view, move |view| view.entry(&key))?.said(),
            "exists" => self.look(&view, move |view| view.exists(&key))?.said(),
            "count" => self.look(&view, move |view| view.count(&pattern))?.said(),
            "get_many" => {
                let keys: Vec<String> = serde_json::from_value(first).map_err(|e| Failure::Wrong(e.to_string()))?;
                let wanted = keys.clone();
                let found = self.look(&view, move |view| view.get_many(&wanted))?;
                keys.into_iter().zip(found).filter_map(|(key, entry)| Some((key, entry?.value()))).collect()
            }
            "keys" => {
                let select = select(step, &pattern);
                self.look(&view, |view| view.keys(select)?.collect::<Result<Vec<String>>>())?.said()
            }
            "items" => {
                let select = select(step, &pattern);
                let found = self.look(&view, |view| view.items(select)?.collect::<Result<Vec<_>>>())?;
                found.into_iter().map(pair).collect()
            }
            verb => return wrong(format!("'{verb}' is not asked of a view")),
        })
    }
}

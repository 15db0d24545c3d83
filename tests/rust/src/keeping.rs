//! The verbs of what is kept, how long, and in which copy: time to live, retention, usage, forks.

use crate::contract::{Answer, Failure, Handle, Run, Step, wrong};
use crate::forms::missing;
use crate::surface::Said;
use llmspell_state_persistence::{Document, MergeConflict, Merged, Resolution, Result, RetentionPolicy, Scope, Ttl};
use serde_json::{Value, json};

pub(crate) const VERBS: &[&str] =
    &["default_ttl", "set_default_ttl", "retention", "set_retention", "usage", "fork", "merge_from"];

/// A time to live as a step gives it.
pub(crate) fn ttl(seconds: Option<&Value>) -> Result<Ttl> {
    match seconds {
        None => Ok(Ttl::Default),
        Some(seconds) => match (seconds.as_f64(), seconds["$float"].as_str()) {
            (Some(seconds), _) => Ttl::seconds(seconds),
            (_, Some("inf")) => Ok(Ttl::Never),
            _ => Ttl::seconds(f64::NAN),
        },
    }
}

impl Run<'_> {
    pub(crate) fn keeping(&mut self, step: &Step<'_>, scope: &Scope) -> Answer {
        let expand = |value: &&Value| self.known.expand(value).map_err(Failure::Wrong);
        let given = step.arguments.iter().map(expand).collect::<Result<Vec<_>, _>>()?;
        let first = given.first().cloned();
        Ok(match step.verb {
            "default_ttl" => match self.ask(scope, Scope::default_ttl)? {
                Ttl::After(time) => time.as_secs_f64().into(),
                _ => missing(),
            },
            "set_default_ttl" => {
                let ttl = ttl(first.as_ref())?;
                self.ask(scope, move |scope| scope.set_default_ttl(ttl))?.said()
            }
            "retention" => {
                let policy = self.ask(scope, Scope::retention)?;
                serde_json::to_value(policy).map_err(|e| Failure::Wrong(e.to_string()))?
            }
            "set_retention" => {
                let options = first.as_ref().and_then(Value::as_object).cloned();
                let policy = options.map(RetentionPolicy::from_options).transpose()?;
                self.ask(scope, move |scope| scope.set_retention(policy.as_ref()))?.said()
            }
            "usage" => json!(self.ask(scope, Scope::usage)?),
            "fork" => {
                let names: Vec<String> = given.iter().map(|name| name.as_str().unwrap_or_default().into()).collect();
                let fork = self.ask(scope, move |scope| scope.fork(&names[0], &names[1]))?;
                self.name(step, Handle::Scope(fork))
            }
            _ => {
                let name = first.as_ref().and_then(Value::as_str).unwrap_or_default();
                let Some(Handle::Scope(fork)) = self.handles.get(name) else {
                    return wrong(format!("no scope '{name}' to merge"));
                };
                let merged = self.merge(scope, fork, step.members.get("resolve"))?;
                json!({"keys": merged.keys, "conflicts": merged.conflicts})
            }
        })
    }

    fn merge(&self, scope: &Scope, fork: &Scope, resolve: Option<&Value>) -> Result<Merged, Failure> {
        let resolve = |conflict: &MergeConflict| resolve.map_or(Ok(None), |table| resolved(table, conflict));
        if self.runtime.is_none() {
            return scope.merge_with(fork, resolve);
        }
        // As whoever cannot be called back does it.
        let mut merging = scope.merging(fork);
        loop {
            let (merged, asked) = self.ask(scope, move |_| merging.attempt().map(|merged| (merged, merging)))?;
            if let Some(merged) = merged {
                return Ok(merged);
            }
            merging = asked;
            while let Some(conflict) = merging.open() {
                let answer = resolve(conflict)?;
                merging.answer(answer);
            }
        }
    }
}

/// The functions that `resolve` knows, by key.
fn resolved(table: &Value, conflict: &MergeConflict) -> Result<Option<Resolution>, Failure> {
    let number = |side: &Option<Document>| side.as_ref().and_then(|side| side.to_value().as_i64()).unwrap_or_default();
    Ok(Some(match table[&*conflict.key].as_str() {
        None => return Ok(None),
        Some("ours") => Resolution::Ours,
        Some("theirs") => Resolution::Theirs,
        Some("delete") => Resolution::Delete,
        Some("sum") => {
            let sum = json!(number(&conflict.ours) + number(&conflict.theirs) + number(&conflict.base));
            Resolution::Value(Document::from_value(&sum, 64)?)
        }
        _ => return Err(Failure::Own),
    }))
}

//! The verbs of the contract, each a call of the core.

use crate::contract::{Answer, Failure, Handle, Run, Step, is_conflict, wrong};
use crate::forms::{end, missing};
use llmspell_state_persistence::{
    Difference, Document, Entry, Moment, Number, Origin, Scope, Select, Transaction, Undo, View, WatchOptions, limits,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PAST: &[&str] = &["as_run", "history", "revision", "at", "diff", "revert", "revert_to", "undo"];

/// What has the data operations.
#[derive(Clone)]
pub(crate) enum Target {
    Scope(Scope),
    Transaction(Transaction),
    View(View),
}

/// The same call on whichever it is; what changes something is not asked of a view.
macro_rules! on {
    ($target:expr, $handle:ident => $call:expr) => {
        match $target {
            Target::Scope($handle) => $call,
            Target::Transaction($handle) => $call,
            Target::View(_) => return wrong("a view changes nothing"),
        }
    };
}

/// The same question to whichever it is.
macro_rules! ask {
    ($target:expr, $handle:ident => $call:expr) => {
        match $target {
            Target::Scope($handle) => $call,
            Target::Transaction($handle) => $call,
            Target::View($handle) => $call,
        }
    };
}

/// What a write says: a version, or within a transaction nothing.
trait Said {
    fn said(self) -> Value;
}
impl Said for u64 {
    fn said(self) -> Value {
        self.into()
    }
}
impl Said for () {
    fn said(self) -> Value {
        missing()
    }
}

impl Target {
    pub(crate) fn scope(&self, name: &str) -> Result<Self, Failure> {
        Ok(match self {
            Self::Scope(scope) => Self::Scope(scope.scope(name)?),
            Self::Transaction(transaction) => Self::Transaction(transaction.scope(name)?),
            Self::View(view) => Self::View(view.scope(name)?),
        })
    }
}

impl Run<'_> {
    pub(crate) fn call(&mut self, step: &Step<'_>) -> Answer {
        match step.verb {
            "fail" => return Err(Failure::Own),
            "wait" => {
                std::thread::sleep(Duration::from_millis(step.arguments[0].as_u64().unwrap_or_default()));
                return Ok(missing());
            }
            "shell" => return self.shell(step.arguments[0].as_str().unwrap_or_default()),
            "open" | "reopen" | "close" => return self.opening(step),
            "verify" => return self.verify(step),
            "next" | "rest" => return self.iteration(step),
            "next_change" | "changes" | "save_watch" | "close_watch" => return self.watching(step),
            _ => {}
        }
        let target = self.target(step)?;
        let expand = |value: &Value| self.known.expand(value).map_err(Failure::Wrong);
        let option = |name: &str| step.members.get(name).map(expand).transpose();
        let arguments = match step.verb {
            // Its steps are expanded one by one as they run.
            "transact" => vec![],
            _ => step.arguments.iter().map(|value| expand(value)).collect::<Result<Vec<_>, _>>()?,
        };
        let key = arguments.first().and_then(Value::as_str).unwrap_or_default();
        let pattern = if step.arguments.is_empty() { "*" } else { key };
        let version = option("if_version")?.map(|version| version.as_u64().unwrap_or(u64::MAX));
        let value = |index: usize| &arguments[index];
        Ok(match step.verb {
            "get" => ask!(&target, t => t.get(key))?.or(option("default")?).unwrap_or_else(missing),
            "entry" => ask!(&target, t => t.entry(key))?.map_or_else(missing, |entry| entry_value(&entry)),
            "exists" => ask!(&target, t => t.exists(key))?.into(),
            "get_many" => {
                let keys: Vec<&str> = value(0).as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let found = ask!(&target, t => t.get_many(&keys))?;
                keys.iter().zip(found).filter_map(|(key, entry)| Some(((*key).to_owned(), entry?.value()))).collect()
            }
            "set" => match version {
                Some(version) => on!(&target, t => t.set_if(key, value(1), version)?.said()),
                None => on!(&target, t => t.set(key, value(1))?.said()),
            },
            "set_many" => {
                let pairs = || value(0).as_object().into_iter().flatten();
                on!(&target, t => t.set_many(pairs())?.said())
            }
            "delete" => match version {
                Some(version) => on!(&target, t => t.delete_if(key, version))?,
                None => on!(&target, t => t.delete(key))?,
            }
            .into(),
            "clear" => on!(&target, t => t.clear(pattern))?.into(),
            "count" => ask!(&target, t => t.count(pattern))?.into(),
            "keys" => ask!(&target, t => t.keys(select(step, pattern)))?
                .map(|key| Ok(Value::from(key?)))
                .collect::<Answer>()?,
            "items" => ask!(&target, t => t.items(select(step, pattern)))?.map(pair).collect::<Answer>()?,
            "increment" => match on!(&target, t => t.increment(key, by(arguments.get(1)))?) {
                Number::Int(sum) => sum.into(),
                Number::Float(sum) => sum.into(),
            },
            "append" => on!(&target, t => t.append(key, value(1)))?.into(),
            "merge" => on!(&target, t => t.merge(key, value(1)))?.to_value(),
            "modify" => {
                let function = value(1);
                let default = option("default")?;
                let most = on!(&target, t => t.max_value_bytes());
                let root = self.handles.get("state");
                let mut calls = 0;
                on!(&target, t => t.modify(key, |entry| {
                    calls += 1;
                    if let (1, "race", Some(Handle::State(state))) = (calls, function[0].as_str().unwrap_or_default(), root) {
                        state.increment(key, 100)?;
                    }
                    let old = entry.map(|entry| entry.value()).or_else(|| default.clone());
                    Ok::<_, Failure>(Document::from_value(&modified(function, old)?, most)?)
                }))?
                .value()
            }
            _ => return self.make(step, target, key, arguments.get(1)),
        })
    }

    /// The verbs that make handles or end them.
    fn make(&mut self, step: &Step<'_>, target: Target, key: &str, pattern: Option<&Value>) -> Answer {
        Ok(match step.verb {
            "scopes" => match &target {
                Target::Scope(scope) => scope.scopes()?.into(),
                _ => return wrong("scopes is asked of scopes"),
            },
            "scope" => {
                let handle = match target.scope(key)? {
                    Target::Scope(scope) => Handle::Scope(scope),
                    Target::Transaction(transaction) => Handle::Transaction(transaction),
                    Target::View(view) => Handle::View(view),
                };
                self.name(step, handle)
            }
            "begin" => match &target {
                Target::Scope(scope) => {
                    let transaction = scope.transaction()?;
                    self.name(step, Handle::Transaction(transaction))
                }
                _ => return wrong("only scopes begin transactions"),
            },
            "commit" | "rollback" => match (&target, step.verb) {
                (Target::Transaction(transaction), "commit") => transaction.commit()?.said(),
                (Target::Transaction(transaction), _) => transaction.rollback()?.said(),
                _ => return wrong(format!("'{}' is for transactions", step.verb)),
            },
            "transact" => match target {
                Target::Scope(scope) => self.transact(step, &scope)?,
                _ => return wrong("only scopes transact"),
            },
            "iterate" => {
                let pattern = pattern.and_then(Value::as_str).unwrap_or("*");
                let handle = match key {
                    "keys" => Handle::Keys(ask!(&target, t => t.keys(select(step, pattern)))?),
                    "items" => Handle::Items(ask!(&target, t => t.items(select(step, pattern)))?),
                    _ => return wrong(format!("no iterator over '{key}'")),
                };
                self.name(step, handle)
            }
            "watch" | "named_watches" | "forget_watch" => match target {
                Target::Scope(scope) => self.watch(step, &scope, key)?,
                _ => return wrong("only scopes watch"),
            },
            _ if PAST.contains(&step.verb) => match target {
                Target::Scope(scope) => self.past(step, &scope, key)?,
                _ => return wrong("only scopes have a past"),
            },
            verb => return wrong(format!("no verb '{verb}'")),
        })
    }

    fn name(&mut self, step: &Step<'_>, handle: Handle) -> Value {
        self.handles.insert(step.text("as").unwrap_or("_").to_owned(), handle);
        missing()
    }

    fn transact(&mut self, step: &Step<'_>, scope: &Scope) -> Answer {
        let attempts = step.members.get("attempts").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let name = step.text("as").unwrap_or("_").to_owned();
        let outer = std::mem::take(&mut self.round);
        let outcome = scope.transact_with(attempts.unwrap_or(limits::ATTEMPTS), is_conflict, |transaction| {
            self.round += 1;
            self.handles.insert(name.clone(), Handle::Transaction(transaction.clone()));
            self.steps(step.arguments[0])
        });
        self.round = outer;
        outcome
    }

    fn opening(&mut self, step: &Step<'_>) -> Answer {
        let name = step.text("on").unwrap_or("state");
        match (step.verb, self.handles.get(name)) {
            ("open", _) => {
                let state = self.open(step.arguments[0])?;
                return Ok(self.name(step, Handle::State(state)));
            }
            (_, Some(Handle::State(state))) => state.close()?,
            _ => return wrong(format!("no store '{name}' to close")),
        }
        if step.verb == "reopen" {
            let state = self.open(step.arguments.first().unwrap_or(&&Value::Null))?;
            self.handles.insert(name.to_owned(), Handle::State(state));
        }
        Ok(missing())
    }

    fn verify(&self, step: &Step<'_>) -> Answer {
        let name = step.text("on").unwrap_or("state");
        let Some(Handle::State(state)) = self.handles.get(name) else {
            return wrong(format!("no store '{name}' to verify"));
        };
        let found = state.verify()?;
        Ok(json!({
            "ok": found.is_ok(),
            "version": found.version,
            "changes": found.changes,
            "keys": found.keys,
            "scopes": found.scopes,
            "problems": found.problems,
        }))
    }

    fn iteration(&mut self, step: &Step<'_>) -> Answer {
        let mut next: Box<dyn FnMut() -> Option<Answer>> =
            match step.text("on").and_then(|name| self.handles.get_mut(name)) {
                Some(Handle::Keys(keys)) => Box::new(|| keys.next().map(|key| Ok(key?.into()))),
                Some(Handle::Items(items)) => Box::new(|| items.next().map(pair)),
                _ => return wrong(format!("'{}' is for iterators", step.verb)),
            };
        if step.verb == "rest" { std::iter::from_fn(next).collect() } else { next().unwrap_or_else(|| Ok(end())) }
    }

    fn watch(&mut self, step: &Step<'_>, scope: &Scope, text: &str) -> Answer {
        Ok(match step.verb {
            "named_watches" => {
                scope.named_watches()?.into_iter().map(|watch| (watch.name, Value::from(watch.version))).collect()
            }
            "forget_watch" => scope.forget_watch(text)?.into(),
            _ => {
                let since = step.members.get("since").map(|since| self.known.expand(since).map_err(Failure::Wrong));
                let watch = scope.watch(WatchOptions {
                    pattern: Some(text.to_owned()).filter(|_| !step.arguments.is_empty()),
                    since: since.transpose()?.and_then(|since| since.as_u64()),
                    name: step.text("name").map(str::to_owned),
                })?;
                self.name(step, Handle::Watch(watch))
            }
        })
    }

    /// The verbs of history.
    fn past(&mut self, step: &Step<'_>, scope: &Scope, key: &str) -> Answer {
        let expanded = |value: &Value| self.known.expand(value).map_err(Failure::Wrong);
        let option = |name: &str| step.members.get(name).map(expanded).transpose();
        let text = |name: &str| Ok::<_, Failure>(option(name)?.and_then(|text| text.as_str().map(str::to_owned)));
        let version = |index: usize| {
            let given = step.arguments.get(index).map(|given| expanded(given)).transpose()?;
            Ok::<_, Failure>(given.and_then(|version| version.as_u64()))
        };
        let pattern = text("pattern")?.unwrap_or_else(|| "*".into());
        Ok(match step.verb {
            "as_run" => {
                let origin = Origin { actor: text("actor")?, run: text("run")?, reason: text("reason")? };
                let handle = Handle::Scope(scope.as_run(origin)?);
                self.name(step, handle)
            }
            "history" => {
                let limit = step.members.get("limit").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
                let told = scope.history(key, limit)?.into_iter();
                told.map(|revision| json!([revision.operation.name(), of_change(revision.value.as_ref())])).collect()
            }
            "revision" => {
                let at = version(1)?.and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
                let revision = scope.history(key, None)?.into_iter().nth(at);
                let Some(revision) = revision else { return wrong(format!("{key} has no revision {at}")) };
                json!({
                    "operation": revision.operation.name(),
                    "value": of_change(revision.value.as_ref()),
                    "version": revision.version,
                    "time": revision.time_ms,
                    "actor": revision.origin.actor.map_or_else(missing, Value::from),
                    "run": revision.origin.run.map_or_else(missing, Value::from),
                    "reason": revision.origin.reason.map_or_else(missing, Value::from),
                })
            }
            "at" => {
                let view = scope.at(version(0)?.unwrap_or_default())?;
                self.name(step, Handle::View(view))
            }
            "diff" => scope
                .diff(version(0)?.unwrap_or_default(), version(1)?.map(Moment::Version), &pattern)?
                .map(|difference| {
                    let Difference { key, from, to } = difference?;
                    Ok(json!([key, of_change(from.as_ref()), of_change(to.as_ref())]))
                })
                .collect::<Answer>()?,
            "revert" => scope.revert(key, version(1)?.unwrap_or_default())?.into(),
            "revert_to" => scope.revert_to(version(0)?.unwrap_or_default(), &pattern)?.into(),
            _ => {
                let since = option("since")?.and_then(|since| since.as_u64()).unwrap_or_default();
                let done = scope.undo(Undo { actor: text("actor")?, run: text("run")?, since })?;
                json!({"keys": done.keys, "refused": done.refused})
            }
        })
    }

    fn watching(&mut self, step: &Step<'_>) -> Answer {
        /// After so long nothing more is expected.
        const QUIET: Duration = Duration::from_millis(50);
        let Some(Handle::Watch(watch)) = step.text("on").and_then(|name| self.handles.get(name)) else {
            return wrong(format!("'{}' is for watches", step.verb));
        };
        Ok(match step.verb {
            "changes" => std::iter::from_fn(|| watch.next_timeout(QUIET).transpose())
                .map(|change| {
                    let change = change?;
                    let (value, old) = (of_change(change.value.as_ref()), of_change(change.old.as_ref()));
                    Ok(json!([change.key, change.operation.name(), value, old, change.ends_commit]))
                })
                .collect::<Answer>()?,
            "save_watch" => watch.save()?.said(),
            "close_watch" => watch.close()?.said(),
            _ => {
                let most = step.members.get("timeout").and_then(Value::as_u64).unwrap_or(10_000);
                watch.next_timeout(Duration::from_millis(most))?.map_or_else(end, |change| {
                    json!({
                        "key": change.key,
                        "operation": change.operation.name(),
                        "value": of_change(change.value.as_ref()),
                        "old": of_change(change.old.as_ref()),
                        "version": change.version,
                        "time": change.time_ms,
                        "actor": change.origin.actor.map_or_else(missing, Value::from),
                        "run": change.origin.run.map_or_else(missing, Value::from),
                        "reason": change.origin.reason.map_or_else(missing, Value::from),
                        "ends_commit": change.ends_commit,
                    })
                })
            }
        })
    }

    fn shell(&self, command: &str) -> Answer {
        let status = std::process::Command::new("sh").args(["-c", command]).current_dir(&self.known.directory).status();
        match status {
            Ok(status) if status.success() => Ok(missing()),
            status => wrong(format!("{command}: {status:?}")),
        }
    }
}

fn select(step: &Step<'_>, pattern: &str) -> Select {
    Select {
        pattern: Some(pattern.to_owned()),
        after: step.text("after").map(str::to_owned),
        limit: step.members.get("limit").and_then(Value::as_u64),
        reverse: step.members.get("reverse") == Some(&Value::Bool(true)),
    }
}

fn pair(item: llmspell_state_persistence::Result<(String, Arc<Entry>)>) -> Answer {
    let (key, entry) = item?;
    Ok(json!([key, entry.value()]))
}

fn entry_value(entry: &Entry) -> Value {
    json!({
        "value": entry.value(),
        "version": entry.version(),
        "created": entry.created_ms(),
        "updated": entry.updated_ms(),
        "expires": entry.expires_ms().map_or_else(missing, Value::from),
    })
}

fn of_change(value: Option<&Document>) -> Value {
    value.map_or_else(missing, Document::to_value)
}

fn by(argument: Option<&Value>) -> Number {
    match argument {
        None => 1.into(),
        Some(value) => match (value.as_i64(), value.as_f64(), value["$float"].as_str()) {
            (Some(int), ..) => int.into(),
            (_, Some(float), _) => float.into(),
            (.., Some("inf")) => f64::INFINITY.into(),
            (.., Some("-inf")) => f64::NEG_INFINITY.into(),
            _ => f64::NAN.into(),
        },
    }
}

/// The functions that `modify` knows.
fn modified(function: &Value, old: Option<Value>) -> Answer {
    let argument = &function[1];
    let mut value = old.unwrap_or_default();
    match function[0].as_str() {
        Some("add" | "race") => {
            return Ok((value.as_i64().unwrap_or_default() + argument.as_i64().unwrap_or_default()).into());
        }
        Some("push") => value.as_array_mut().map(|items| items.push(argument.clone())),
        Some("put") => value.as_object_mut().map(|members| {
            members.insert(argument.as_str().unwrap_or_default().to_owned(), function[2].clone());
        }),
        Some("replace") => return Ok(argument.clone()),
        Some("fail") => return Err(Failure::Own),
        _ => None,
    }
    .map_or_else(|| wrong(format!("the function {function} does not fit")), |()| Ok(value))
}

//! The verbs of the contract, each a call of the core.

use crate::contract::{Answer, Failure, Handle, Run, Step, wrong};
use crate::forms::{end, missing};
use crate::keeping::{self, ttl};
use crate::past;
use crate::surface::{Said, Target, on, pair};
use llmspell_state_persistence::{
    Document, Entry, ErrorKind, Number, Result, Retry, Scope, Select, SetOptions, WatchOptions, limits,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The arguments of a step, its own to hand over.
struct Arguments {
    values: Vec<Value>,
    select: Select,
    version: Option<u64>,
}

impl Arguments {
    fn key(&self) -> &str {
        self.values.first().and_then(Value::as_str).unwrap_or_default()
    }

    fn pattern(&self) -> &str {
        if self.values.is_empty() { "*" } else { self.key() }
    }

    fn pairs(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.values[0].as_object().into_iter().flatten()
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
            "cleanup" => return self.cleanup(step),
            "next" | "rest" => return self.iteration(step),
            "next_change" | "changes" | "save_watch" | "close_watch" => return self.watching(step),
            _ => {}
        }
        if let Some(Handle::View(view)) = step.text("on").and_then(|name| self.handles.get(name)) {
            return self.viewing(step, &view.clone());
        }
        let target = self.target(step)?;
        let expand = |value: &Value| self.known.expand(value).map_err(Failure::Wrong);
        let option = |name: &str| step.members.get(name).map(expand).transpose();
        let arguments = match step.verb {
            // Its steps are expanded one by one as they run.
            "transact" => vec![],
            _ => step.arguments.iter().map(|value| expand(value)).collect::<Result<Vec<_>, _>>()?,
        };
        let version = option("if_version")?.map(|version| version.as_u64().unwrap_or(u64::MAX));
        let pattern = arguments.first().and_then(Value::as_str).filter(|_| !step.arguments.is_empty());
        let it = Arguments { select: select(step, pattern.unwrap_or("*")), values: arguments, version };
        Ok(match step.verb {
            "get" => match on!(self, &target, t => t.get(it.key()))? {
                value if value == missing() => option("default")?.unwrap_or(value),
                value => value,
            },
            "entry" => on!(self, &target, t => t.entry(it.key()), c => c.entry(it.key()))?,
            "exists" => on!(self, &target, t => t.exists(it.key()))?,
            "get_many" => {
                let keys: Vec<String> = it.values[0]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|key| Some(key.as_str()?.to_owned()))
                    .collect();
                let wanted = keys.clone();
                let mut found = on!(self, &target, t => t.get_many(&wanted))?;
                let entries = found.as_array_mut().into_iter().flatten();
                let there = keys.into_iter().zip(entries).filter(|(_, entry)| **entry != missing());
                there.map(|(key, entry)| (key, entry["value"].take())).collect()
            }
            "set" => {
                let options = SetOptions { ttl: ttl(option("ttl")?.as_ref())?, if_version: it.version };
                on!(self, &target, t => t.set_with(it.key(), &it.values[1], options), c => c.set_with(it.key(), &it.values[1], options))?
            }
            "set_many" => {
                let ttl = ttl(option("ttl")?.as_ref())?;
                on!(self, &target, t => t.set_many_with(it.pairs(), ttl), c => c.set_many_with(it.pairs(), ttl))?
            }
            "touch" => {
                let ttl = ttl(option("ttl")?.as_ref())?;
                on!(self, &target, t => t.touch(it.key(), ttl), c => c.touch(it.key(), ttl))?
            }
            "delete" => match it.version {
                Some(version) => {
                    on!(self, &target, t => t.delete_if(it.key(), version), c => c.delete_if(it.key(), version))?
                }
                None => on!(self, &target, t => t.delete(it.key()), c => c.delete(it.key()))?,
            },
            "clear" => on!(self, &target, t => t.clear(it.pattern()), c => c.clear(it.pattern()))?,
            "count" => on!(self, &target, t => t.count(it.pattern()))?,
            "keys" => {
                on!(self, &target, t => t.keys(it.select.clone()).and_then(Iterator::collect::<Result<Vec<String>>>))?
            }
            "items" => {
                on!(self, &target, t => t.items(it.select.clone()).and_then(Iterator::collect::<Result<Vec<_>>>))?
            }
            "increment" => {
                on!(self, &target, t => t.increment(it.key(), by(it.values.get(1))), c => c.increment(it.key(), by(it.values.get(1))))?
            }
            "append" => {
                on!(self, &target, t => t.append(it.key(), &it.values[1]), c => c.append(it.key(), &it.values[1]))?
            }
            "merge" => {
                on!(self, &target, t => t.merge(it.key(), &it.values[1]), c => c.merge(it.key(), &it.values[1]))?
            }
            "modify" => self.modify(&target, &it, option("default")?.as_ref())?,
            _ => return self.make(step, target, &it),
        })
    }

    fn modify(&self, target: &Target, it: &Arguments, default: Option<&Value>) -> Answer {
        let function = &it.values[1];
        let root = self.handles.get("state");
        let mut calls = 0;
        let mut new = |entry: Option<&Arc<Entry>>, most| {
            calls += 1;
            if let (1, "race", Some(Handle::State(state))) = (calls, function[0].as_str().unwrap_or_default(), root) {
                state.increment(it.key(), 100)?;
            }
            let old = entry.map(|entry| entry.value()).or_else(|| default.cloned());
            Ok::<_, Failure>(Document::from_value(&modified(function, old)?, most)?)
        };
        let entry = match (&self.runtime, target) {
            (None, Target::Scope(scope)) => scope.modify(it.key(), |entry| new(entry, scope.max_value_bytes()))?,
            (_, Target::Transaction(transaction)) => {
                transaction.modify(it.key(), |entry| new(entry, transaction.max_value_bytes()))?
            }
            // As whoever may not wait does it.
            (Some(runtime), Target::Scope(scope)) => runtime.block_on(async {
                let mut retry = Retry::new(limits::ATTEMPTS);
                loop {
                    let entry = scope.calls().entry(it.key())?.await?;
                    let version = entry.as_ref().map_or(0, |entry| entry.version());
                    let new = new(entry.as_ref(), scope.max_value_bytes())?;
                    match scope.calls().swap(it.key(), new, version)?.await {
                        Err(error) if error.kind() == ErrorKind::Conflict && retry.pause().is_some() => {}
                        done => return done.map_err(Failure::Store),
                    }
                }
            })?,
        };
        Ok(entry.value())
    }

    /// The verbs that make handles or end them.
    fn make(&mut self, step: &Step<'_>, target: Target, it: &Arguments) -> Answer {
        let key = it.key();
        Ok(match step.verb {
            "scopes" => match &target {
                Target::Scope(scope) => self.ask(scope, Scope::scopes)?.said(),
                Target::Transaction(_) => return wrong("scopes is not asked of a transaction"),
            },
            "scope" => {
                let handle = match self.down(target, key)? {
                    Target::Scope(scope) => Handle::Scope(scope),
                    Target::Transaction(transaction) => Handle::Transaction(transaction),
                };
                self.name(step, handle)
            }
            "begin" => match &target {
                Target::Scope(scope) => {
                    let transaction = self.begin(scope)?;
                    self.name(step, Handle::Transaction(transaction))
                }
                Target::Transaction(_) => return wrong("a transaction does not begin another"),
            },
            "commit" | "rollback" => match (&target, step.verb) {
                (Target::Transaction(transaction), "commit") => self.commit(transaction)?.said(),
                (Target::Transaction(transaction), _) => transaction.rollback()?.said(),
                _ => return wrong(format!("'{}' is for transactions", step.verb)),
            },
            "transact" => match target {
                Target::Scope(scope) => self.transact(step, &scope)?,
                Target::Transaction(_) => return wrong("a transaction does not transact"),
            },
            "iterate" => {
                let pattern = it.values.get(1).and_then(Value::as_str).unwrap_or("*");
                let handle = match key {
                    "keys" => Handle::Keys(match &target {
                        Target::Scope(scope) => scope.keys(select(step, pattern))?,
                        Target::Transaction(transaction) => transaction.keys(select(step, pattern))?,
                    }),
                    "items" => Handle::Items(match &target {
                        Target::Scope(scope) => scope.items(select(step, pattern))?,
                        Target::Transaction(transaction) => transaction.items(select(step, pattern))?,
                    }),
                    _ => return wrong(format!("no iterator over '{key}'")),
                };
                self.name(step, handle)
            }
            "watch" | "named_watches" | "forget_watch" => match target {
                Target::Scope(scope) => self.watch(step, &scope, key)?,
                Target::Transaction(_) => return wrong("a transaction does not watch"),
            },
            verb if past::VERBS.contains(&verb) => match target {
                Target::Scope(scope) => self.past(step, &scope, key)?,
                Target::Transaction(_) => return wrong("a transaction has no past"),
            },
            verb if keeping::VERBS.contains(&verb) => match target {
                Target::Scope(scope) => self.keeping(step, &scope)?,
                Target::Transaction(_) => return wrong(format!("'{verb}' is not of a transaction")),
            },
            verb => return wrong(format!("no verb '{verb}'")),
        })
    }

    pub(crate) fn name(&mut self, step: &Step<'_>, handle: Handle) -> Value {
        self.handles.insert(step.text("as").unwrap_or("_").to_owned(), handle);
        missing()
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

    fn cleanup(&self, step: &Step<'_>) -> Answer {
        let Some(Handle::State(state)) = self.handles.get(step.text("on").unwrap_or("state")) else {
            return wrong("only a store is cleaned up");
        };
        let whole = state.clone();
        Ok(json!(self.ask(state, move |_| whole.cleanup())?))
    }

    fn verify(&self, step: &Step<'_>) -> Answer {
        let name = step.text("on").unwrap_or("state");
        let Some(Handle::State(state)) = self.handles.get(name) else {
            return wrong(format!("no store '{name}' to verify"));
        };
        let whole = state.clone();
        let found = self.ask(state, move |_| whole.verify())?;
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
                Some(Handle::Items(items)) => Box::new(|| items.next().map(|item| Ok(pair(item?)))),
                _ => return wrong(format!("'{}' is for iterators", step.verb)),
            };
        if step.verb == "rest" { std::iter::from_fn(next).collect() } else { next().unwrap_or_else(|| Ok(end())) }
    }

    fn watch(&mut self, step: &Step<'_>, scope: &Scope, text: &str) -> Answer {
        Ok(match step.verb {
            "named_watches" => self.ask(scope, Scope::named_watches)?.said(),
            "forget_watch" => {
                let name = text.to_owned();
                self.ask(scope, move |scope| scope.forget_watch(&name))?.said()
            }
            _ => {
                let since = step.members.get("since").map(|since| self.known.expand(since).map_err(Failure::Wrong));
                let options = WatchOptions {
                    pattern: Some(text.to_owned()).filter(|_| !step.arguments.is_empty()),
                    since: since.transpose()?.and_then(|since| since.as_u64()),
                    name: step.text("name").map(str::to_owned),
                };
                let watch = self.ask(scope, move |scope| scope.watch(options))?;
                self.name(step, Handle::Watch(watch))
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
            "changes" => std::iter::from_fn(|| self.next_change(watch, QUIET).transpose())
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
                self.next_change(watch, Duration::from_millis(most))?.map_or_else(end, |change| {
                    let value = json!({
                        "key": change.key,
                        "operation": change.operation.name(),
                        "value": of_change(change.value.as_ref()),
                        "old": of_change(change.old.as_ref()),
                        "version": change.version,
                        "time": change.time_ms,
                        "ends_commit": change.ends_commit,
                    });
                    past::origin_value(change.origin, value)
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

pub(crate) fn select(step: &Step<'_>, pattern: &str) -> Select {
    Select {
        pattern: Some(pattern.to_owned()),
        after: step.text("after").map(str::to_owned),
        limit: step.members.get("limit").and_then(Value::as_u64),
        reverse: step.members.get("reverse") == Some(&Value::Bool(true)),
    }
}

pub(crate) fn of_change(value: Option<&Document>) -> Value {
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

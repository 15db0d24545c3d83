//! The two ways to make a call, waiting for it or awaiting it, so that every case runs on both.

use crate::contract::{Answer, Failure, Handle, Run, Step, is_conflict};
use crate::forms::missing;
use llmspell_state_persistence::{
    Change, Document, Entry, NamedWatch, Number, Result, Retry, Scope, Transaction, Watch, limits,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What has the data operations.
#[derive(Clone)]
pub(crate) enum Target {
    Scope(Scope),
    Transaction(Transaction),
}

/// The same verb on whichever it is: called, or awaited as work that is handed over.
macro_rules! on {
    ($run:expr, $target:expr, $handle:ident => $verb:expr) => {
        match (&$run.runtime, $target) {
            (None, Target::Scope($handle)) => $verb.map(Said::said),
            (None, Target::Transaction($handle)) => $verb.map(Said::said),
            (Some(runtime), Target::Scope(scope)) => {
                runtime.block_on(scope.call(move |$handle| $verb).into_future()).map(Said::said)
            }
            (Some(runtime), Target::Transaction(transaction)) => {
                runtime.block_on(transaction.call(move |$handle| $verb).into_future()).map(Said::said)
            }
        }
    };
    // A verb that a scope has as a call of its own.
    ($run:expr, $target:expr, $handle:ident => $verb:expr, $calls:ident => $call:expr) => {
        match (&$run.runtime, $target) {
            (Some(runtime), Target::Scope(scope)) => {
                let $calls = scope.calls();
                $call.and_then(|call| runtime.block_on(call.into_future())).map(Said::said)
            }
            (_, target) => on!($run, target, $handle => $verb),
        }
    };
}

/// What a verb says, as a value.
pub(crate) trait Said {
    fn said(self) -> Value;
}

macro_rules! said {
    ($($type:ty: $said:ident => $value:expr),* $(,)?) => {
        $(impl Said for $type {
            fn said(self) -> Value {
                let $said = self;
                $value
            }
        })*
    };
}

said! {
    // Within a transaction a write says nothing.
    (): _said => missing(),
    u64: version => version.into(),
    bool: existed => existed.into(),
    Number: number => match number {
        Number::Int(sum) => sum.into(),
        Number::Float(sum) => sum.into(),
    },
    Document: document => document.to_value(),
    Vec<String>: keys => keys.into(),
    Vec<(String, Arc<Entry>)>: items => items.into_iter().map(pair).collect(),
    Option<Value>: value => value.unwrap_or_else(missing),
    Option<Arc<Entry>>: entry => entry.map_or_else(missing, |entry| entry_value(&entry)),
    Vec<Option<Arc<Entry>>>: entries => entries.into_iter().map(Said::said).collect(),
    Vec<NamedWatch>: watches => watches.into_iter().map(|watch| (watch.name, Value::from(watch.version))).collect(),
}

impl Run<'_> {
    /// A question to a scope that has no call of its own.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        scope: &Scope,
        question: impl FnOnce(&Scope) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.runtime {
            None => question(scope),
            Some(runtime) => runtime.block_on(scope.call(question).into_future()),
        }
    }

    /// The same seen from a child scope.
    pub(crate) fn down(&self, target: Target, name: &str) -> Result<Target, Failure> {
        let name = name.to_owned();
        Ok(match (&self.runtime, target) {
            (_, Target::Scope(scope)) => Target::Scope(self.ask(&scope, move |scope| scope.scope(&name))?),
            (None, Target::Transaction(transaction)) => Target::Transaction(transaction.scope(&name)?),
            (Some(runtime), Target::Transaction(transaction)) => {
                let call = transaction.call(move |transaction| transaction.scope(&name));
                Target::Transaction(runtime.block_on(call.into_future())?)
            }
        })
    }

    pub(crate) fn begin(&self, scope: &Scope) -> Result<Transaction> {
        match &self.runtime {
            None => scope.transaction(),
            Some(runtime) => runtime.block_on(scope.calls().transaction()?.into_future()),
        }
    }

    pub(crate) fn commit(&self, transaction: &Transaction) -> Result<u64> {
        match &self.runtime {
            None => transaction.commit(),
            Some(runtime) => runtime.block_on(transaction.commit_call()?.into_future()),
        }
    }

    /// The next change of a watch, if it comes in time.
    pub(crate) fn next_change(&self, watch: &Watch, most: Duration) -> Result<Option<Change>> {
        match &self.runtime {
            None => watch.next_timeout(most),
            Some(runtime) => {
                let next = runtime.block_on(async { tokio::time::timeout(most, watch.recv()).await });
                next.unwrap_or(Ok(None))
            }
        }
    }

    pub(crate) fn transact(&mut self, step: &Step<'_>, scope: &Scope) -> Answer {
        let attempts = step.members.get("attempts").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let attempts = attempts.unwrap_or(limits::ATTEMPTS);
        let name = step.text("as").unwrap_or("_").to_owned();
        let outer = std::mem::take(&mut self.round);
        let once = |run: &mut Self, transaction: &Transaction| {
            run.round += 1;
            run.handles.insert(name.clone(), Handle::Transaction(transaction.clone()));
            run.steps(step.arguments[0])
        };
        let outcome = if self.runtime.is_none() || attempts == 0 {
            scope.transact_with(attempts, is_conflict, |transaction| once(self, transaction))
        } else {
            // As whoever may not wait does it.
            let mut retry = Retry::new(attempts);
            loop {
                let transaction = self.begin(scope)?;
                let outcome = match once(self, &transaction) {
                    Ok(answer) if transaction.has_ended() => Ok(answer),
                    Ok(answer) => self.commit(&transaction).map(|_| answer).map_err(Failure::Store),
                    Err(failure) => {
                        if !transaction.has_ended() {
                            transaction.rollback()?;
                        }
                        Err(failure)
                    }
                };
                match outcome {
                    Err(failure) if is_conflict(&failure) && retry.pause().is_some() => {}
                    outcome => break outcome,
                }
            }
        };
        self.round = outer;
        outcome
    }
}

pub(crate) use on;

pub(crate) fn pair((key, entry): (String, Arc<Entry>)) -> Value {
    json!([key, entry.value()])
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

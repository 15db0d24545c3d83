//! Every public operation that may touch the disk, each with what it needs and what it answers.

use crate::vfs::fault::with_a_write;
use llmspell_state_persistence::{
    Call, Change, Document, Entry, Error, ErrorKind, IntoDocument as _, Origin, Result, RetentionPolicy, Scope, Select,
    State, Transaction, Undo, Watch, WatchOptions,
};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// What an operation works with.
pub(super) struct Bench {
    pub(super) state: State,
    /// A scope that exists already.
    pub(super) scope: Scope,
    /// A transaction that began before the fault.
    pub(super) transaction: Option<Transaction>,
    /// A watch that was opened before the fault.
    pub(super) watch: Option<Watch>,
    /// What it has told so far.
    pub(super) told: RefCell<Vec<Value>>,
}

impl Bench {
    pub(super) fn new(state: State) -> Result<Self> {
        let scope = state.scope("scope")?;
        Ok(Self { state, scope, transaction: None, watch: None, told: RefCell::default() })
    }

    fn watch(&self) -> Result<&Watch> {
        self.watch.as_ref().ok_or_else(|| Error::invalid("the watch was not opened"))
    }

    /// Takes the next change, if there is one.
    fn take(&self) -> Result<bool> {
        let change = self.watch()?.next_timeout(Duration::ZERO)?;
        let told = change.as_ref().map(told);
        self.told.borrow_mut().extend(told);
        Ok(change.is_some())
    }

    /// Everything that the watch has told and has still to tell: a call that failed has lost nothing and skipped nothing.
    pub(super) fn stream(&self) -> Result<Vec<Value>> {
        if self.watch.as_ref().is_some_and(|watch| !watch.is_closed()) {
            while self.take()? {}
        }
        Ok(self.told.borrow().clone())
    }
}

fn told(change: &Change) -> Value {
    let Change { version, key, operation, value, old, ends_commit, .. } = change;
    json!([
        version,
        key,
        operation.name(),
        value.as_ref().map(Document::text),
        old.as_ref().map(Document::text),
        ends_commit
    ])
}

/// What has happened to the store before an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Past {
    /// There is no file.
    Nothing,
    /// It was closed in order.
    Closed,
    /// Its last process was killed: there is a log, or a journal, to recover from.
    Killed,
    /// It was killed with a log so long that the next write moves it into the database.
    Long,
}

/// How an operation is run.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Opening is the operation.
    Open,
    /// On a store that was opened before the fault, of which `prepare` has used what it likes.
    Call { prepare: fn(&mut Bench) -> Result<()>, call: fn(&Bench) -> Result<Value> },
    /// Closing is the operation.
    Close,
}

/// One operation.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) past: Past,
    pub(super) run: Run,
}

const fn call(name: &'static str, call: fn(&Bench) -> Result<Value>) -> Operation {
    Operation { name, past: Past::Killed, run: Run::Call { prepare: |_| Ok(()), call } }
}

/// A call on a store whose values, and pages, were all read before.
const fn warm(name: &'static str, call: fn(&Bench) -> Result<Value>) -> Operation {
    Operation { name, past: Past::Closed, run: Run::Call { prepare: read_all, call } }
}

/// A call in a transaction that began before the fault.
const fn within(name: &'static str, call: fn(&Bench) -> Result<Value>) -> Operation {
    Operation { name, past: Past::Closed, run: Run::Call { prepare: begin, call } }
}

/// A call of a named watch that has fetched changes and given so many of them.
const fn watching(
    name: &'static str,
    prepare: fn(&mut Bench) -> Result<()>,
    call: fn(&Bench) -> Result<Value>,
) -> Operation {
    Operation { name, past: Past::Closed, run: Run::Call { prepare, call } }
}

fn watch_some(bench: &mut Bench) -> Result<()> {
    follow(bench, 5)
}

/// Takes all that was fetched: the next one keeps how far it has come, and fetches.
fn watch_page(bench: &mut Bench) -> Result<()> {
    follow(bench, usize::MAX)
}

fn follow(bench: &mut Bench, most: usize) -> Result<()> {
    bench.watch = Some(bench.state.watch(named(INDEXER))?);
    let mut taken = usize::from(bench.take()?);
    while taken < most
        && let Some(change) = bench.watch()?.pop()
    {
        bench.told.borrow_mut().push(told(&change));
        taken += 1;
    }
    Ok(())
}

/// A watch that the stores know already.
const INDEXER: &str = "indexer";

fn named(name: &str) -> WatchOptions {
    WatchOptions { name: Some(name.into()), ..WatchOptions::from("[kld]*") }
}

/// Makes a call without waiting for it, and waits for its answer.
fn posted<T: Send + 'static>(call: Call<T>) -> Result<T> {
    let (tell, told) = channel();
    call.then(move |answer| drop(tell.send(answer)));
    told.recv().map_err(|_| Error::invalid("nobody was told"))?
}

/// Calls that are committed together, since they are made while another one is under way. Either all of them fail, or none does but
/// the one whose condition does not hold.
fn grouped(bench: &Bench) -> Result<Value> {
    let (tell, told) = channel();
    let scope: Scope = (*bench.state).clone();
    let calls = move || {
        let calls = scope.calls();
        let begun = [
            calls.set("k007", "grouped").map(|call| later(call, &tell, |answer| Ok(answer?.into()))),
            calls.set_if("counter", 1, 0).map(|call| later(call, &tell, conflict)),
            calls.append("list", 3).map(|call| later(call, &tell, |answer| Ok(answer?.into()))),
            calls.set("grouped", noise(5_000)).map(|call| later(call, &tell, |answer| Ok(answer?.into()))),
        ];
        begun.into_iter().filter_map(Result::err).for_each(|error| drop(tell.send(Err(error))));
    };
    // The other one writes nothing.
    let first = conflict(with_a_write(calls, || posted(bench.state.calls().set_if("counter", 1, 0)?)));
    let answers: Vec<Result<Value>> = told.iter().collect();
    if answers.is_empty() {
        return first;
    }
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    if failed > 0 && failed < answers.len() {
        return Err(Error::invalid(format!("calls of a group have different answers: {answers:?}")));
    }
    answers.into_iter().collect()
}

fn later<T: Send + 'static>(
    call: Call<T>,
    tell: &Sender<Result<Value>>,
    show: impl FnOnce(Result<T>) -> Result<Value> + Send + 'static,
) {
    let tell = tell.clone();
    call.then(move |answer| drop(tell.send(show(answer))));
}

fn read_all(bench: &mut Bench) -> Result<()> {
    bench.state.items("*")?.chain(bench.scope.items("*")?).try_for_each(|item| item.map(drop))
}

fn begin(bench: &mut Bench) -> Result<()> {
    bench.transaction = Some(bench.state.transaction()?);
    Ok(())
}

/// Has one version kept of each key. What is over is told before, which is a commit of its own.
fn keep_one(bench: &mut Bench) -> Result<()> {
    bench.state.cleanup()?;
    bench.state.set_retention(Some(&one_version())).map(drop)
}

fn one_version() -> RetentionPolicy {
    // The named watch of these stores has still to tell of everything.
    RetentionPolicy { max_versions: 1, trim_watched: true, ..RetentionPolicy::keep_all() }
}

/// A fork that has changed something, and so has what it was made from.
fn part(bench: &mut Bench) -> Result<()> {
    let fork = bench.state.fork("scope", "copy")?;
    fork.set("in", "theirs")?;
    fork.set("new", noise(5_000))?;
    bench.scope.set("own", "ours").map(drop)
}

const RUN: &str = "trial";

fn run_something(bench: &mut Bench) -> Result<()> {
    let run = bench.state.as_run(Origin { run: Some(RUN.into()), ..Origin::default() })?;
    run.set("k001", "tried")?;
    run.delete("k002")?;
    run.set("tried", noise(5_000)).map(drop)
}

/// An hour.
const TTL: Duration = Duration::from_secs(3_600);

/// Every operation.
pub(super) const ALL: &[Operation] = &[
    Operation { name: "open-new", past: Past::Nothing, run: Run::Open },
    Operation { name: "open-closed", past: Past::Closed, run: Run::Open },
    Operation { name: "open-killed", past: Past::Killed, run: Run::Open },
    Operation { name: "open-long", past: Past::Long, run: Run::Open },
    Operation { name: "close-idle", past: Past::Closed, run: Run::Close },
    Operation { name: "close-killed", past: Past::Killed, run: Run::Close },
    Operation { name: "close-long", past: Past::Long, run: Run::Close },
    call("get", |bench| Ok(bench.state.get("k007")?.into())),
    call("get-large", |bench| Ok(bench.state.get("large")?.into())),
    call("get-missing", |bench| Ok(bench.state.get("nowhere")?.into())),
    warm("get-cached", |bench| Ok(bench.state.get("k007")?.into())),
    call("get-scope", |bench| Ok(bench.scope.get("in")?.into())),
    call("entry", |bench| Ok(entry(bench.state.entry("counter")?.as_ref()))),
    call("exists", |bench| Ok(bench.state.exists("deleted")?.into())),
    call("get-many", |bench| Ok(entries(&bench.state.get_many(&["k001", "nowhere", "large", "k200"])?))),
    warm("get-many-cached", |bench| Ok(entries(&bench.state.get_many(&["k001", "nowhere", "large", "k200"])?))),
    call("count", |bench| Ok(bench.state.count("k1*")?.into())),
    call("count-glob", |bench| Ok(bench.state.count("*[05]")?.into())),
    call("keys", |bench| keys(bench.state.keys("*")?)),
    call("keys-reverse", |bench| {
        keys(bench.state.keys(Select { limit: Some(9), reverse: true, ..Select::from("k*") })?)
    }),
    call("items", |bench| items(bench.state.items("*")?)),
    call("scopes", |bench| Ok(bench.state.scopes()?.into())),
    call("scope-find", |bench| Ok(bench.state.scope("scope")?.get("in")?.into())),
    call("scope-make", |bench| Ok(bench.state.scope("made").map(|scope| scope.name().to_owned())?.into())),
    call("version", |bench| Ok(bench.state.version()?.into())),
    call("verify", |bench| Ok(bench.state.verify()?.problems.len().into())),
    call("set-first", |bench| Ok(bench.state.set("new", "value")?.into())),
    warm("set", |bench| Ok(bench.state.set("k007", json!({"a": [1, 2, 3]}))?.into())),
    warm("set-large", |bench| Ok(bench.state.set("large", noise(60_000))?.into())),
    Operation {
        name: "set-long-log",
        past: Past::Long,
        run: Run::Call { prepare: |_| Ok(()), call: |bench| Ok(bench.state.set("new", noise(5_000))?.into()) },
    },
    warm("set-scope", |bench| Ok(bench.scope.set("in", 2)?.into())),
    warm("set-if", |bench| Ok(bench.state.set_if("new", 1, 0)?.into())),
    call("set-if-conflict", |bench| conflict(bench.state.set_if("k001", 1, 0))),
    call("set-many", |bench| {
        Ok(bench.state.set_many((0..40).map(|n| (format!("many{n}"), format!("{n}").repeat(n))))?.into())
    }),
    call("history", |bench| {
        let told = bench.state.history("k007", None)?;
        Ok(told.iter().map(|revision| revision.value.as_ref().map_or(Value::Null, Document::to_value)).collect())
    }),
    call("at", |bench| items(bench.state.at(FIRST)?.items("*")?)),
    call("diff", |bench| bench.state.diff(FIRST, None, "*")?.map(|found| Ok(Value::from(found?.key))).collect()),
    call("revert", |bench| Ok(bench.state.revert("k007", 0)?.into())),
    warm("revert-to", |bench| Ok(bench.state.revert_to(FIRST, "*")?.into())),
    call("delete", |bench| Ok(bench.state.delete("k100")?.into())),
    call("delete-missing", |bench| Ok(bench.state.delete("nowhere")?.into())),
    warm("delete-if", |bench| Ok(bench.state.delete_if("k000", FIRST)?.into())),
    call("clear", |bench| Ok(bench.state.clear("k0*")?.into())),
    warm("clear-all", |bench| Ok(bench.state.clear("*")?.into())),
    call("modify", |bench| {
        let made = bench.state.modify("counter", |old: Option<&Arc<Entry>>| {
            json!([old.map(|old| old.value())]).into_document(usize::MAX)
        })?;
        Ok(entry(Some(&made)))
    }),
    call("increment", |bench| Ok(format!("{:?}", bench.state.increment("counter", 3)?).into())),
    warm("append", |bench| Ok(bench.state.append("list", "item")?.into())),
    call("merge", |bench| Ok(bench.state.merge("object", json!({"b": null, "c": 3}))?.text().into())),
    call("begin", |bench| Ok(bench.state.transaction()?.is_active().into())),
    within("tx-get", |bench| Ok(transaction(bench)?.get("k009")?.into())),
    within("tx-get-many", |bench| Ok(entries(&transaction(bench)?.get_many(&["k001", "large"])?))),
    within("tx-items", |bench| items(transaction(bench)?.items("k2*")?)),
    within("tx-count", |bench| Ok(transaction(bench)?.count("k*")?.into())),
    within("tx-set-if", |bench| {
        transaction(bench)?.set_if("new", 1, 0)?;
        Ok(Value::Null)
    }),
    within("tx-clear", |bench| {
        let tx = transaction(bench)?;
        tx.clear("k1*")?;
        Ok(tx.commit()?.into())
    }),
    within("tx-update", |bench| {
        let tx = transaction(bench)?;
        tx.increment("counter", 1)?;
        tx.append("list", 4)?;
        tx.merge("object", json!({"b": 3}))?;
        tx.delete("k001")?;
        tx.set_many([("x", 1), ("y", 2)])?;
        Ok(tx.commit()?.into())
    }),
    within("tx-scope", |bench| {
        let tx = transaction(bench)?;
        tx.scope("scope")?.set("in", 5)?;
        tx.set("out", 5)?;
        Ok(tx.commit()?.into())
    }),
    within("tx-read-only", |bench| {
        let tx = transaction(bench)?;
        tx.get("k001")?;
        Ok(tx.commit()?.into())
    }),
    within("tx-rollback", |bench| {
        let tx = transaction(bench)?;
        tx.set("k001", "never")?;
        tx.rollback()?;
        Ok(Value::Null)
    }),
    Operation {
        name: "tx-conflict",
        past: Past::Killed,
        run: Run::Call {
            prepare: |bench| {
                let tx = bench.state.transaction()?;
                tx.set("x", tx.get("k003")?.unwrap_or_default())?;
                tx.count("k2*")?;
                bench.state.set("k003", "other")?;
                bench.transaction = Some(tx);
                Ok(())
            },
            call: |bench| conflict(transaction(bench)?.commit()),
        },
    },
    Operation {
        name: "tx-reliance",
        past: Past::Killed,
        run: Run::Call {
            prepare: |bench| {
                let tx = bench.state.transaction()?;
                tx.set("x", tx.get("k003")?.unwrap_or_default())?;
                tx.count("k2*")?;
                bench.state.set("k004", "other")?;
                bench.transaction = Some(tx);
                Ok(())
            },
            call: |bench| Ok(transaction(bench)?.commit()?.into()),
        },
    },
    call("set-ttl", |bench| Ok(bench.state.set_with("k007", "brief", TTL)?.into())),
    call("set-over-expired", |bench| Ok(bench.state.set("brief", "again")?.into())),
    warm("touch", |bench| Ok(bench.state.touch("large", TTL)?.into())),
    call("touch-expired", |bench| Ok(bench.state.touch("brief", TTL)?.into())),
    call("sweep", |bench| Ok(bench.state.cleanup()?.expired.into())),
    Operation {
        name: "trim",
        past: Past::Long,
        run: Run::Call { prepare: keep_one, call: |bench| Ok(bench.state.cleanup()?.trimmed.into()) },
    },
    call("set-default-ttl", |bench| Ok(bench.scope.set_default_ttl(TTL)?.into())),
    call("set-retention", |bench| Ok(bench.scope.set_retention(Some(&one_version()))?.into())),
    Operation {
        name: "fork",
        past: Past::Killed,
        run: Run::Call {
            prepare: |bench| bench.state.cleanup().map(drop),
            call: |bench| Ok(bench.state.fork("scope", "copy")?.name().into()),
        },
    },
    Operation {
        name: "merge-fork",
        past: Past::Closed,
        run: Run::Call {
            prepare: part,
            call: |bench| {
                let merged = bench.scope.merge_from(&bench.state.scope("copy")?)?;
                Ok(json!([merged.version, merged.keys]))
            },
        },
    },
    Operation {
        name: "undo",
        past: Past::Closed,
        run: Run::Call {
            prepare: run_something,
            call: |bench| Ok(bench.state.undo(Undo { run: Some(RUN.into()), ..Undo::default() })?.keys.into()),
        },
    },
    warm("post-set", |bench| Ok(posted(bench.state.calls().set("k007", "posted")?)?.into())),
    warm("post-group", grouped),
    call("post-group-cold", grouped),
    call("post-append", |bench| Ok(posted(bench.state.calls().append("list", 3)?)?.into())),
    within("post-commit", |bench| {
        let tx = transaction(bench)?;
        tx.increment("counter", 1)?;
        Ok(posted(tx.commit_call()?)?.into())
    }),
    call("watch-open", |bench| Ok(bench.state.watch("*")?.version().into())),
    call("watch-since", |bench| {
        let watch = bench.state.watch(WatchOptions { since: Some(1), ..WatchOptions::default() })?;
        let all = std::iter::from_fn(|| watch.next_timeout(Duration::ZERO).transpose());
        all.map(|change| change.map(|change| told(&change))).collect()
    }),
    call("watch-name", |bench| Ok(bench.state.watch(named("another"))?.version().into())),
    call("watch-named", |bench| Ok(bench.state.watch(named(INDEXER))?.version().into())),
    call("named-watches", |bench| {
        Ok(bench.state.named_watches()?.iter().map(|watch| json!([watch.name, watch.version])).collect())
    }),
    call("forget-watch", |bench| Ok(bench.state.forget_watch(INDEXER)?.into())),
    watching("watch-next", watch_page, |bench| Ok(bench.take()?.into())),
    watching("watch-save", watch_some, |bench| {
        bench.watch()?.save()?;
        Ok(bench.watch()?.version().into())
    }),
    watching("watch-close", watch_some, |bench| bench.watch()?.close().map(|()| Value::Null)),
    call("transact", |bench| {
        bench.state.transact(|tx| {
            let old = tx.get("counter")?;
            tx.set("copy", old.unwrap_or_default())?;
            tx.set("large", noise(9_000))?;
            Ok(tx.delete("k002")?.into())
        })
    }),
    Operation {
        name: "reopen-write",
        past: Past::Killed,
        run: Run::Call {
            prepare: |bench| bench.state.close(),
            call: |bench| {
                let state = State::with_config(bench.state.config().clone())?;
                let version = state.set("k001", 1);
                // What closing says is another operation's business.
                drop(state);
                Ok(version?.into())
            },
        },
    },
];

/// The version of the store's first keys.
const FIRST: u64 = 1;

/// Fills a new store: keys for more than one page of a listing, values of all sizes, a tombstone, a scope.
pub(super) fn fill(state: &State) -> Result<()> {
    state.set_many((0..270).map(|n| (format!("k{n:03}"), n)))?;
    let options = WatchOptions { since: Some(0), ..named(INDEXER) };
    state.watch(options)?.close()?;
    state.set_many([("counter", json!(40)), ("list", json!([1, 2])), ("object", json!({"a": 1, "b": 2}))])?;
    state.set("large", noise(20_000))?;
    state.set("deleted", true)?;
    state.delete("deleted")?;
    state.scope("scope")?.set("in", 1)?;
    state.set_with("brief", "over", Duration::from_secs(1))?;
    Ok(())
}

/// Text that does not compress, the same every time.
fn noise(len: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.alphanumeric()).take(len).collect()
}

fn transaction(bench: &Bench) -> Result<&Transaction> {
    bench.transaction.as_ref().ok_or_else(|| Error::invalid("the transaction was not begun"))
}

/// A conflict is the answer.
fn conflict<T>(answer: Result<T>) -> Result<Value> {
    match answer {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok("conflict".into()),
        Err(error) => Err(error),
        Ok(_) => Ok("no conflict".into()),
    }
}

fn entry(entry: Option<&Arc<Entry>>) -> Value {
    entry.map_or(Value::Null, |entry| json!([entry.value(), entry.version()]))
}

fn entries(found: &[Option<Arc<Entry>>]) -> Value {
    found.iter().map(|found| entry(found.as_ref())).collect()
}

fn keys(keys: impl Iterator<Item = Result<String>>) -> Result<Value> {
    keys.map(|key| key.map(Value::from)).collect()
}

fn items(items: impl Iterator<Item = Result<(String, Arc<Entry>)>>) -> Result<Value> {
    items.map(|item| item.map(|(key, found)| json!([key, entry(Some(&found))]))).collect()
}

//! The verbs for who does not wait: each answers the number of a call, whose results the queue will have, or, where they are
//! known at once, nil and the results.

use crate::args::{Source, Target};
use crate::call::{Call, Returned, function};
use crate::handle::{self, Functions, Object, Owner};
use crate::iterators;
use crate::outcome::Outcome;
use crate::{queue, state, value};
use llmspell_state_persistence::{Call as Made, Entry, Result, Scope, State, limits};
use std::sync::{Arc, PoisonError};

pub(crate) static FUNCTIONS: Functions = &[
    function!("get", get),
    function!("entry", entry),
    function!("get_many", get_many),
    function!("set", reading set),
    function!("set_many", reading set_many),
    function!("delete", delete),
    function!("clear", clear),
    function!("count", count),
    function!("exists", exists),
    function!("keys", keys),
    function!("items", items),
    function!("step", step),
    function!("modify", reading modify),
    function!("swap", reading swap),
    function!("increment", increment),
    function!("append", reading append),
    function!("merge", reading merge),
    function!("scope", scope),
    function!("scopes", scopes),
    function!("transaction", transaction),
    function!("attempts", attempts),
    function!("commit", commit),
    function!("finish", finish),
    function!("abandon", abandon),
    function!("version", version),
    function!("verify", verify),
    function!("watch", watch),
    function!("named_watches", named_watches),
    function!("forget_watch", forget_watch),
    function!("next", next),
    function!("ready", ready),
    function!("forget", forget),
    function!("save", save),
    function!("close", close),
    function!("open", reading open),
    function!("check_handle", check_handle),
    function!("check_watch", check_watch),
];

/// Has a call made, and answers its number.
pub(crate) fn begin<T: Send + 'static>(
    call: &Call,
    made: Made<T>,
    meaning: impl FnOnce(T) -> Outcome + Send + 'static,
) -> Returned {
    let teller = queue::current(**call)?.teller();
    let id = teller.id();
    made.then(move |done| teller.tell(done.map(meaning)));
    call.push_count(id);
    Ok(1)
}

/// Answers what is known already.
fn known(call: &Call, outcome: Outcome) -> Returned {
    call.push_nil();
    Ok(1 + outcome.push(**call)?)
}

/// Work that may ask the database, on any kind of handle, as a call.
macro_rules! work {
    ($source:expr, $handle:ident => $verb:expr) => {
        match $source {
            Source::Scope(handle) => handle.call(move |$handle| $verb),
            Source::Transaction(handle) => handle.call(move |$handle| $verb),
            Source::View(handle) => handle.call(move |$handle| $verb),
        }
    };
}

/// Asks for an entry, or knows it.
fn ask(call: &Call, meaning: fn(Option<Arc<Entry>>) -> Outcome) -> Returned {
    let (source, key) = (call.source()?, call.text(2)?);
    if let Some(entry) = source.peek(key)? {
        return known(call, meaning(entry));
    }
    let key = key.to_owned();
    begin(call, work!(source, handle => handle.entry(&key)), meaning)
}

fn get(call: &Call) -> Returned {
    ask(call, Outcome::Value)
}

fn entry(call: &Call) -> Returned {
    ask(call, Outcome::Entry)
}

fn exists(call: &Call) -> Returned {
    ask(call, |entry| Outcome::Flag(entry.is_some()))
}

fn get_many(call: &Call) -> Returned {
    let source = call.source()?;
    call.check_table(2)?;
    let keys = value::read_texts(call, 2).map_err(|problem| call.bad_argument(2, &problem))?;
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    let made = work!(source, handle => {
        let entries = handle.get_many(&keys)?;
        Ok(keys.into_iter().zip(entries).filter_map(|(key, entry)| Some((key, entry?))).collect())
    });
    begin(call, made, Outcome::Found)
}

fn set(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    call.check_value(3)?;
    let options = call.set_options(4)?;
    let document = value::read(call, 3, target.max_value_bytes())?;
    match target {
        Target::Scope(scope) => begin(call, scope.calls().set_with(key, document, options)?, Outcome::Count),
        Target::Transaction(transaction) if options.if_version.is_none() && transaction.is_idle() => {
            transaction.set_with(key, document, options)?;
            known(call, Outcome::Nothing)
        }
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            let made = transaction.call(move |transaction| transaction.set_with(&key, document, options));
            begin(call, made, |()| Outcome::Nothing)
        }
    }
}

fn set_many(call: &Call) -> Returned {
    let target = call.target()?;
    call.check_table(2)?;
    let ttl = call.ttl_option(3)?;
    let members = value::read_members(call, 2, target.max_value_bytes())?;
    match target {
        Target::Scope(scope) => begin(call, scope.calls().set_many_with(members, ttl)?, Outcome::Count),
        Target::Transaction(transaction) if transaction.is_idle() => {
            transaction.set_many_with(members, ttl)?;
            known(call, Outcome::Nothing)
        }
        Target::Transaction(transaction) => {
            let members: Vec<_> = members.into_iter().map(|(key, document)| (key.to_owned(), document)).collect();
            let made = transaction.call(move |transaction| transaction.set_many_with(members, ttl));
            begin(call, made, |()| Outcome::Nothing)
        }
    }
}

fn delete(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let if_version = call.if_version(3)?;
    let made = match (target, if_version) {
        (Target::Scope(scope), None) => scope.calls().delete(key)?,
        (Target::Scope(scope), Some(version)) => scope.calls().delete_if(key, version)?,
        (Target::Transaction(transaction), if_version) => {
            let key = key.to_owned();
            transaction.call(move |transaction| match if_version {
                None => transaction.delete(&key),
                Some(version) => transaction.delete_if(&key, version),
            })
        }
    };
    begin(call, made, Outcome::Flag)
}

fn clear(call: &Call) -> Returned {
    let target = call.target()?;
    let pattern = call.pattern(2)?;
    let made = match target {
        Target::Scope(scope) => scope.calls().clear(pattern)?,
        Target::Transaction(transaction) => {
            let pattern = pattern.to_owned();
            transaction.call(move |transaction| transaction.clear(&pattern))
        }
    };
    begin(call, made, Outcome::Count)
}

fn count(call: &Call) -> Returned {
    let source = call.source()?;
    let pattern = call.pattern(2)?.to_owned();
    begin(call, work!(source, handle => handle.count(&pattern)), Outcome::Count)
}

/// The iterator itself, for `step`.
fn keys(call: &Call) -> Returned {
    let keys = iterators::begin_keys(call)?;
    known(call, Outcome::Handle(keys))
}

fn items(call: &Call) -> Returned {
    let items = iterators::begin_items(call)?;
    known(call, Outcome::Handle(items))
}

/// The next of an iterator.
fn step(call: &Call) -> Returned {
    match handle::object(call, 1) {
        Some(Object::Keys(keys, owner)) => {
            if let Ok(mut keys) = keys.try_lock()
                && keys.is_buffered()
            {
                let key = keys.next().transpose()?;
                drop(keys);
                return known(call, Outcome::Key(key));
            }
            let keys = Arc::clone(keys);
            let next = move || keys.lock().unwrap_or_else(PoisonError::into_inner).next().transpose();
            begin(call, made_by(owner, next), Outcome::Key)
        }
        Some(Object::Items(items, owner)) => {
            if let Ok(mut items) = items.try_lock()
                && items.is_buffered()
            {
                let item = items.next().transpose()?;
                drop(items);
                return known(call, Outcome::Item(item));
            }
            let items = Arc::clone(items);
            let next = move || items.lock().unwrap_or_else(PoisonError::into_inner).next().transpose();
            begin(call, made_by(owner, next), Outcome::Item)
        }
        Some(Object::Differences(differences, owner)) => {
            let differences = Arc::clone(differences);
            let next = move || differences.lock().unwrap_or_else(PoisonError::into_inner).next().transpose();
            begin(call, made_by(owner, next), Outcome::Difference)
        }
        _ => Err(iterators::gone()),
    }
}

/// Work of something that came from a handle.
fn made_by<T: Send + 'static>(owner: &Owner, work: impl FnOnce() -> Result<T> + Send + 'static) -> Made<T> {
    match owner {
        Owner::Scope(scope) => scope.call(move |_| work()),
        Owner::Transaction(transaction) => transaction.call(move |_| work()),
        Owner::View(view) => view.call(move |_| work()),
    }
}

/// `modify(key, fn, default)`: what the function is to get, and its version.
fn modify(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    call.check_function(3)?;
    let default = if call.is_missing(4) { None } else { Some(value::read(call, 4, target.max_value_bytes())?) };
    let source = target.source();
    if let Some(entry) = source.peek(key)? {
        return known(call, Outcome::Old(entry, default));
    }
    let key = key.to_owned();
    begin(call, work!(source, handle => handle.entry(&key)), |entry| Outcome::Old(entry, default))
}

/// `swap(key, value, version)`: what the function answered, if nobody was faster.
fn swap(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let document = value::read(call, 3, target.max_value_bytes())?;
    let version = call.integer(4).and_then(|version| u64::try_from(version).ok()).unwrap_or_default();
    match target {
        Target::Scope(scope) => {
            begin(call, scope.calls().swap(key, document, version)?, |entry| Outcome::Value(Some(entry)))
        }
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            let made = transaction.call(move |transaction| transaction.modify(&key, |_| Result::Ok(document)));
            begin(call, made, |entry| Outcome::Value(Some(entry)))
        }
    }
}

fn increment(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let by = call.addend(3)?;
    let made = match target {
        Target::Scope(scope) => scope.calls().increment(key, by)?,
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            transaction.call(move |transaction| transaction.increment(&key, by))
        }
    };
    begin(call, made, Outcome::Number)
}

fn append(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let item = value::read(call, 3, target.max_value_bytes())?;
    let made = match target {
        Target::Scope(scope) => scope.calls().append(key, item)?,
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            transaction.call(move |transaction| transaction.append(&key, item))
        }
    };
    begin(call, made, Outcome::Count)
}

fn merge(call: &Call) -> Returned {
    let (target, key) = call.keyed()?;
    let patch = value::read(call, 3, target.max_value_bytes())?;
    let made = match target {
        Target::Scope(scope) => scope.calls().merge(key, patch)?,
        Target::Transaction(transaction) => {
            let key = key.to_owned();
            transaction.call(move |transaction| transaction.merge(&key, patch))
        }
    };
    begin(call, made, Outcome::Document)
}

fn scope(call: &Call) -> Returned {
    let source = call.source()?;
    let name = call.text(2)?.to_owned();
    let made = match source {
        Source::Scope(scope) => scope.call(move |scope| scope.scope(&name).map(Object::Scope)),
        Source::Transaction(transaction) => {
            transaction.call(move |transaction| transaction.scope(&name).map(Object::Transaction))
        }
        Source::View(view) => view.call(move |view| view.scope(&name).map(Object::View)),
    };
    begin(call, made, Outcome::Handle)
}

fn scopes(call: &Call) -> Returned {
    begin(call, call.own_scope()?.call(Scope::scopes), Outcome::Names)
}

fn transaction(call: &Call) -> Returned {
    let made = call.own_scope()?.call(Scope::transaction);
    begin(call, made, |transaction| Outcome::Handle(Object::Transaction(transaction)))
}

/// `attempts(fn, options)`: how often `transact` runs its function at most.
fn attempts(call: &Call) -> Returned {
    let call = &call.on_behalf_of("transact");
    call.own_scope()?;
    call.check_function(2)?;
    call.push_count(call.attempts(3)?.unwrap_or(limits::ATTEMPTS).into());
    Ok(1)
}

fn commit(call: &Call) -> Returned {
    begin(call, call.own_transaction()?.commit_call()?, Outcome::Count)
}

/// `commit`, unless the function of `transact` has ended the transaction by itself.
fn finish(call: &Call) -> Returned {
    let transaction = call.own_transaction()?;
    if transaction.has_ended() {
        return known(call, Outcome::Nothing);
    }
    begin(call, transaction.commit_call()?, Outcome::Count)
}

/// Ends a transaction that its function left with an error.
fn abandon(call: &Call) -> Returned {
    let transaction = call.own_transaction()?;
    if !transaction.has_ended() {
        // In a fork nobody can use it anyway.
        let _ = transaction.rollback();
    }
    Ok(0)
}

fn version(call: &Call) -> Returned {
    let state = call.own_state()?;
    let made = state.call({
        let state = state.clone();
        move |_| state.version()
    });
    begin(call, made, Outcome::Count)
}

fn verify(call: &Call) -> Returned {
    let state = call.own_state()?;
    let made = state.call({
        let state = state.clone();
        move |_| state.verify()
    });
    begin(call, made, Outcome::Verification)
}

fn watch(call: &Call) -> Returned {
    let options = call.watch_options(2)?;
    let made = call.own_scope()?.call(move |scope| Ok(Object::Watch(scope.watch(options)?, scope.clone())));
    begin(call, made, Outcome::Handle)
}

fn named_watches(call: &Call) -> Returned {
    begin(call, call.own_scope()?.call(Scope::named_watches), Outcome::Watches)
}

fn forget_watch(call: &Call) -> Returned {
    let (scope, name) = (call.own_scope()?, call.text(2)?.to_owned());
    begin(call, scope.call(move |scope| scope.forget_watch(&name)), Outcome::Flag)
}

/// `next(timeout)` of a watch: the change that is there, nil at its end, or false when one has to be waited for; and the
/// timeout.
fn next(call: &Call) -> Returned {
    let (watch, scope) = call.own_watch()?;
    let timeout = call.seconds(2)?;
    if scope.is_closed() {
        // As the blocking call says it.
        watch.next()?;
    }
    call.set_top(0);
    match watch.pop() {
        None if !watch.is_closed() => call.push_boolean(false),
        change => {
            Outcome::Change(change).push(**call)?;
        }
    }
    match timeout {
        Some(timeout) => call.push_float(timeout.as_secs_f64()),
        None => call.push_nil(),
    }
    Ok(2)
}

/// Tells when `next` has something; answers the number of the call, and what `forget` takes.
fn ready(call: &Call) -> Returned {
    let watch = call.own_watch()?.0.clone();
    let teller = queue::current(**call)?.teller();
    call.set_top(0);
    call.push_count(teller.id());
    let waiter = watch.wait(move |done| teller.tell(done.map(|()| Outcome::Nothing)));
    handle::push(**call, Object::Waiter(watch, waiter))?;
    Ok(2)
}

/// Takes back what `ready` has begun.
fn forget(call: &Call) -> Returned {
    match handle::object(call, 1) {
        Some(Object::Waiter(watch, waiter)) => watch.forget(*waiter),
        _ => return Err(call.expected(1, "waiter")),
    }
    Ok(0)
}

fn save(call: &Call) -> Returned {
    let (watch, scope) = call.own_watch()?;
    begin(call, scope.call(move |_| watch.save()), |()| Outcome::Nothing)
}

/// `close` of a watch, also of one whose state is closed.
fn close(call: &Call) -> Returned {
    let (watch, scope) = call.own_watch()?;
    if scope.is_closed() {
        watch.close()?;
        return known(call, Outcome::Nothing);
    }
    begin(call, scope.call(move |_| watch.close()), |()| Outcome::Nothing)
}

/// `check_handle(handle, verb)` for verbs that are more than one call.
fn check_handle(call: &Call) -> Returned {
    const VERBS: [&str; 4] = ["modify", "keys", "items", "transact"];
    let verb = VERBS.into_iter().find(|verb| call.bytes(2) == Some(verb.as_bytes())).unwrap_or(call.name);
    let call = call.on_behalf_of(verb);
    match verb {
        "transact" => call.own_scope().map(drop),
        "modify" => call.target().map(|_| ()),
        _ => call.source().map(|_| ()),
    }?;
    Ok(0)
}

fn check_watch(call: &Call) -> Returned {
    call.on_behalf_of("next").own_watch()?;
    Ok(0)
}

/// Opens a store in a thread of its own: there is no store yet whose threads could do it.
fn open(call: &Call) -> Returned {
    let config = state::config(call)?;
    let teller = queue::current(**call)?.teller();
    let id = teller.id();
    queue::quietly("llmspell-open", move || {
        teller.tell(State::with_config(config).map(|state| Outcome::Handle(Object::State(state))));
    });
    call.push_count(id);
    Ok(1)
}

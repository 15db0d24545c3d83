//! Random verbs against a plain map: the same answers with and without a cache, with and without compression, in memory
//! and across reopening and kill -9. Maps that follow a scope by what a watch tells are the same, too.

mod replica;

use llmspell_state_persistence::{Document, Error, ErrorKind, Number, Scope, Select, State, StateConfig, SyncMode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use replica::Replica;

type Keys = BTreeMap<String, Value>;
/// What each scope holds.
type Model = [Keys; 3];

const SCOPES: [&[&str]; 3] = [&[], &["a"], &["a", "b"]];

#[derive(Debug, Clone)]
enum Verb {
    Get(String),
    Set(String, Value),
    Delete(String),
    Exists(String),
    Increment(String, i64),
    Append(String, Value),
    Merge(String, Value),
    Modify(String),
    SetMany(Vec<(String, Value)>),
    Clear(String),
    Count(String),
    Items { pattern: String, after: Option<String>, limit: Option<u64>, reverse: bool },
}

#[derive(Debug, Clone)]
enum Act {
    Plain(usize, Verb),
    /// Verbs inside, verbs of others meanwhile, verbs inside again; then a commit or a rollback.
    Transaction {
        early: Vec<(usize, Verb)>,
        others: Vec<(usize, Verb)>,
        late: Vec<(usize, Verb)>,
        commit: bool,
    },
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
    Reopen,
    /// A process sets keys, or deletes those without a number, and is killed while the last of it is under way.
    Kill(Vec<(String, Option<i64>)>),
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab][0-3]", 1 => Just("é".to_owned()), 1 => Just("a".to_owned())]
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_owned()), Just("a*".to_owned()), Just("*1".to_owned()), Just("[ab][0-1]".to_owned()), key()]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        (-5.0..5.0).prop_map(Value::from),
        "[a-zé\"\\\\]{0,8}".prop_map(Value::from),
        (1_usize..3000).prop_map(|length| "abcde".repeat(length).into()),
        prop::collection::vec(-5_i64..5, 0..4).prop_map(Value::from),
        prop::collection::btree_map(
            "[xyz]",
            prop_oneof![Just(Value::Null), Just(json!(1)), Just(json!({"in": [true]}))],
            0..3
        )
        .prop_map(|members| members.into_iter().collect()),
    ]
}

fn verb() -> impl Strategy<Value = (usize, Verb)> {
    let verb = prop_oneof![
        3 => key().prop_map(Verb::Get),
        4 => (key(), value()).prop_map(|(key, value)| Verb::Set(key, value)),
        2 => key().prop_map(Verb::Delete),
        1 => key().prop_map(Verb::Exists),
        2 => (key(), -3_i64..4).prop_map(|(key, by)| Verb::Increment(key, by)),
        1 => (key(), value()).prop_map(|(key, value)| Verb::Append(key, value)),
        1 => (key(), value()).prop_map(|(key, value)| Verb::Merge(key, value)),
        1 => key().prop_map(Verb::Modify),
        1 => prop::collection::vec((key(), value()), 0..6).prop_map(Verb::SetMany),
        1 => pattern().prop_map(Verb::Clear),
        1 => pattern().prop_map(Verb::Count),
        2 => (pattern(), prop::option::of(key()), prop::option::of(0_u64..5), any::<bool>())
            .prop_map(|(pattern, after, limit, reverse)| Verb::Items { pattern, after, limit, reverse }),
    ];
    (0..SCOPES.len(), verb)
}

fn act() -> impl Strategy<Value = Act> {
    let verbs = |most| prop::collection::vec(verb(), 0..most);
    prop_oneof![
        48 => verb().prop_map(|(scope, verb)| Act::Plain(scope, verb)),
        20 => (verbs(6), verbs(3), verbs(4), any::<bool>())
            .prop_map(|(early, others, late, commit)| Act::Transaction { early, others, late, commit }),
        6 => (prop::collection::vec((0..SCOPES.len(), key(), prop::option::of(value())), 1..8), prop::bool::weighted(0.2))
            .prop_map(|(calls, close)| Act::Post { calls, close }),
        8 => any::<bool>().prop_map(|save| Act::Follow { save }),
        4 => Just(Act::Reopen),
        1 => prop::collection::vec((key(), prop::option::of(-5_i64..5)), 1..5).prop_map(Act::Kill),
    ]
}

/// An answer, or the kind of the error.
type Said = Result<Value, ErrorKind>;

fn said<T>(answer: Result<T, Error>, show: impl FnOnce(T) -> Value) -> Said {
    answer.map(show).map_err(|error| error.kind())
}

/// The same verb on a scope or on a transaction. Versions are left out: others' commits move them.
macro_rules! apply {
    ($handle:expr, $verb:expr) => {{
        let handle = $handle;
        match $verb {
            Verb::Get(key) => said(handle.get(key), |found| json!([found])),
            Verb::Set(key, value) => said(handle.set(key, value), |_| Value::Null),
            Verb::Delete(key) => said(handle.delete(key), Value::from),
            Verb::Exists(key) => said(handle.exists(key), Value::from),
            Verb::Increment(key, by) => said(handle.increment(key, *by), |sum| match sum {
                Number::Int(sum) => sum.into(),
                Number::Float(sum) => sum.into(),
            }),
            Verb::Append(key, item) => said(handle.append(key, item), Value::from),
            Verb::Merge(key, patch) => said(handle.merge(key, patch), |merged| merged.to_value()),
            Verb::Modify(key) => said(
                handle.modify(key, |entry| {
                    Document::from_value(&wrapped(entry.map(|entry| entry.value()).as_ref()), 1 << 20)
                }),
                |entry| entry.value(),
            ),
            Verb::SetMany(pairs) => {
                said(handle.set_many(pairs.iter().map(|(key, value)| (key, value))), |_| Value::Null)
            }
            Verb::Clear(pattern) => said(handle.clear(pattern), Value::from),
            Verb::Count(pattern) => said(handle.count(pattern), Value::from),
            Verb::Items { pattern, after, limit, reverse } => {
                let select =
                    Select { pattern: Some(pattern.clone()), after: after.clone(), limit: *limit, reverse: *reverse };
                let listed = handle.items(select).and_then(|items| items.collect::<Result<Vec<_>, _>>());
                said(listed, |items| items.into_iter().map(|(key, entry)| json!([key, entry.value()])).collect())
            }
        }
    }};
}

/// What `modify` makes of a value: it must not grow without end.
fn wrapped(old: Option<&Value>) -> Value {
    json!({"was": old.map(|old| old.to_string().len())})
}

/// Whether a verb that was answered so changed anything. One that did not has only read.
fn writes(verb: &Verb, answer: &Said) -> bool {
    match (verb, answer) {
        (_, Err(_)) | (Verb::Get(_) | Verb::Exists(_) | Verb::Count(_) | Verb::Items { .. }, _) => false,
        (Verb::Delete(_) | Verb::Clear(_), Ok(answer)) => *answer != false && *answer != 0,
        (Verb::SetMany(pairs), _) => !pairs.is_empty(),
        _ => true,
    }
}

fn matches(pattern: &str, key: &str) -> bool {
    match pattern {
        "*" => true,
        "a*" => key.starts_with('a'),
        "*1" => key.ends_with('1'),
        "[ab][0-1]" => matches!(key.as_bytes(), [b'a' | b'b', b'0' | b'1']),
        literal => key == literal,
    }
}

/// The same verb on the plain map.
fn expect(keys: &mut Keys, verb: &Verb) -> Said {
    Ok(match verb {
        Verb::Get(key) => json!([keys.get(key)]),
        Verb::Set(key, value) => {
            keys.insert(key.clone(), value.clone());
            Value::Null
        }
        Verb::Delete(key) => keys.remove(key).is_some().into(),
        Verb::Exists(key) => keys.contains_key(key).into(),
        Verb::Increment(key, by) => {
            let old = keys.get(key).cloned().unwrap_or(json!(0));
            #[allow(clippy::cast_precision_loss)] // small numbers
            let sum = match (old.as_i64(), old.as_f64()) {
                (Some(old), _) => Value::from(old + by),
                (_, Some(old)) => Value::from(old + *by as f64),
                _ => return Err(ErrorKind::Invalid),
            };
            keys.insert(key.clone(), sum.clone());
            sum
        }
        Verb::Append(key, item) => {
            let list = keys.get(key).cloned().unwrap_or(json!([]));
            let Value::Array(mut list) = list else { return Err(ErrorKind::Invalid) };
            list.push(item.clone());
            let length = list.len();
            keys.insert(key.clone(), list.into());
            length.into()
        }
        Verb::Merge(key, patch) => {
            let mut merged = keys.get(key).cloned().unwrap_or_default();
            merge(&mut merged, patch);
            keys.insert(key.clone(), merged.clone());
            merged
        }
        Verb::Modify(key) => {
            let new = wrapped(keys.get(key));
            keys.insert(key.clone(), new.clone());
            new
        }
        Verb::SetMany(pairs) => {
            keys.extend(pairs.iter().cloned());
            Value::Null
        }
        Verb::Clear(pattern) => {
            let before = keys.len();
            keys.retain(|key, _| !matches(pattern, key));
            (before - keys.len()).into()
        }
        Verb::Count(pattern) => keys.keys().filter(|key| matches(pattern, key)).count().into(),
        Verb::Items { pattern, after, limit, reverse } => {
            let fits = |key: &&String| {
                matches(pattern, key)
                    && after.as_ref().is_none_or(|after| if *reverse { *key < after } else { *key > after })
            };
            let mut found: Vec<&String> = keys.keys().filter(fits).collect();
            if *reverse {
                found.reverse();
            }
            let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            found.into_iter().take(most).map(|key| json!([key, keys[key]])).collect()
        }
    })
}

/// RFC 7386, section 2, as the pseudocode there.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let members = target.as_object_mut().unwrap();
    for (key, part) in patch {
        if part.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), part);
        }
    }
}

/// A process that is gone when the test has failed, too.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of [`SCOPES`].
fn handle(state: &State, scope: usize) -> Scope {
    SCOPES[scope].iter().fold((**state).clone(), |scope, name| scope.scope(name).unwrap())
}

/// A store and what it must hold.
struct Pair {
    config: StateConfig,
    state: State,
    model: Model,
    replicas: Vec<Replica>,
}

impl Pair {
    fn new(config: StateConfig) -> Self {
        let state = State::with_config(config.clone()).unwrap();
        let named = |number: usize| Some(format!("replica{number}"));
        let replicas = (0..SCOPES.len())
            .flat_map(|scope| [Replica::new(&state, scope, None), Replica::new(&state, scope, named(scope))]);
        let replicas = replicas.collect();
        Self { config, state, model: Model::default(), replicas }
    }

    fn follow(&mut self, save: bool) -> Result<(), TestCaseError> {
        self.replicas.iter_mut().try_for_each(|replica| replica.follow(&self.model[replica.scope], save))
    }

    fn open(&mut self) -> Result<(), TestCaseError> {
        self.state = State::with_config(self.config.clone()).unwrap();
        self.replicas.iter_mut().try_for_each(|replica| replica.open(&self.state))
    }

    /// Every call has an answer, also when the store is closed meanwhile; what was acknowledged is there, in the calls' order.
    fn post(&mut self, calls: &[(usize, String, Option<Value>)], close: bool) -> Result<(), TestCaseError> {
        let (tell, told) = channel();
        for (number, (scope, key, value)) in calls.iter().enumerate() {
            let (tell, scope) = (tell.clone(), handle(&self.state, *scope));
            let tell = move |there: Result<bool, Error>| tell.send((number, there)).unwrap();
            match value {
                Some(value) => scope.calls().set(key, value).unwrap().then(move |version| tell(version.map(|_| true))),
                None => scope.calls().delete(key).unwrap().then(tell),
            }
        }
        drop(tell);
        let reopens = close && self.config.persistence_path.is_some();
        if reopens {
            self.state.close().unwrap();
        }
        let answers: Vec<_> = told.iter().collect();
        prop_assert_eq!(answers.len(), calls.len(), "calls without an answer");
        for ((number, there), (place, (scope, key, value))) in answers.into_iter().zip(calls.iter().enumerate()) {
            prop_assert_eq!(number, place, "answers out of order");
            let keys = &mut self.model[*scope];
            let was_there = match value {
                Some(value) => {
                    keys.insert(key.clone(), value.clone());
                    true
                }
                None => keys.remove(key).is_some(),
            };
            prop_assert_eq!(there.unwrap(), was_there, "{}", key);
        }
        if reopens { self.open() } else { Ok(()) }
    }

    fn plain(&mut self, (scope, verb): &(usize, Verb)) -> Result<(), TestCaseError> {
        let handle = handle(&self.state, *scope);
        prop_assert_eq!(apply!(&handle, verb), expect(&mut self.model[*scope], verb), "{:?}", verb);
        Ok(())
    }

    fn transaction(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let Act::Transaction { early, others, late, commit } = act else { return Ok(()) };
        let transaction = self.state.transaction().unwrap();
        let mut snapshot = self.model.clone();
        let mut inside = |verbs: &[(usize, Verb)]| -> Result<Vec<Said>, TestCaseError> {
            let mut answers = Vec::new();
            for (scope, verb) in verbs {
                let mut handle = transaction.clone();
                for name in SCOPES[*scope] {
                    handle = handle.scope(name).unwrap();
                }
                let answer = apply!(&handle, verb);
                prop_assert_eq!(&answer, &expect(&mut snapshot[*scope], verb), "inside: {:?}", verb);
                answers.push(answer);
            }
            Ok(answers)
        };
        let mut answers = inside(early)?;
        for other in others {
            self.plain(other)?;
        }
        answers.extend(inside(late)?);
        if !commit {
            transaction.rollback().unwrap();
            return Ok(());
        }
        let wrote = early.iter().chain(late).zip(&answers).any(|((_, verb), answer)| writes(verb, answer));
        match transaction.commit() {
            Ok(_) if wrote => {
                // Serializable: had it run at this moment, it would have been told the same.
                for ((scope, verb), answer) in early.iter().chain(late).zip(answers) {
                    prop_assert_eq!(expect(&mut self.model[*scope], verb), answer, "at the commit: {:?}", verb);
                }
            }
            Ok(_) => {}
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error);
                prop_assert!(!others.is_empty(), "a conflict with nobody: {}", error);
                prop_assert!(wrote, "a conflict of a reader: {}", error);
            }
        }
        Ok(())
    }

    /// Whatever the killed process was answered is there afterwards; what it was not yet may be.
    fn kill(&mut self, writes: &[(String, Option<i64>)]) -> Result<(), TestCaseError> {
        self.state.close().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        let mut peer = Peer(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let process = &mut peer.0;
        let mut input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut answer = String::new();
        let path = self.config.persistence_path.clone().unwrap();
        let settings = serde_json::to_string(&self.config).unwrap();
        writeln!(input, "open\t{}\t{settings}", path.display()).unwrap();
        output.read_line(&mut answer).unwrap();
        prop_assert_eq!(answer.trim_end(), "\"ok\"");
        let mut before = self.model[0].clone();
        for (done, (key, number)) in writes.iter().enumerate() {
            before.clone_from(&self.model[0]);
            match number {
                Some(number) => writeln!(input, "set\t{key}\t{number}").unwrap(),
                None => writeln!(input, "delete\t{key}").unwrap(),
            }
            match number {
                Some(number) => self.model[0].insert(key.clone(), json!(number)),
                None => self.model[0].remove(key),
            };
            if done + 1 < writes.len() {
                answer.clear();
                output.read_line(&mut answer).unwrap();
                prop_assert!(!answer.contains("error"), "{}", answer);
            }
        }
        process.kill().unwrap();
        process.wait().unwrap();
        self.open()?;
        let (last, _) = writes.last().unwrap();
        if self.state.get(last).unwrap() == before.get(last).cloned() {
            self.model[0] = before;
        }
        Ok(())
    }

    fn run(mut self, acts: &[Act]) -> Result<(), TestCaseError> {
        for act in acts {
            match act {
                Act::Plain(scope, verb) => self.plain(&(*scope, verb.clone()))?,
                Act::Transaction { .. } => self.transaction(act)?,
                Act::Reopen if self.config.persistence_path.is_some() => {
                    self.state.close().unwrap();
                    self.open()?;
                }
                Act::Post { calls, close } => self.post(calls, *close)?,
                Act::Follow { save } => self.follow(*save)?,
                Act::Kill(writes) if self.config.persistence_path.is_some() => self.kill(writes)?,
                Act::Reopen | Act::Kill(_) => {}
            }
        }
        for scope in 0..SCOPES.len() {
            self.plain(&(scope, Verb::Items { pattern: "*".into(), after: None, limit: None, reverse: false }))?;
        }
        self.follow(true)
    }
}

fn run(acts: &[Act], on_file: bool, settings: impl FnOnce(&mut StateConfig)) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let mut config = StateConfig { sync_mode: SyncMode::Off, ..StateConfig::default() };
    config.persistence_path = on_file.then(|| directory.path().join("store.db"));
    settings(&mut config);
    Pair::new(config).run(acts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_in_memory_answers_like_a_map(acts in prop::collection::vec(act(), 1..40)) {
        run(&acts, false, |_| {})?;
    }

    #[test]
    fn a_store_on_a_file_answers_like_a_map(acts in prop::collection::vec(act(), 1..40)) {
        run(&acts, true, |_| {})?;
    }

    #[test]
    fn a_store_without_cache_and_compression_answers_like_a_map(acts in prop::collection::vec(act(), 1..40)) {
        run(&acts, true, |config| {
            config.cache_size_mb = 0;
            config.enable_compression = false;
        })?;
    }

    #[test]
    fn an_exclusive_store_answers_like_a_map(acts in prop::collection::vec(act(), 1..40)) {
        run(&acts, true, |config| config.exclusive = true)?;
    }
}

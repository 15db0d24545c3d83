//! Verbs, on a scope or on a transaction, and their answers.

use llmspell_state_persistence::{Error, ErrorKind, Ttl};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// Scopes that a verb may name; those that are not there stand for others.
pub(crate) const SCOPES: usize = 7;
/// How long a key is to live that becomes due during the run.
pub(crate) const SHORT_MS: i64 = 30;
/// How long one is to live that does not.
pub(crate) const LONG_MS: i64 = 3_600_000;

#[derive(Debug, Clone)]
pub(crate) enum Verb {
    Get(String),
    Set(String, Value),
    SetWith(String, Value, Time),
    Touch(String, Time),
    Delete(String),
    Exists(String),
    Increment(String, i64),
    Append(String, Value),
    Merge(String, Value),
    Modify(String),
    SetMany(Vec<(String, Value)>),
    SetManyWith(Vec<(String, Value)>, Time),
    Clear(String),
    Count(String),
    Items { pattern: String, after: Option<String>, limit: Option<u64>, reverse: bool },
}

/// How long a key is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// As the scope says.
    Default,
    Never,
    Short,
    Long,
}

impl Time {
    pub(crate) fn ttl(self) -> Ttl {
        match self {
            Self::Default => Ttl::Default,
            Self::Never => Ttl::Never,
            Self::Short => Ttl::After(Duration::from_millis(SHORT_MS.unsigned_abs())),
            Self::Long => Ttl::After(Duration::from_millis(LONG_MS.unsigned_abs())),
        }
    }
}

pub(crate) fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab][0-3]", 1 => Just("é".to_owned()), 1 => Just("a".to_owned())]
}

pub(crate) fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_owned()), Just("a*".to_owned()), Just("*1".to_owned()), Just("[ab][0-1]".to_owned()), key()]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
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

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![2 => Just(Time::Short), 2 => Just(Time::Long), 1 => Just(Time::Never), 1 => Just(Time::Default)]
}

/// A verb, and the number of a scope.
pub(crate) fn verb() -> impl Strategy<Value = (usize, Verb)> {
    let pairs = || prop::collection::vec((key(), value()), 0..6);
    let verb = prop_oneof![
        6 => key().prop_map(Verb::Get),
        8 => (key(), value()).prop_map(|(key, value)| Verb::Set(key, value)),
        3 => (key(), value(), time()).prop_map(|(key, value, time)| Verb::SetWith(key, value, time)),
        2 => (key(), time()).prop_map(|(key, time)| Verb::Touch(key, time)),
        4 => key().prop_map(Verb::Delete),
        2 => key().prop_map(Verb::Exists),
        4 => (key(), -3_i64..4).prop_map(|(key, by)| Verb::Increment(key, by)),
        2 => (key(), value()).prop_map(|(key, value)| Verb::Append(key, value)),
        2 => (key(), value()).prop_map(|(key, value)| Verb::Merge(key, value)),
        2 => key().prop_map(Verb::Modify),
        2 => pairs().prop_map(Verb::SetMany),
        1 => (pairs(), time()).prop_map(|(pairs, time)| Verb::SetManyWith(pairs, time)),
        2 => pattern().prop_map(Verb::Clear),
        2 => pattern().prop_map(Verb::Count),
        4 => (pattern(), prop::option::of(key()), prop::option::of(0_u64..5), any::<bool>())
            .prop_map(|(pattern, after, limit, reverse)| Verb::Items { pattern, after, limit, reverse }),
    ];
    (0..SCOPES, verb)
}

/// An answer, or the kind of the error.
pub(crate) type Said = Result<Value, ErrorKind>;

pub(crate) fn said<T>(answer: Result<T, Error>, show: impl FnOnce(T) -> Value) -> Said {
    answer.map(show).map_err(|error| error.kind())
}

/// The same verb on a scope or on a transaction. Versions are left out: others' commits move them.
macro_rules! apply {
    ($handle:expr, $verb:expr) => {{
        let handle = $handle;
        match $verb {
            Verb::Get(key) => said(handle.get(key), |found| json!([found])),
            Verb::Set(key, value) => said(handle.set(key, value), |_| Value::Null),
            Verb::SetWith(key, value, time) => said(handle.set_with(key, value, time.ttl()), |_| Value::Null),
            Verb::Touch(key, time) => said(handle.touch(key, time.ttl()), Value::from),
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
            Verb::SetManyWith(pairs, time) => {
                let pairs = pairs.iter().map(|(key, value)| (key, value));
                said(handle.set_many_with(pairs, time.ttl()), |_| Value::Null)
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

pub(crate) use apply;

/// What `modify` makes of a value: it must not grow without end.
pub(crate) fn wrapped(old: Option<&Value>) -> Value {
    json!({"was": old.map(|old| old.to_string().len())})
}

/// Whether a verb that was answered so changed anything. One that did not has only read.
pub(crate) fn writes(verb: &Verb, answer: &Said) -> bool {
    match (verb, answer) {
        (_, Err(_)) | (Verb::Get(_) | Verb::Exists(_) | Verb::Count(_) | Verb::Items { .. }, _) => false,
        (Verb::Delete(_) | Verb::Clear(_) | Verb::Touch(..), Ok(answer)) => *answer != false && *answer != 0,
        (Verb::SetMany(pairs) | Verb::SetManyWith(pairs, _), _) => !pairs.is_empty(),
        _ => true,
    }
}

pub(crate) fn matches(pattern: &str, key: &str) -> bool {
    match pattern {
        "*" => true,
        "a*" => key.starts_with('a'),
        "*1" => key.ends_with('1'),
        "[ab][0-1]" => matches!(key.as_bytes(), [b'a' | b'b', b'0' | b'1']),
        literal => key == literal,
    }
}

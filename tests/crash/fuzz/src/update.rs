//! Increment, append and merge against what they are defined to do.

use crate::value::{MOST, WORDS, check_canonical, depth, document, read};
use crate::{Target, choice, two_texts};
use llmspell_state_persistence::inside::{append, increment, merge};
use llmspell_state_persistence::{Document, ErrorKind, Number, limits};
use serde_json::Value;

/// A choice, the current value, NUL, what the update brings.
pub const TARGET: Target = Target { name: "update", run, words: WORDS };

fn run(data: &[u8]) {
    let (kind, rest) = choice(data);
    let (current, argument) = two_texts(rest);
    // A current value that cannot be stored stands for none.
    let current = read(&current).and_then(|value| document(&value));
    let Some(argument) = read(&argument).and_then(|value| document(&value)) else { return };
    match kind % 3 {
        0 => check_increment(current.as_ref(), &argument),
        1 => check_append(current.as_ref(), &argument),
        _ => check_merge(current.as_ref(), &argument),
    }
}

fn parsed(document: &Document) -> Value {
    document.parse().expect("stored text can be read")
}

fn check_increment(current: Option<&Document>, by: &Document) {
    let Value::Number(by) = parsed(by) else { return };
    let number = by.as_i64().map_or_else(|| by.as_f64().unwrap_or_default().into(), Number::from);
    let before = current.map_or(Value::from(0), parsed);
    let expected = match (before.as_i64(), by.as_i64(), before.as_f64(), by.as_f64()) {
        (Some(a), Some(b), ..) => a.checked_add(b).map(Value::from),
        (_, _, Some(a), Some(b)) => Some(a + b).filter(|sum| sum.is_finite()).map(Value::from),
        _ => None,
    };
    match (increment(current, number), expected) {
        (Ok(sum), Some(expected)) => {
            check_canonical(&sum);
            assert_eq!(sum.text(), expected.to_string(), "{before} + {by}");
        }
        (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Invalid),
        (found, expected) => panic!("{before} + {by}: {found:?}, not {expected:?}"),
    }
}

fn check_append(current: Option<&Document>, item: &Document) {
    let value = parsed(item);
    let expected = match current.map_or(Value::Array(Vec::new()), parsed) {
        Value::Array(mut items) => {
            items.push(value);
            Some(Value::Array(items)).filter(|list| depth(list) <= limits::VALUE_DEPTH)
        }
        _ => None,
    };
    match (append(current, item, MOST), expected) {
        (Ok((list, len)), Some(expected)) => {
            check_canonical(&list);
            assert_eq!(parsed(&list), expected);
            assert_eq!(Some(len), expected.as_array().map(|items| items.len() as u64));
        }
        (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Invalid),
        (Err(error), Some(expected)) => {
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
            assert!(expected.to_string().len() > MOST, "{error}");
        }
        (Ok((list, _)), None) => panic!("append made {}", list.text()),
    }
}

/// RFC 7386, section 2, read literally; binary is one value.
fn merged(target: Value, patch: &Value) -> Value {
    let members = |value: Value| match value {
        Value::Object(members) if !members.contains_key("$binary") => Some(members),
        _ => None,
    };
    let Some(patch_members) = members(patch.clone()) else { return patch.clone() };
    let mut target = members(target).unwrap_or_default();
    for (name, value) in patch_members {
        if value.is_null() {
            target.shift_remove(&name);
        } else {
            let old = target.get(&name).cloned().unwrap_or_default();
            target.insert(name, merged(old, &value));
        }
    }
    Value::Object(target)
}

fn check_merge(current: Option<&Document>, patch: &Document) {
    let expected = merged(current.map_or(Value::Null, parsed), &parsed(patch));
    match merge(current, patch, MOST) {
        Ok(new) => {
            check_canonical(&new);
            assert_eq!(new.text(), expected.to_string(), "order and all");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
            assert!(expected.to_string().len() > MOST, "{error}");
        }
    }
}

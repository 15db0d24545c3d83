//! Changes that are computed from the current value while the writer holds it: exact without a retry.

use super::Document;
use crate::{Error, Result, limits};
use serde_json::Value;

/// What `increment` adds and answers: integers stay integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A signed 64-bit integer.
    Int(i64),
    /// A finite float.
    Float(f64),
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl Number {
    /// Refuses floats that are not finite.
    pub(crate) fn checked(self) -> Result<Self> {
        match self {
            Self::Float(value) if !value.is_finite() => {
                Err(Error::invalid(format!("increment by {value}: it takes an integer or a finite float")))
            }
            number => Ok(number),
        }
    }

    /// The number that a document holds, if it holds one.
    pub(crate) fn of(document: &Document) -> Option<Self> {
        let value: serde_json::Number = serde_json::from_str(document.text()).ok()?;
        value.as_i64().map(Self::Int).or_else(|| value.as_f64().map(Self::Float))
    }

    #[allow(clippy::cast_precision_loss)] // a sum with a float is a float, as in every language we serve
    fn as_float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn plus(self, by: Self) -> Result<Self> {
        if let (Self::Int(a), Self::Int(b)) = (self, by) {
            let outside =
                || Error::invalid(format!("{a} + {b} is outside the signed 64-bit range; the value is unchanged"));
            return a.checked_add(b).map(Self::Int).ok_or_else(outside);
        }
        let (a, b) = (self.as_float(), by.as_float());
        if !(a + b).is_finite() {
            return Err(Error::invalid(format!("{a} + {b} is not a finite float; the value is unchanged")));
        }
        Ok(Self::Float(a + b))
    }
}

/// A change of one key that depends on its current value.
#[derive(Debug, Clone)]
pub(crate) enum Update {
    /// Adds to a number; a missing one is 0.
    Increment(Number),
    /// Adds an item to the end of an array; a missing one is empty.
    Append(Document),
    /// JSON Merge Patch (RFC 7386); a missing value is null.
    Merge(Document),
}

impl Update {
    /// Bytes that the update carries.
    pub(crate) fn footprint(&self) -> usize {
        match self {
            Self::Increment(_) => size_of::<Number>(),
            Self::Append(document) | Self::Merge(document) => document.text.len(),
        }
    }

    /// The new value.
    pub(crate) fn apply(&self, current: Option<&Document>, max_bytes: usize) -> Result<Document> {
        let new = match self {
            Self::Increment(by) => increment(current, *by)?,
            Self::Append(item) => append(current, item)?,
            Self::Merge(patch) => {
                let mut value = current.map(Document::parse).transpose()?.unwrap_or_default();
                merge(&mut value, &patch.parse()?);
                return Document::from_value(&value, max_bytes);
            }
        };
        super::writer::check_size(new.text.len(), max_bytes)?;
        Ok(new)
    }
}

fn increment(current: Option<&Document>, by: Number) -> Result<Document> {
    let sum = match current {
        None => Number::Int(0).plus(by)?,
        Some(document) => {
            let Some(number) = Number::of(document) else {
                return Err(Error::invalid(
                    "increment works on a number; the value there is something else and is unchanged",
                ));
            };
            number.plus(by)?
        }
    };
    let text = match sum {
        Number::Int(value) => value.to_string(),
        Number::Float(value) => Value::from(value).to_string(),
    };
    Ok(Document::trusted(text))
}

/// Splices text: the work is a copy, whatever the array holds.
fn append(current: Option<&Document>, item: &Document) -> Result<Document> {
    let old = current.map_or("[]", Document::text);
    let Some(head) = old.strip_suffix(']').filter(|head| head.starts_with('[')) else {
        return Err(Error::invalid("append works on an array; the value there is something else and is unchanged"));
    };
    if depth(item.text()) >= limits::VALUE_DEPTH {
        return Err(Error::invalid(format!(
            "the item makes the array nested deeper than {} levels",
            limits::VALUE_DEPTH
        )));
    }
    let mut text = String::with_capacity(old.len() + item.text.len() + 1);
    text.push_str(head);
    if head.len() > 1 {
        text.push(',');
    }
    text.push_str(item.text());
    text.push(']');
    Ok(Document::trusted(text))
}

/// Nesting of canonical text.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    structure(text, |byte| match byte {
        b'[' | b'{' => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        b']' | b'}' => depth -= 1,
        _ => {}
    });
    deepest
}

/// Number of items of an array's canonical text.
pub(crate) fn array_len(text: &str) -> u64 {
    let (mut depth, mut commas) = (0_usize, 0);
    structure(text, |byte| match byte {
        b'[' | b'{' => depth += 1,
        b']' | b'}' => depth -= 1,
        b',' if depth == 1 => commas += 1,
        _ => {}
    });
    if text.len() > 2 { commas + 1 } else { 0 }
}

/// Calls `seen` for every byte of JSON text outside strings.
fn structure(text: &str, mut seen: impl FnMut(u8)) {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            seen(byte);
            continue;
        }
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => break,
                _ => {}
            }
        }
    }
}

/// RFC 7386, section 2. Binary counts as one value, not as an object to merge into.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = as_object(patch) else {
        target.clone_from(patch);
        return;
    };
    if as_object(target).is_none() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            // `remove` would move the last member into the gap; order is kept as written.
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn as_object(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    value.as_object().filter(|members| !members.contains_key(super::BINARY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(value: &Value) -> Document {
        Document::from_value(value, 1 << 20).unwrap()
    }

    #[test]
    fn merge_follows_the_examples_of_the_rfc() {
        // RFC 7386, appendix A: original, patch, result.
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let merged = Update::Merge(document(&patch)).apply(Some(&document(&original)), 1 << 20).unwrap();
            assert_eq!(merged.to_value(), result, "{original} + {patch}");
        }
    }

    #[test]
    fn merging_binary_replaces_it_whole() {
        let merged = Update::Merge(document(&json!({"a":{"$binary":"AAE="}})))
            .apply(Some(&document(&json!({"a":{"x":1}}))), 1 << 20);
        assert_eq!(merged.unwrap().text(), r#"{"a":{"$binary":"AAE="}}"#);
    }

    #[test]
    fn append_splices_and_counts() {
        let mut list = None;
        for (n, item) in [json!("],["), json!([1, [2]]), json!({"a\"": "\\"})].iter().enumerate() {
            list = Some(Update::Append(document(item)).apply(list.as_ref(), 1 << 20).unwrap());
            assert_eq!(array_len(list.as_ref().unwrap().text()), n as u64 + 1);
        }
        assert_eq!(list.unwrap().to_value(), json!(["],[", [1, [2]], {"a\"": "\\"}]));
    }

    #[test]
    fn append_cannot_pass_the_bound_on_depth() {
        let deep = |levels: usize| Document::trusted("[".repeat(levels) + &"]".repeat(levels));
        assert!(Update::Append(deep(127)).apply(None, 1 << 20).is_ok());
        assert!(Update::Append(deep(128)).apply(None, 1 << 20).is_err());
    }
}

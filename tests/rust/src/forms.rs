//! Values of the contract: the `$` forms of `tests/spec/README.md`, and equality in value and in type.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Stands for a result that is not there.
pub fn missing() -> Value {
    json!({"$missing": true})
}

/// Stands for the end of an iterator.
pub fn end() -> Value {
    json!({"$end": true})
}

/// What `save` kept, and the directory of the case.
#[derive(Debug, Default)]
pub struct Known {
    /// By name.
    pub saved: HashMap<String, Value>,
    /// Where `$path` points to.
    pub directory: std::path::PathBuf,
}

impl Known {
    /// The value that a piece of a case stands for.
    ///
    /// # Errors
    /// Names a form that is unknown or used wrongly.
    pub fn expand(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::Array(items) => items.iter().map(|item| self.expand(item)).collect(),
            Value::Object(members) => match members.iter().next() {
                Some((form, argument)) if members.len() == 1 && form.starts_with('$') => self.form(form, argument),
                _ => members.iter().map(|(key, member)| Ok((key.clone(), self.expand(member)?))).collect(),
            },
            plain => Ok(plain.clone()),
        }
    }

    fn form(&self, form: &str, argument: &Value) -> Result<Value, String> {
        let wrong = || format!("no form {form} with {argument}");
        let part = |index: usize| argument.get(index).ok_or_else(wrong);
        let text = || argument.as_str().ok_or_else(wrong);
        let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
        let numbered = |index: usize| Ok::<_, String>(format!("{}{index:06}", part(0)?.as_str().ok_or_else(wrong)?));
        let span = || Ok::<_, String>(counting(number(part(1)?)?, number(part(2)?)?));
        match form {
            "$binary" | "$float" | "$missing" | "$end" => Ok(json!({form: argument})),
            "$bigint" => serde_json::from_str(text()?).map_err(|_| wrong()),
            "$path" => Ok(self.directory.join(text()?).to_string_lossy().into()),
            "$saved" => {
                let (name, more) = match argument.as_str() {
                    Some(name) => (name, 0),
                    None => (part(0)?.as_str().ok_or_else(wrong)?, part(1)?.as_i64().ok_or_else(wrong)?),
                };
                let saved = self.saved.get(name).ok_or_else(wrong)?;
                if more == 0 { Ok(saved.clone()) } else { Ok((saved.as_i64().ok_or_else(wrong)? + more).into()) }
            }
            "$object" => {
                let mut members = Map::new();
                for pair in argument.as_array().ok_or_else(wrong)? {
                    let key = pair[0].as_str().ok_or_else(wrong)?;
                    // A JSON value is where a user's own `$binary` carries one more `$`.
                    let escape = if key.starts_with('$') && key.trim_start_matches('$') == "binary" { "$" } else { "" };
                    members.insert(format!("{escape}{key}"), self.expand(&pair[1])?);
                }
                Ok(members.into())
            }
            "$repeat" => Ok(part(0)?.as_str().ok_or_else(wrong)?.repeat(number(part(1)?)?).into()),
            "$noise" => Ok(noise(number(argument)?).into()),
            "$nest" => Ok((1..number(argument)?).fold(json!([]), |inner, _| Value::Array(vec![inner]))),
            "$nest_objects" => Ok((1..number(argument)?)
                .fold(json!({}), |inner, _| Value::Object(Map::from_iter([("a".to_owned(), inner)])))),
            "$range" => Ok((number(part(0)?)?..number(part(1)?)?).map(Value::from).collect()),
            "$numbered" => span()?.into_iter().map(|index| Ok(Value::from(numbered(index)?))).collect(),
            "$table" => span()?.into_iter().map(|index| Ok((numbered(index)?, Value::from(index)))).collect(),
            "$pairs" => span()?.into_iter().map(|index| Ok(json!([numbered(index)?, index]))).collect(),
            _ => Err(wrong()),
        }
    }
}

/// From one number to below another, or backwards from below the first to the second.
fn counting(from: usize, to: usize) -> Vec<usize> {
    if from <= to { (from..to).collect() } else { (to..from).rev().collect() }
}

/// Letters from the generator of Park and Miller: the same in every language, and no pattern to compress.
fn noise(length: usize) -> String {
    let mut seed: u64 = 1;
    let letter = |seed: u64| char::from(b'a' + u8::try_from(seed % 26).unwrap_or_default());
    (0..length)
        .map(|_| {
            seed = seed * 16_807 % 2_147_483_647;
            letter(seed)
        })
        .collect()
}

/// Equality in value and in type; the sign of zero counts, the order of members does not.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => match (a.is_f64(), b.is_f64()) {
            (true, true) => a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits),
            (false, false) => a == b,
            _ => false,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}

//! The Rust side of `tests/interop`: obeys one command a line and answers with one line. See `tests/interop/peer.py`.

use llmspell_state_persistence::{Document, Result, State, StateConfig};
use serde_json::{Value, json};
use std::io::{BufRead as _, Write as _};

/// The values that every language writes and every other reads.
fn kinds() -> [(&'static str, Value); 19] {
    [
        ("null", Value::Null),
        ("true", json!(true)),
        ("false", json!(false)),
        ("zero", json!(0)),
        ("int", json!(-7)),
        ("big", json!(9_007_199_254_740_992_i64)),
        ("float", json!(0.1)),
        ("huge", json!(1.797_693_134_862_315_7e308)),
        ("tiny", json!(5e-324)),
        ("minus_zero", json!(-0.0)),
        ("text", json!("aé日😀\u{0}\n\"\\")),
        ("empty_text", json!("")),
        ("binary", json!({"$binary": "/wD+gA=="})),
        ("array", json!([1, "two", null, [true]])),
        ("empty_array", json!([])),
        ("object", json!({"a": {"b": [{}]}, "é": null, "": 1})),
        ("empty_object", json!({})),
        ("dollar", json!({"$$binary": "AAE=", "$set": 1})),
        ("deep", (1..128).fold(json!([]), |inner, _| json!([inner]))),
    ]
}

fn hex(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A value as `[kind, …]` in JSON, the same in every language: text and bytes as hexadecimal digits.
fn describe(value: &Value) -> Value {
    match value {
        Value::Null => json!(["null"]),
        Value::Bool(value) => json!(["bool", value]),
        Value::Number(number) if number.is_f64() => json!(["float", number.to_string()]),
        Value::Number(number) => json!(["int", number.to_string()]),
        Value::String(text) => json!(["text", hex(text)]),
        Value::Array(items) => json!(["array", items.iter().map(describe).collect::<Vec<_>>()]),
        Value::Object(members) => {
            if let Some(base64) = members.get("$binary") {
                return json!(["base64", base64]);
            }
            let own =
                |key: &str| key.strip_prefix("$").filter(|rest| rest.ends_with("$binary")).unwrap_or(key).to_owned();
            json!(["object", members.iter().map(|(key, member)| (hex(own(key)), describe(member))).collect::<Value>()])
        }
    }
}

fn count(state: &State, verb: &str, times: u32) -> Result<()> {
    let key = format!("counter:{verb}");
    let number = |value: Option<Value>| value.and_then(|value| value.as_i64()).unwrap_or_default();
    for _ in 0..times {
        match verb {
            "increment" => drop(state.increment(&key, 1)?),
            "modify" => drop(state.modify(&key, |entry| {
                Document::from_value(&json!(number(entry.map(|entry| entry.value())) + 1), state.max_value_bytes())
            })?),
            _ => state.transact(|tx| tx.set(&key, number(tx.get(&key)?) + 1))?,
        }
    }
    Ok(())
}

fn obey(state: &mut Option<State>, words: &[&str]) -> Result<Value> {
    let settings = |text: &str| serde_json::from_str(text).unwrap_or_default();
    if let ["open", path, options] = words {
        let mut options: serde_json::Map<String, Value> = settings(options);
        options.insert("persistence_path".into(), json!(path));
        *state = Some(State::with_config(StateConfig::from_options(options)?)?);
        return Ok(json!("ok"));
    }
    let Some(state) = state else { return Ok(json!("not open")) };
    Ok(match words {
        ["count", verb, times] => {
            count(state, verb, times.parse().unwrap_or_default())?;
            json!("ok")
        }
        ["set", key, number] => json!(state.set(key, number.parse::<i64>().unwrap_or_default())?),
        ["get", key] => state.get(key)?.unwrap_or(json!("missing")),
        ["write", prefix] => {
            for (kind, value) in kinds() {
                state.set(&format!("{prefix}:{kind}"), value)?;
            }
            json!("ok")
        }
        ["read", prefix] => {
            let items = state.items(format!("{prefix}:*").as_str())?;
            items.map(|item| item.map(|(key, entry)| (key, describe(&entry.value())))).collect::<Result<Value>>()?
        }
        ["scoped", name, key, number] => json!(state.scope(name)?.set(key, number.parse::<i64>().unwrap_or_default())?),
        ["in", name, key] => state.scope(name)?.get(key)?.unwrap_or(json!("missing")),
        ["scopes"] => json!(state.scopes()?),
        ["delete", key] => json!(state.delete(key)?),
        ["keys"] => json!(state.keys("*")?.collect::<Result<Vec<_>>>()?),
        ["close"] => {
            state.close()?;
            json!("ok")
        }
        _ => json!("unknown command"),
    })
}

fn main() -> std::io::Result<()> {
    let mut state = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split('\t').collect();
        let answer = obey(&mut state, &words)
            .unwrap_or_else(|error| json!({"error": error.kind().name(), "message": error.to_string()}));
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}

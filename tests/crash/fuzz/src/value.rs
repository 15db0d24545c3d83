//! Values: JSON text to stored text and back, along every path that a binding takes.

use crate::Target;
use llmspell_state_persistence::inside::forged;
use llmspell_state_persistence::value::{Node, Tape, ValueError, Writer};
use llmspell_state_persistence::{Document, ErrorKind, limits};
use serde_json::Value;

/// JSON text.
pub const TARGET: Target = Target { name: "value", run, words: WORDS };

pub(crate) const WORDS: &[&str] = &[
    "null",
    "true",
    "-0.0",
    "1e308",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "5e-324",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "{\"$binary\":\"AAE=\"}",
    "{\"$$binary\":1}",
    "\"$binary\"",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "{\"a\":",
    "}",
    ",",
];

/// Long enough for everything that happens in short values.
pub(crate) const MOST: usize = 1 << 16;

/// The value that JSON text says, deeper than any that can be stored, but not deeper than this program's own stack.
pub(crate) fn read(text: &str) -> Option<Value> {
    if text.bytes().filter(|byte| b"[{".contains(byte)).count() > 8 * limits::VALUE_DEPTH {
        return None;
    }
    let mut input = serde_json::Deserializer::from_str(text);
    input.disable_recursion_limit();
    let value = serde::de::Deserialize::deserialize(&mut input).ok()?;
    input.end().ok().map(|()| value)
}

/// The document of a value; an error of another kind than those promised is wrong.
pub(crate) fn document(value: &Value) -> Option<Document> {
    match Document::from_value(value, MOST) {
        Ok(document) => Some(document),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::QuotaExceeded), "{error}");
            None
        }
    }
}

/// Makes sure that stored text is the one text of what it says.
pub(crate) fn check_canonical(document: &Document) {
    let text = document.text();
    let value = document.parse().expect("stored text can be read");
    assert_eq!(value.to_string(), text, "stored text says itself");
    assert_eq!(Document::from_value(&value, usize::MAX).expect("what was stored can be stored").text(), text);
    let tape = document.to_tape().expect("stored text can be read");
    let mut writer = Writer::new(usize::MAX);
    write(&tape, &mut tape.nodes().iter(), &mut writer).expect("what was read can be written");
    assert_eq!(writer.finish().text(), text, "what a binding reads and writes again");
    assert!(depth(&value) <= limits::VALUE_DEPTH, "{} deep", depth(&value));
}

/// Writes nodes as a binding writes its objects.
fn write(tape: &Tape, nodes: &mut std::slice::Iter<'_, Node>, writer: &mut Writer) -> Result<(), ValueError> {
    match *nodes.next().expect("a head says how many nodes follow") {
        Node::Null => writer.null(),
        Node::Bool(value) => writer.bool(value),
        Node::Int(value) => writer.int(value),
        Node::Float(value) => writer.float(value)?,
        Node::Str(span) => writer.str(tape.str(span))?,
        Node::Binary(span) => writer.binary(tape.bytes(span))?,
        Node::Array { len } => {
            writer.begin_array()?;
            for _ in 0..len {
                write(tape, nodes, writer)?;
            }
            writer.end_array();
        }
        Node::Object { len } => {
            writer.begin_object()?;
            for _ in 0..len {
                let Some(Node::Str(key)) = nodes.next() else { panic!("a member begins with its key") };
                writer.key(tape.str(*key))?;
                write(tape, nodes, writer)?;
            }
            writer.end_object();
        }
    }
    Ok(())
}

/// Nesting as `limits` counts it.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // As a forged row would bring it: any answer but a panic.
    let untrusted = forged(&text);
    let _ = (untrusted.parse(), untrusted.tape().map(Tape::nodes).map(<[Node]>::len));
    let Some(value) = read(&text) else { return };
    if let Some(document) = document(&value) {
        check_canonical(&document);
        assert_eq!(document.parse().expect("stored text can be read"), value, "the value that was stored");
    } else if depth(&value) <= limits::VALUE_DEPTH && text.len() < MOST / 8 {
        assert!(text.contains("$binary") || has_big_number(&value), "refused for no reason: {text:?}");
    }
}

/// Whether a number is outside of the signed 64-bit range.
fn has_big_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_u64() && !number.is_i64(),
        Value::Array(items) => items.iter().any(has_big_number),
        Value::Object(members) => members.values().any(has_big_number),
        _ => false,
    }
}

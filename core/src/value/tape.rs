//! A parsed value as one flat list of nodes, so that a binding builds its objects without a tree of small allocations
//! and without destructors on its stack.

use super::{BINARY, looks_like_binary};
use crate::limits;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// One value, or the head of one whose parts follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, always finite.
    Float(f64),
    /// Text, to be read with [`Tape::str`].
    Str(Span),
    /// Bytes, to be read with [`Tape::bytes`].
    Binary(Span),
    /// An array: `len` values follow.
    Array {
        /// Number of items.
        len: u32,
    },
    /// An object: `len` pairs follow, each a [`Node::Str`] and a value.
    Object {
        /// Number of members.
        len: u32,
    },
}

/// A place among the bytes of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

/// The nodes of one value in the order of its text, the value itself first.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    /// All text as UTF-8, and all binary. Text lies on character boundaries by construction.
    bytes: Vec<u8>,
}

impl Tape {
    /// The nodes, the value itself first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The bytes of a [`Node::Binary`], or of the UTF-8 of a [`Node::Str`].
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// The text of a [`Node::Str`]; of a [`Node::Binary`] that is not UTF-8, nothing.
    pub fn str(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }

    /// Room for the nodes of most values and all their bytes, so that a small one is parsed without growing.
    pub(super) fn for_text(text: &str) -> Self {
        Self { nodes: Vec::with_capacity(text.len() / 8 + 4), bytes: Vec::with_capacity(text.len()) }
    }

    /// Gives back the room that was not needed.
    pub(super) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// The value as a JSON tree; binary in its `{"$binary": …}` form.
    pub(super) fn to_value(&self) -> Value {
        self.value(&mut self.nodes.iter())
    }

    fn value(&self, nodes: &mut std::slice::Iter<'_, Node>) -> Value {
        match nodes.next() {
            None | Some(Node::Null) => Value::Null,
            Some(Node::Bool(value)) => (*value).into(),
            Some(Node::Int(value)) => (*value).into(),
            Some(Node::Float(value)) => (*value).into(),
            Some(Node::Str(span)) => self.str(*span).into(),
            Some(Node::Binary(span)) => {
                Value::Object(Map::from_iter([(BINARY.into(), BASE64_STANDARD.encode(self.bytes(*span)).into())]))
            }
            Some(Node::Array { len }) => (0..*len).map(|_| self.value(nodes)).collect(),
            Some(Node::Object { len }) => {
                let member = |_| {
                    let key = self.value(nodes);
                    let key = key.as_str().unwrap_or_default();
                    let key = if looks_like_binary(key) { format!("${key}") } else { key.to_owned() };
                    (key, self.value(nodes))
                };
                Value::Object((0..*len).map(member).collect())
            }
        }
    }

    pub(super) fn footprint(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.bytes.capacity()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Span {
        let index = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let span = Span { start: index(self.bytes.len()), len: index(bytes.len()) };
        self.bytes.extend_from_slice(bytes);
        span
    }

    /// Leaves room for a head whose count is known only after its parts.
    fn open(&mut self) -> usize {
        self.nodes.push(Node::Null);
        self.nodes.len() - 1
    }
}

/// Parses one value onto the end of a tape.
pub(super) struct Build<'t> {
    tape: &'t mut Tape,
    /// Arrays and objects around it. Whoever can write the file can forge a row, and must not exhaust our stack.
    depth: usize,
}

impl<'t> Build<'t> {
    /// For a whole value.
    pub(super) fn whole(tape: &'t mut Tape) -> Self {
        Self { tape, depth: 0 }
    }

    /// The tape, for a value that has parts, and the depth of the parts.
    fn enter<E: serde::de::Error>(self) -> Result<(&'t mut Tape, usize), E> {
        if self.depth == limits::VALUE_DEPTH {
            return Err(E::custom("it is nested too deep"));
        }
        Ok((self.tape, self.depth + 1))
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stored value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.tape.nodes.push(Node::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.tape.nodes.push(Node::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.tape.nodes.push(Node::Int(value));
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(value).map_err(E::custom)?)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.tape.nodes.push(Node::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let span = self.tape.push_bytes(value.as_bytes());
        self.tape.nodes.push(Node::Str(span));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (tape, depth) = self.enter()?;
        let head = tape.open();
        let mut len = 0;
        while items.next_element_seed(Build { tape, depth })?.is_some() {
            len += 1;
        }
        tape.nodes[head] = Node::Array { len };
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (tape, depth) = self.enter()?;
        let head = tape.open();
        let mut len = 0;
        while let Some(is_binary) = members.next_key_seed(MemberKey(tape))? {
            if is_binary {
                let text: std::borrow::Cow<'de, str> = members.next_value()?;
                let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(A::Error::custom)?;
                if len > 0 || members.next_key::<serde::de::IgnoredAny>()?.is_some() {
                    return Err(A::Error::custom("binary beside other members"));
                }
                tape.nodes[head] = Node::Binary(tape.push_bytes(&bytes));
                return Ok(());
            }
            members.next_value_seed(Build { tape, depth })?;
            len += 1;
        }
        tape.nodes[head] = Node::Object { len };
        Ok(())
    }
}

/// Pushes the key of a member without its escape; or says that it marks binary, and pushes nothing.
struct MemberKey<'t>(&'t mut Tape);

impl<'de> DeserializeSeed<'de> for MemberKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<bool, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        if key == BINARY {
            return Ok(true);
        }
        let key = if looks_like_binary(key) { &key[1..] } else { key };
        let span = self.0.push_bytes(key.as_bytes());
        self.0.nodes.push(Node::Str(span));
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            prop_oneof![Just(0.0), Just(-0.0), Just(5e-324), Just(1e16), Just(f64::MAX)].prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            "[\"\\\\\u{1}é]{0,4}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| Value::Object(Map::from_iter([(
                BINARY.into(),
                BASE64_STANDARD.encode(bytes).into()
            )]))),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("\\$\\$binary|[a-c\"\\\\]{0,3}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_tape_says_what_the_text_says(value in values()) {
            let document = Document::from_value(&value, 1 << 20).unwrap();
            let tape = document.tape().unwrap();
            // As text, in which the sign of zero and the kind of a number show.
            prop_assert_eq!(tape.to_value().to_string(), document.text());
            prop_assert_eq!(document.parse().unwrap().to_string(), document.text());
        }
    }
    #[test]
    fn forged_text_is_an_error_and_not_the_end_of_the_process() {
        let nested = |levels: usize| Document::trusted("[".repeat(levels) + &"]".repeat(levels));
        assert_eq!(nested(128).parse().unwrap().to_string(), nested(128).text());
        assert!(nested(128).tape().is_ok());
        for text in ["[".repeat(5_000_000), nested(129).text().into(), "nonsense".into(), "{\"$binary\":\"?\"}".into()]
        {
            assert!(Document::trusted(text.clone()).tape().is_err());
        }
        assert!(Document::trusted("[".repeat(5_000_000)).parse().is_err());
        assert!(Document::trusted("nonsense".into()).parse().is_err());
    }
}

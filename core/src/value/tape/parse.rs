//! From canonical text to a tape. Only what [`Writer`](super::super::Writer) writes is understood, which a row's check has
//! made sure of: no white space, no doubt about numbers. Half the time of a parser for any JSON; anything else is an error.

use super::{Node, Span, Tape};
use crate::limits;
use crate::value::{BINARY, looks_like_binary};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

type Parsed<T> = Result<T, &'static str>;

/// Parses the whole of `text` onto an empty tape.
pub(super) fn parse(text: &str, tape: Tape) -> Parsed<Tape> {
    let mut parser = Parser { text, at: 0, tape };
    parser.value(0)?;
    if parser.at == text.len() { Ok(parser.tape) } else { Err("there is text behind the value") }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    tape: Tape,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// Steps over a byte if it is the next.
    fn take(&mut self, byte: u8) -> bool {
        let next = self.peek() == byte;
        self.at += usize::from(next);
        next
    }

    fn expect(&mut self, byte: u8) -> Parsed<()> {
        if self.take(byte) { Ok(()) } else { Err("punctuation is missing") }
    }

    fn value(&mut self, depth: usize) -> Parsed<()> {
        let node = match self.peek() {
            b'"' => Node::Str(self.string()?),
            b'{' | b'[' if depth == limits::VALUE_DEPTH => return Err("it is nested too deep"),
            b'{' => return self.object(depth),
            b'[' => return self.array(depth),
            b'n' => self.word("null", Node::Null)?,
            b't' => self.word("true", Node::Bool(true))?,
            b'f' => self.word("false", Node::Bool(false))?,
            _ => self.number()?,
        };
        self.tape.nodes.push(node);
        Ok(())
    }

    fn word(&mut self, word: &str, node: Node) -> Parsed<Node> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err("a word is not null, true or false");
        }
        self.at += word.len();
        Ok(node)
    }

    /// Integers have neither fraction nor exponent.
    fn number(&mut self) -> Parsed<Node> {
        let rest = &self.text.as_bytes()[self.at..];
        let len =
            rest.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let text = self.text.get(self.at..self.at + len).unwrap_or_default();
        self.at += len;
        if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
            let float = text.parse().ok().filter(|float: &f64| float.is_finite());
            return float.map(Node::Float).ok_or("a float is not one");
        }
        text.parse().map(Node::Int).map_err(|_| "an integer is not one")
    }

    fn array(&mut self, depth: usize) -> Parsed<()> {
        self.at += 1;
        let head = self.tape.open();
        let mut len = 0;
        if !self.take(b']') {
            loop {
                self.value(depth + 1)?;
                len += 1;
                if !self.take(b',') {
                    break;
                }
            }
            self.expect(b']')?;
        }
        self.tape.nodes[head] = Node::Array { len };
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Parsed<()> {
        self.at += 1;
        let head = self.tape.open();
        let mut len = 0;
        if !self.take(b'}') {
            loop {
                let key = self.string()?;
                self.expect(b':')?;
                match self.tape.str(key) {
                    BINARY if len == 0 => return self.binary(head),
                    BINARY => return Err("binary stands beside other members"),
                    escaped if looks_like_binary(escaped) => {
                        self.tape.nodes.push(Node::Str(Span { start: key.start + 1, len: key.len - 1 }));
                    }
                    _ => self.tape.nodes.push(Node::Str(key)),
                }
                self.value(depth + 1)?;
                len += 1;
                if !self.take(b',') {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.tape.nodes[head] = Node::Object { len };
        Ok(())
    }

    /// The only member of the object that marks binary.
    fn binary(&mut self, head: usize) -> Parsed<()> {
        let encoded = self.raw_string()?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| "binary is not base64")?;
        self.tape.nodes[head] = Node::Binary(self.tape.push_bytes(&bytes));
        self.expect(b'}')
    }

    /// A string onto the tape's bytes.
    fn string(&mut self) -> Parsed<Span> {
        let start = self.at;
        let raw = self.raw_string()?;
        if !raw.contains('\\') {
            return Ok(self.tape.push_bytes(raw.as_bytes()));
        }
        let text: String =
            serde_json::from_str(&self.text[start..self.at]).map_err(|_| "a string has a broken escape")?;
        Ok(self.tape.push_bytes(text.as_bytes()))
    }

    /// A string as it is written, without its quotes.
    fn raw_string(&mut self) -> Parsed<&'t str> {
        const OPEN: &str = "a string is not closed";
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            let found = memchr::memchr2(b'"', b'\\', bytes.get(self.at..).unwrap_or_default()).ok_or(OPEN)?;
            let end = self.at + found;
            if bytes[end] == b'"' {
                self.at = end + 1;
                return self.text.get(start..end).ok_or(OPEN);
            }
            // An escape and the character that it takes.
            self.at = end + 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    /// A tape as a JSON tree, the slow way.
    fn tree(tape: &Tape, next: &mut usize) -> Value {
        let node = tape.nodes()[*next];
        *next += 1;
        match node {
            Node::Null => Value::Null,
            Node::Bool(value) => value.into(),
            Node::Int(value) => value.into(),
            Node::Float(value) => value.into(),
            Node::Str(span) => tape.str(span).into(),
            Node::Binary(span) => {
                Value::Object(Map::from_iter([(BINARY.into(), BASE64_STANDARD.encode(tape.bytes(span)).into())]))
            }
            Node::Array { len } => (0..len).map(|_| tree(tape, next)).collect(),
            Node::Object { len } => {
                let member = |_| {
                    let Value::String(key) = tree(tape, next) else { panic!("a key") };
                    let key = if looks_like_binary(&key) { format!("${key}") } else { key };
                    (key, tree(tape, next))
                };
                Value::Object((0..len).map(member).collect())
            }
        }
    }

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
            let mut next = 0;
            // As text, in which the sign of zero and the kind of a number show.
            prop_assert_eq!(tree(tape, &mut next).to_string(), document.text());
            prop_assert_eq!(next, tape.nodes().len());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\",:\\\\ntfalse0-9.eEu$binary=é ]{0,24}") {
            let _ = Tape::parse(&text);
        }
    }

    #[test]
    fn text_that_was_never_written_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "nul",
            "truefalse",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "01x",
            "-",
            "1e",
            "9223372036854775808",
            "1e999",
            "{\"$binary\":\"AA\"}",
            "{\"$binary\":\"AAA=\",\"a\":1}",
            "{\"a\":1,\"$binary\":\"AAA=\"}",
            "{\"$binary\":1}",
            "NaN",
            "Infinity",
        ] {
            assert!(Tape::parse(text).is_err(), "{text}");
        }
        assert!(Tape::parse(&("[".repeat(129) + &"]".repeat(129))).is_err());
        assert!(Tape::parse(&("[".repeat(128) + &"]".repeat(128))).is_ok());
    }
}

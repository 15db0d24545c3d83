//! Keys, scope names and patterns: parsed once at the door, valid ever after.

use crate::error::shorten;
use crate::{Error, Result, limits};

/// A valid key: 1 to [`limits::KEY_BYTES`] bytes of UTF-8 without control characters, not starting with `__`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// Checks the rules of a key.
    ///
    /// # Errors
    /// `Invalid` names the rule.
    pub fn parse(text: &'a str) -> Result<Self> {
        check_name("key", text, limits::KEY_BYTES)?;
        Ok(Self(text))
    }

    /// The key's text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A valid name of a scope: the rules of a key, up to [`limits::SCOPE_NAME_BYTES`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopeName<'a>(&'a str);

impl<'a> ScopeName<'a> {
    /// Checks the rules of a scope's name.
    ///
    /// # Errors
    /// `Invalid` names the rule.
    pub fn parse(text: &'a str) -> Result<Self> {
        check_name("scope name", text, limits::SCOPE_NAME_BYTES)?;
        Ok(Self(text))
    }

    /// The name's text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// Checks the name of a watch: the rules of a scope's name.
///
/// # Errors
/// `Invalid` names the rule.
pub(crate) fn check_watch_name(text: &str) -> Result<()> {
    check_name("watch name", text, limits::SCOPE_NAME_BYTES)
}

fn check_name(what: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{what} is empty; it takes 1 to {most} bytes")));
    }
    if text.len() > most {
        return Err(Error::invalid(format!("{what} {} has {} bytes; the most is {most}", shorten(text), text.len())));
    }
    if let Some(byte) = text.bytes().find(u8::is_ascii_control) {
        return Err(Error::invalid(format!(
            "{what} {} has the control character \\x{byte:02x}; leave control characters out",
            shorten(text)
        )));
    }
    if text.starts_with("__") {
        return Err(Error::invalid(format!("{what} {} starts with '__', which is reserved", shorten(text))));
    }
    Ok(())
}

/// A glob over whole keys: `*` any run, `?` one character, `[a-z]` and `[!a-z]` one of a set, `\` takes the next
/// character literally. A literal beginning becomes a range scan; matching takes time linear in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    prefix: String,
    /// Nothing follows the prefix but `*`: the range alone decides.
    prefix_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Run,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Every key.
    pub fn all() -> Self {
        Self { tokens: vec![Token::Run], prefix: String::new(), prefix_only: true }
    }

    /// Parses a glob.
    ///
    /// # Errors
    /// `Invalid` names what is wrong: an empty or overlong pattern, an open or empty `[`, a reversed range, a `\` at the end.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid(format!("pattern {}: {why}", shorten(text)));
        if text.is_empty() {
            return Err(wrong("it is empty; '*' matches every key"));
        }
        if text.len() > limits::PATTERN_BYTES {
            return Err(wrong(&format!("it has {} bytes; the most is {}", text.len(), limits::PATTERN_BYTES)));
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' if tokens.last() == Some(&Token::Run) => {}
                '*' => tokens.push(Token::Run),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(parse_set(&mut chars).map_err(wrong)?),
                '\\' => match chars.next() {
                    Some(c) => tokens.push(Token::Literal(c)),
                    None => return Err(wrong("it ends with '\\'; write '\\\\' for a backslash")),
                },
                c => tokens.push(Token::Literal(c)),
            }
        }
        let prefix: String =
            tokens.iter().map_while(|token| if let Token::Literal(c) = token { Some(*c) } else { None }).collect();
        let prefix_only = tokens.last() == Some(&Token::Run) && tokens.len() == prefix.chars().count() + 1;
        Ok(Self { tokens, prefix, prefix_only })
    }

    /// Whether the whole of `key` fits.
    pub fn matches(&self, key: &str) -> bool {
        if !key.starts_with(&self.prefix) {
            return false;
        }
        self.prefix_only || self.matches_tokens(key)
    }

    /// Greedy matching with one point of return, the last `*`: a later `*` makes earlier ones final,
    /// so the work is at most tokens times characters.
    fn matches_tokens(&self, key: &str) -> bool {
        let (mut token, mut rest) = (0, key);
        let mut retry: Option<(usize, &str)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Run) => {
                    token += 1;
                    retry = Some((token, rest));
                    continue;
                }
                Some(one) => {
                    if let Some(c) = rest.chars().next().filter(|c| one.accepts(*c)) {
                        token += 1;
                        rest = &rest[c.len_utf8()..];
                        continue;
                    }
                }
                None if rest.is_empty() => return true,
                None => {}
            }
            let Some((after_run, from)) = retry else { return false };
            let Some(skipped) = from.chars().next() else { return false };
            rest = &from[skipped.len_utf8()..];
            token = after_run;
            retry = Some((token, rest));
        }
    }

    /// The literal text that every matching key starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether every key of the range from [`Pattern::prefix`] to [`Pattern::upper_bound`] matches.
    pub(crate) fn is_range(&self) -> bool {
        self.prefix_only
    }

    /// The smallest text that is greater than every key with the prefix; `None` when there is no bound.
    pub(crate) fn upper_bound(&self) -> Option<String> {
        let mut prefix = self.prefix.clone();
        while let Some(last) = prefix.pop() {
            // UTF-8 sorts like code points, so the next code point (the surrogates are a gap) bounds the prefix.
            let next = match u32::from(last) + 1 {
                0xD800 => Some('\u{E000}'),
                code => char::from_u32(code),
            };
            if let Some(next) = next {
                prefix.push(next);
                return Some(prefix);
            }
        }
        None
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Token::Literal(literal) => *literal == c,
            Token::One => true,
            Token::Run => false,
            Token::Set { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
        }
    }
}

/// The inside of `[…]`; a `]` in first place and a `-` in first or last place are literal, `\` escapes.
fn parse_set(chars: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a '[' is not closed; write '\\[' for a bracket";
    let negated = chars.as_str().starts_with('!');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        let from = match chars.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(Token::Set { negated, ranges }),
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        let mut ahead = chars.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(end)) if end != ']' => {
                *chars = ahead;
                if end == '\\' { chars.next().ok_or(OPEN)? } else { end }
            }
            _ => from,
        };
        if to < from {
            return Err("a range in '[…]' runs backwards");
        }
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of a match, without any cleverness.
    fn slow(tokens: &[Token], key: &[char]) -> bool {
        match (tokens.first(), key.first()) {
            (None, None) => true,
            (Some(Token::Run), _) => slow(&tokens[1..], key) || (!key.is_empty() && slow(tokens, &key[1..])),
            (Some(token), Some(c)) => token.accepts(*c) && slow(&tokens[1..], &key[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_slow_definition(pattern in "[ab*?\\[\\]!\\\\é-]{1,9}", key in "[abé\\-\\]!]{1,9}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let chars: Vec<char> = key.chars().collect();
                prop_assert_eq!(pattern.matches(&key), slow(&pattern.tokens, &chars));
            }
        }

        #[test]
        fn every_match_lies_in_the_range_of_the_prefix(pattern in "[ab\u{D7FF}\u{10FFFF}*]{1,5}", key in "[ab\u{D7FF}\u{E000}\u{10FFFF}]{1,6}") {
            let pattern = Pattern::parse(&pattern).unwrap();
            if pattern.matches(&key) {
                prop_assert!(key.as_str() >= pattern.prefix());
                prop_assert!(pattern.upper_bound().is_none_or(|bound| key < bound));
            }
        }
    }

    #[test]
    fn a_hostile_pattern_is_answered_at_once() {
        let pattern = Pattern::parse(&"*a".repeat(2000)).unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(1000))));
    }

    #[test]
    fn broken_patterns_are_named() {
        for (text, why) in
            [("", "empty"), ("[", "not closed"), ("[z-a]", "backwards"), ("a\\", "ends with"), ("[]", "not closed")]
        {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Pattern::parse(&"*".repeat(10_000)).is_err());
        assert!(Pattern::parse("{a,b").unwrap().matches("{a,b"));
    }

    #[test]
    fn broken_keys_are_named() {
        for (text, why) in [("", "empty"), ("a\0b", "\\x00"), ("a\nb", "\\x0a"), ("__x", "reserved")] {
            let error = Key::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        let error = Key::parse(&"k".repeat(1025)).unwrap_err().to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
        for text in ["../../etc/passwd", "a//b", "a::b", "100%", "x_y", "'; DROP TABLE entry", "é", &"k".repeat(1024)]
        {
            assert!(Key::parse(text).is_ok());
        }
    }
}

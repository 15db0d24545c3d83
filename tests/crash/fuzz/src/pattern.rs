//! Key patterns against a slow matcher that is written from their description alone.

use crate::{Target, two_texts};
use llmspell_state_persistence::inside::upper_bound;
use llmspell_state_persistence::key::{Key, Pattern};
use llmspell_state_persistence::{ErrorKind, limits};

/// A pattern, NUL, a key.
pub const TARGET: Target =
    Target {
        name: "pattern", run, words: &["*", "?", "[", "]", "[!", "-", "\\", "[]", "é", "\u{10FFFF}", "\u{D7FF}"]
    };

enum Part {
    Run,
    One,
    Set(bool, Vec<(char, char)>),
}

/// `*` any run, `?` one character, `[a-z]` and `[!a-z]` one of a set, `\` takes the next character literally. In a set a `]` in
/// first place and a `-` in first or last place are themselves.
fn parse(text: &[char]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let c = text[at];
        at += 1;
        parts.push(match c {
            '*' => Part::Run,
            '?' => Part::One,
            '[' => {
                let negated = text.get(at) == Some(&'!');
                at += usize::from(negated);
                let mut members = Vec::new();
                loop {
                    if *text.get(at)? == ']' && !members.is_empty() {
                        at += 1;
                        break;
                    }
                    let from = literal(text, &mut at)?;
                    let is_range = text.get(at) == Some(&'-') && text.get(at + 1).is_some_and(|end| *end != ']');
                    let mut to = from;
                    if is_range {
                        at += 1;
                        to = literal(text, &mut at)?;
                    }
                    if to < from {
                        return None;
                    }
                    members.push((from, to));
                }
                Part::Set(negated, members)
            }
            '\\' => {
                at -= 1;
                let c = literal(text, &mut at)?;
                Part::Set(false, vec![(c, c)])
            }
            c => Part::Set(false, vec![(c, c)]),
        });
    }
    Some(parts)
}

/// A character, or the one behind a backslash.
fn literal(text: &[char], at: &mut usize) -> Option<char> {
    if *text.get(*at)? == '\\' {
        *at += 1;
    }
    *at += 1;
    text.get(*at - 1).copied()
}

/// Which beginnings of the key the first parts match, part by part.
fn matches(parts: &[Part], key: &[char]) -> bool {
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for part in parts {
        let mut next = vec![false; key.len() + 1];
        for (end, slot) in next.iter_mut().enumerate() {
            *slot = match part {
                Part::Run => reached[..=end].contains(&true),
                Part::One => end > 0 && reached[end - 1],
                Part::Set(negated, members) => {
                    end > 0
                        && reached[end - 1]
                        && members.iter().any(|(from, to)| *from <= key[end - 1] && key[end - 1] <= *to) != *negated
                }
            };
        }
        reached = next;
    }
    reached[key.len()]
}

fn run(data: &[u8]) {
    let (text, key) = two_texts(data);
    let pattern = Pattern::parse(&text);
    let chars: Vec<char> = text.chars().collect();
    let expected = parse(&chars).filter(|_| !text.is_empty() && text.len() <= limits::PATTERN_BYTES);
    assert_eq!(pattern.is_ok(), expected.is_some(), "{text:?}: {pattern:?}");
    match &pattern {
        Ok(pattern) => {
            let expected = matches(&expected.unwrap_or_default(), &key.chars().collect::<Vec<_>>());
            assert_eq!(pattern.matches(&key), expected, "pattern {text:?}, key {key:?}");
            if expected {
                assert!(key.as_str() >= pattern.prefix(), "pattern {text:?}, key {key:?}");
                assert!(upper_bound(pattern).is_none_or(|bound| key < bound), "pattern {text:?}, key {key:?}");
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
    }
    // A key whose special characters are escaped is a pattern for itself alone.
    if Key::parse(&key).is_ok() {
        let escaped: String =
            key.chars().flat_map(|c| [Some('\\').filter(|_| "*?[\\".contains(c)), Some(c)]).flatten().collect();
        if let Ok(exact) = Pattern::parse(&escaped) {
            assert!(exact.matches(&key) && exact.prefix() == key, "{escaped:?}");
            assert_eq!(exact.matches(&text), text == key, "{escaped:?} and {text:?}");
        } else {
            assert!(escaped.len() > limits::PATTERN_BYTES, "{escaped:?}");
        }
    }
}

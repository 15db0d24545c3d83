//! What workers are told to do, and what each of it must leave in the store.

use super::ledger::Ledger;
use fastrand::Rng;
use serde_json::{Map, Value, json};
use std::fmt;

/// One operation; each is one commit, or none.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Set {
        key: String,
        tag: String,
        size: usize,
    },
    Many {
        tag: String,
        size: usize,
        keys: Vec<String>,
    },
    Both {
        tag: String,
        size: usize,
        first: String,
        second: String,
        gone: String,
        by: u64,
    },
    Trim {
        key: String,
        tag: String,
    },
    Modify {
        tag: String,
    },
    Increment {
        by: u64,
    },
    Append {
        tag: String,
    },
    Merge {
        member: String,
        tag: String,
    },
    Delete {
        key: String,
    },
    Clear {
        prefix: char,
    },
    Child {
        name: String,
        key: String,
        tag: String,
    },
    /// A named watch of the slot's own scope goes on.
    Follow,
    Reopen,
}

/// A key that a commit changes: its scope's path, itself, its new value.
pub(crate) type Effect = (String, String, Wanted);

/// What a key must be. Most of what is asked of it is answered without making the long values.
#[derive(Debug)]
pub(crate) enum Wanted {
    Gone,
    Value(Value),
    /// What [`filled`] makes of it; no other operation has this tag.
    Filled {
        tag: String,
        size: usize,
    },
}

impl Wanted {
    pub(crate) fn is(&self, found: Option<&Value>) -> bool {
        match (self, found) {
            (Self::Gone, None) => true,
            (Self::Value(value), Some(found)) => value == found,
            (Self::Filled { tag, size }, Some(found)) => {
                found["tag"].as_str() == Some(tag) && *found == filled(tag, *size)
            }
            _ => false,
        }
    }
}

/// What a commit does, and what the worker must be told.
pub(crate) struct Expected {
    pub(crate) effects: Vec<Effect>,
    pub(crate) answer: Answer,
}

/// What a worker must be told.
pub(crate) enum Answer {
    /// The commit's version.
    Version,
    Text(String),
    /// The version up to which a watch is kept: any, but never one before.
    Kept,
}

/// The operations of one slot; `tag` is one that no other run has, and so is the number that it adds to the counter.
pub(crate) struct Source<'r> {
    pub(crate) random: &'r mut Rng,
    pub(crate) run: u64,
    pub(crate) slot: usize,
    /// Whether the store may be closed and opened between.
    pub(crate) alone: bool,
    /// Values are this much larger than usual.
    pub(crate) growth: usize,
}

impl Source<'_> {
    fn key(&mut self) -> String {
        format!("{}{}", self.random.choice(['a', 'b', 'c']).unwrap_or('a'), self.random.u32(0..12))
    }

    fn size(&mut self) -> usize {
        let size = match self.random.u32(0..20) {
            0 => self.random.usize(4_000..20_000),
            1..6 => self.random.usize(300..3_000),
            _ => self.random.usize(0..300),
        };
        size * self.growth
    }

    pub(crate) fn operations(mut self, count: usize) -> Vec<Operation> {
        let mut last_reopen = 0;
        (0..count)
            .map(|number| {
                let tag = format!("{}.{}.{number}", self.run, self.slot);
                // The first one tells every later change of this run from those of the run before.
                let kind = if number == 0 { 0 } else { self.random.u32(0..100) };
                match kind {
                    0..23 => {
                        // One key has long values time after time, of which little is new.
                        let key = self.key();
                        let is_long = key.starts_with('c');
                        let size = if is_long { 6_000 } else { self.size() };
                        let key = if is_long { "c0".into() } else { key };
                        Operation::Set { key, tag, size }
                    }
                    23..25 => Operation::Follow,
                    25..35 => {
                        let mut keys: Vec<String> = (0..self.random.usize(1..6)).map(|_| self.key()).collect();
                        keys.sort();
                        keys.dedup();
                        Operation::Many { tag, size: self.size(), keys }
                    }
                    35..50 => {
                        let (mut first, second, mut gone) = (self.key(), self.key(), self.key());
                        if first == second {
                            first.push('x');
                        }
                        if gone == first || gone == second {
                            gone.push('y');
                        }
                        Operation::Both { tag, size: self.size(), first, second, gone, by: self.run }
                    }
                    50..56 => Operation::Trim { key: self.key(), tag },
                    56..64 => Operation::Modify { tag },
                    64..74 => Operation::Increment { by: self.run },
                    74..80 => Operation::Append { tag },
                    80..86 => Operation::Merge { member: format!("s{}", self.slot), tag },
                    86..93 => Operation::Delete { key: self.key() },
                    93..95 => Operation::Clear { prefix: self.random.choice(['a', 'b', 'c']).unwrap_or('a') },
                    95..98 => Operation::Child { name: format!("of{}", self.random.u32(0..4)), key: self.key(), tag },
                    _ if self.alone && number > last_reopen + 10 => {
                        last_reopen = number;
                        Operation::Reopen
                    }
                    _ => Operation::Set { key: self.key(), tag, size: 0 },
                }
            })
            .collect()
    }
}

/// A plain value; every language makes the same.
fn filled(tag: &str, size: usize) -> Value {
    let mut pad = String::with_capacity(size + tag.len());
    // Long values have much in common: they are stored as differences.
    for n in 0_u64.. {
        if pad.len() >= size {
            break;
        }
        if size < 4_000 { pad.push_str(tag) } else { pad.push_str(&(n * n).to_string()) }
    }
    pad.truncate(size);
    json!({"tag": tag, "pad": pad})
}

impl Operation {
    /// What it does to the state that the ledger has reached.
    pub(crate) fn expected(&self, slot: usize, ledger: &Ledger) -> Expected {
        const SHARED: &str = "shared";
        let own = format!("s{slot}");
        let filled = |tag: &str, size: usize| Wanted::Filled { tag: tag.to_owned(), size };
        let set = |key: &str, value: Wanted| (own.clone(), key.to_owned(), value);
        let shared = |key: &str, value: Value| (SHARED.to_owned(), key.to_owned(), Wanted::Value(value));
        let old = |key: &str| ledger.value(SHARED, key);
        let counter = |by: u64| old("counter").and_then(Value::as_u64).unwrap_or(0) + by;
        let text = |answer: u64| Answer::Text(answer.to_string());
        let (effects, answer) = match self {
            Self::Set { key, tag, size } => (vec![set(key, filled(tag, *size))], Answer::Version),
            Self::Many { tag, size, keys } => {
                (keys.iter().map(|key| set(key, filled(tag, *size))).collect(), Answer::Version)
            }
            Self::Both { tag, size, first, second, gone, by } => {
                let count = counter(*by);
                let mut effects = vec![set(first, filled(tag, *size)), set(second, filled(tag, *size))];
                effects.push(shared("counter", count.into()));
                if ledger.value(&own, gone).is_some() {
                    effects.push((own.clone(), gone.clone(), Wanted::Gone));
                }
                (effects, text(count))
            }
            Self::Trim { key, tag } => {
                (vec![shared("list", json!([])), set(key, filled(tag, 0))], Answer::Text("-".into()))
            }
            Self::Modify { tag } => {
                let n = old("modified").and_then(|old| old["n"].as_u64()).unwrap_or(0) + 1;
                (vec![shared("modified", json!({"tag": tag, "n": n}))], text(n))
            }
            Self::Increment { by } => (vec![shared("counter", counter(*by).into())], text(counter(*by))),
            Self::Append { tag } => {
                let mut list = old("list").and_then(Value::as_array).cloned().unwrap_or_default();
                list.push(tag.as_str().into());
                let length = list.len() as u64;
                (vec![shared("list", list.into())], text(length))
            }
            Self::Merge { member, tag } => {
                let mut merged = old("merged").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
                merged.insert(member.clone(), tag.as_str().into());
                (vec![shared("merged", merged.into())], Answer::Text("-".into()))
            }
            Self::Delete { key } => {
                let there = ledger.value(&own, key).is_some();
                (there.then(|| (own.clone(), key.clone(), Wanted::Gone)).into_iter().collect(), text(u64::from(there)))
            }
            Self::Clear { prefix } => {
                let doomed = ledger.keys(&own).filter(|key| key.starts_with(*prefix));
                let effects: Vec<Effect> = doomed.map(|key| (own.clone(), key.to_owned(), Wanted::Gone)).collect();
                let count = effects.len() as u64;
                (effects, text(count))
            }
            Self::Child { name, key, tag } => {
                (vec![(format!("{own}/{name}"), key.clone(), filled(tag, 0))], Answer::Version)
            }
            Self::Follow => (Vec::new(), Answer::Kept),
            Self::Reopen => (Vec::new(), Answer::Text("-".into())),
        };
        Expected { effects, answer }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { key, tag, size } => write!(f, "set {key} {tag} {size}"),
            Self::Many { tag, size, keys } => write!(f, "many {tag} {size} {}", keys.join(" ")),
            Self::Both { tag, size, first, second, gone, by } => {
                write!(f, "both {tag} {size} {first} {second} {gone} {by}")
            }
            Self::Trim { key, tag } => write!(f, "trim {key} {tag}"),
            Self::Modify { tag } => write!(f, "modify {tag}"),
            Self::Increment { by } => write!(f, "increment {by}"),
            Self::Append { tag } => write!(f, "append {tag}"),
            Self::Merge { member, tag } => write!(f, "merge {member} {tag}"),
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::Clear { prefix } => write!(f, "clear {prefix}*"),
            Self::Child { name, key, tag } => write!(f, "child {name} {key} {tag}"),
            Self::Follow => write!(f, "follow"),
            Self::Reopen => write!(f, "reopen"),
        }
    }
}

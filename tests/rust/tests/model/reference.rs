//! The judge: plain maps, and what has happened to them in order. Simple and slow on purpose.

use super::verbs::{LONG_MS, SHORT_MS, Said, Time, Verb, matches, wrapped};
use llmspell_state_persistence::{Entry, ErrorKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Until when a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Never,
    /// By the store's clock.
    At(i64),
    /// So long from its commit on: the store has still to say when that was.
    For(i64),
}

/// What a write says of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    Keep,
    Time(Time),
    Until(Life),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) value: Value,
    pub(crate) life: Life,
}

impl Held {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self { value: entry.value(), life: entry.expires_ms().map_or(Life::Never, Life::At) }
    }

    fn text(&self) -> String {
        self.value.to_string()
    }

    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        matches!(self.life, Life::At(time_ms) if time_ms <= now_ms)
    }
}

/// As text: numbers and the order of members count.
pub(crate) fn texts(held: Option<&Held>) -> Option<String> {
    held.map(Held::text)
}

pub(crate) type Keys = BTreeMap<String, Held>;

/// A change of a key.
#[derive(Debug, Clone)]
struct Row {
    scope: usize,
    key: String,
    before: Option<Held>,
    by_run: bool,
    /// That of its commit or a later one, before anything else happened; 0 until that is known.
    version: u64,
}

/// A fork: it, and what it was made from, each followed by the scope inside, and what both were when they parted.
#[derive(Debug, Clone)]
pub(crate) struct Fork {
    pub(crate) scope: usize,
    pub(crate) origin: usize,
    base: [Keys; 2],
}

/// A key that both sides of a merge have changed, and what becomes of it.
pub(crate) enum Verdict {
    Left,
    Ours,
    Theirs,
    Value(Value),
    Delete,
}

/// The rule of every merge here.
pub(crate) fn verdict(key: &str) -> Verdict {
    match key.as_bytes().last() {
        Some(b'0') => Verdict::Ours,
        Some(b'1') => Verdict::Theirs,
        Some(b'2') => Verdict::Value(json!("both")),
        Some(b'3') => Verdict::Delete,
        _ => Verdict::Left,
    }
}

/// Keys of scopes, by the scopes' numbers.
pub(crate) type Places = BTreeSet<(usize, String)>;

#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) paths: Vec<Vec<String>>,
    pub(crate) scopes: Vec<Keys>,
    times: Vec<Time>,
    rows: Vec<Row>,
    pub(crate) forks: Vec<Fork>,
    /// Whether the run that may be undone is at work.
    pub(crate) by_run: bool,
    /// Whether this is what a transaction sees: what it writes itself does not expire before it is committed.
    pub(crate) inside: bool,
    /// Whether a key was ever to expire during the run.
    pub(crate) mortal: bool,
}

impl Reference {
    /// The root, a scope, and one inside it.
    pub(crate) fn new() -> Self {
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            paths: vec![path(&[]), path(&["a"]), path(&["a", "b"])],
            scopes: vec![Keys::new(); 3],
            times: vec![Time::Default; 3],
            rows: Vec::new(),
            forks: Vec::new(),
            by_run: false,
            inside: false,
            mortal: false,
        }
    }

    /// The number of a scope that is there.
    pub(crate) fn scope(&self, number: usize) -> usize {
        number % self.scopes.len()
    }

    pub(crate) fn set_time(&mut self, scope: usize, time: Time) {
        self.times[scope] = time;
    }

    /// Whether keys of a scope that are set without a time live for ever.
    pub(crate) fn lives_for_ever(&self, scope: usize) -> bool {
        self.default_time(scope) == Time::Never
    }

    fn default_time(&self, scope: usize) -> Time {
        let outer = |scope: usize| if self.paths[scope].len() == 2 { scope - 1 } else { 0 };
        match self.times[scope] {
            Time::Default if scope != 0 => self.default_time(outer(scope)),
            Time::Default => Time::Never,
            time => time,
        }
    }

    fn put(&mut self, scope: usize, key: &str, value: Value, told: Told) {
        let before = self.scopes[scope].get(key).cloned();
        let life = match (told, &before) {
            (Told::Until(life), _) => life,
            (Told::Keep, Some(before)) => before.life,
            (Told::Keep | Told::Time(_), _) => {
                let time = match told {
                    Told::Time(time) if time != Time::Default => time,
                    _ => self.default_time(scope),
                };
                self.mortal |= time == Time::Short;
                match time {
                    Time::Short => Life::For(SHORT_MS),
                    Time::Long => Life::For(LONG_MS),
                    Time::Never | Time::Default => Life::Never,
                }
            }
        };
        let life = if self.inside { Life::Never } else { life };
        self.scopes[scope].insert(key.to_owned(), Held { value, life });
        self.note(scope, key, before);
    }

    pub(crate) fn remove(&mut self, scope: usize, key: &str) -> bool {
        let before = self.scopes[scope].remove(key);
        let was_there = before.is_some();
        if was_there {
            self.note(scope, key, before);
        }
        was_there
    }

    fn note(&mut self, scope: usize, key: &str, before: Option<Held>) {
        self.rows.push(Row { scope, key: key.to_owned(), before, by_run: self.by_run, version: 0 });
    }

    /// How much has happened so far.
    pub(crate) fn mark(&self) -> usize {
        self.rows.len()
    }

    /// What has happened since a mark was one commit: of each key there is one change, or none where it was not there before and is
    /// not afterwards.
    pub(crate) fn commit(&mut self, mark: usize) {
        let (mut seen, mut rows) = (BTreeSet::new(), self.rows.split_off(mark));
        rows.retain(|row| {
            let is_there = self.scopes[row.scope].contains_key(&row.key);
            seen.insert((row.scope, row.key.clone())) && (row.before.is_some() || is_there)
        });
        self.rows.append(&mut rows);
    }

    /// Says which version came of all that has happened since this was last told.
    pub(crate) fn stamp(&mut self, version: u64) {
        self.rows.iter_mut().rev().take_while(|row| row.version == 0).for_each(|row| row.version = version);
    }

    /// Keys whose time has run out are gone.
    pub(crate) fn pass(&mut self, now_ms: i64) {
        self.scopes.iter_mut().for_each(|keys| keys.retain(|_, held| !held.is_over(now_ms)));
    }

    /// When the next key expires.
    pub(crate) fn due(&self) -> Option<i64> {
        let lives = self.scopes.iter().flat_map(BTreeMap::values).map(|held| held.life);
        lives.filter_map(|life| if let Life::At(time_ms) = life { Some(time_ms) } else { None }).min()
    }

    pub(crate) fn expect(&mut self, scope: usize, verb: &Verb) -> Said {
        let mark = self.mark();
        let said = self.verb(scope, verb);
        self.commit(mark);
        said
    }

    fn verb(&mut self, scope: usize, verb: &Verb) -> Said {
        let keys = &self.scopes[scope];
        let value = |key: &String| keys.get(key).map(|held| held.value.clone());
        Ok(match verb {
            Verb::Get(key) => json!([value(key)]),
            Verb::Set(key, value) => {
                self.put(scope, key, value.clone(), Told::Time(Time::Default));
                Value::Null
            }
            Verb::SetWith(key, value, time) => {
                self.put(scope, key, value.clone(), Told::Time(*time));
                Value::Null
            }
            Verb::Touch(key, time) => {
                let Some(value) = value(key) else { return Ok(false.into()) };
                self.put(scope, key, value, Told::Time(*time));
                true.into()
            }
            Verb::Delete(key) => self.remove(scope, key).into(),
            Verb::Exists(key) => keys.contains_key(key).into(),
            Verb::Increment(key, by) => {
                let old = value(key).unwrap_or(json!(0));
                #[allow(clippy::cast_precision_loss)] // small numbers
                let sum = match (old.as_i64(), old.as_f64()) {
                    (Some(old), _) => Value::from(old + by),
                    (_, Some(old)) => Value::from(old + *by as f64),
                    _ => return Err(ErrorKind::Invalid),
                };
                self.put(scope, key, sum.clone(), Told::Keep);
                sum
            }
            Verb::Append(key, item) => {
                let Value::Array(mut list) = value(key).unwrap_or(json!([])) else { return Err(ErrorKind::Invalid) };
                list.push(item.clone());
                let length = list.len();
                self.put(scope, key, list.into(), Told::Keep);
                length.into()
            }
            Verb::Merge(key, patch) => {
                let mut merged = value(key).unwrap_or_default();
                merge(&mut merged, patch);
                self.put(scope, key, merged.clone(), Told::Keep);
                merged
            }
            Verb::Modify(key) => {
                let new = wrapped(value(key).as_ref());
                self.put(scope, key, new.clone(), Told::Keep);
                new
            }
            Verb::SetMany(pairs) => {
                self.set_many(scope, pairs, Time::Default);
                Value::Null
            }
            Verb::SetManyWith(pairs, time) => {
                self.set_many(scope, pairs, *time);
                Value::Null
            }
            Verb::Clear(pattern) => {
                let doomed: Vec<String> = keys.keys().filter(|key| matches(pattern, key)).cloned().collect();
                doomed.iter().filter(|key| self.remove(scope, key)).count().into()
            }
            Verb::Count(pattern) => keys.keys().filter(|key| matches(pattern, key)).count().into(),
            Verb::Items { pattern, after, limit, reverse } => {
                let fits = |key: &&String| {
                    matches(pattern, key)
                        && after.as_ref().is_none_or(|after| if *reverse { *key < after } else { *key > after })
                };
                let mut found: Vec<&String> = keys.keys().filter(fits).collect();
                if *reverse {
                    found.reverse();
                }
                let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
                found.into_iter().take(most).map(|key| json!([key, keys[key].value])).collect()
            }
        })
    }

    fn set_many(&mut self, scope: usize, pairs: &[(String, Value)], time: Time) {
        for (key, value) in pairs {
            self.put(scope, key, value.clone(), Told::Time(time));
        }
    }

    /// Gives a key what it was, unless the time of that has run out; says whether it is another now.
    fn restore(&mut self, scope: usize, key: &str, wanted: Option<Held>, now_ms: i64) -> bool {
        let wanted = wanted.filter(|wanted| !wanted.is_over(now_ms));
        let current = self.scopes[scope].get(key);
        let same = |held: &Held| (held.text(), held.life);
        if current.map(same) == wanted.as_ref().map(same) {
            return false;
        }
        match wanted {
            Some(held) => self.put(scope, key, held.value, Told::Until(held.life)),
            None => drop(self.remove(scope, key)),
        }
        true
    }

    /// A key becomes what it was.
    pub(crate) fn revert(&mut self, scope: usize, key: &str, then: &Keys, now_ms: i64) {
        match then.get(key).filter(|held| !held.is_over(now_ms)) {
            Some(held) => self.put(scope, key, held.value.clone(), Told::Until(held.life)),
            None => drop(self.remove(scope, key)),
        }
    }

    /// All keys that match become what they were; says how many are others now.
    pub(crate) fn revert_to(&mut self, scope: usize, pattern: &str, then: &Keys, now_ms: i64) -> u64 {
        let keys: BTreeSet<String> = self.scopes[scope].keys().chain(then.keys()).cloned().collect();
        let matching = keys.iter().filter(|key| matches(pattern, key));
        matching.filter(|key| self.restore(scope, key, then.get(*key).cloned(), now_ms)).count() as u64
    }

    /// Takes back what the run has done after a version: how many keys that changes, and which it leaves to others.
    pub(crate) fn undo(&mut self, since: u64, now_ms: i64) -> (u64, Places) {
        let mut of_key: BTreeMap<(usize, String), Vec<Row>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.version > since) {
            of_key.entry((row.scope, row.key.clone())).or_default().push(row.clone());
        }
        let (mut keys, mut refused) = (0, Places::new());
        for ((scope, key), rows) in of_key {
            let last = rows.iter().rev().take_while(|row| row.by_run);
            match last.last() {
                Some(first) => keys += u64::from(self.restore(scope, &key, first.before.clone(), now_ms)),
                None if rows.iter().any(|row| row.by_run) => drop(refused.insert((scope, key))),
                None => {}
            }
        }
        (keys, refused)
    }

    /// A fork of a scope and the one inside it; its name is to be given.
    pub(crate) fn fork(&mut self, origin: usize, name: &str) -> usize {
        let scope = self.scopes.len();
        let base = [self.scopes[origin].clone(), self.scopes[origin + 1].clone()];
        self.paths.extend([vec![name.to_owned()], vec![name.to_owned(), "b".into()]]);
        self.scopes.extend(base.iter().cloned());
        self.times.extend([Time::Default; 2]);
        self.forks.push(Fork { scope, origin, base });
        scope
    }

    /// Merges a fork into its origin, key by key: how many keys that changes, and which are left alone.
    pub(crate) fn merge(&mut self, fork: &Fork) -> (u64, Places) {
        let (mut changed, mut left) = (0, Places::new());
        for inner in 0..2 {
            let (ours, theirs, base) = (fork.origin + inner, fork.scope + inner, &fork.base[inner]);
            let keys: BTreeSet<String> = base.keys().chain(self.scopes[theirs].keys()).cloned().collect();
            for key in keys {
                let [was, own, found] =
                    [base, &self.scopes[ours], &self.scopes[theirs]].map(|keys| keys.get(&key).cloned());
                let is_conflict = own != was;
                if found == was || is_conflict && texts(found.as_ref()) == texts(own.as_ref()) {
                    continue;
                }
                changed += 1;
                match if is_conflict { verdict(&key) } else { Verdict::Theirs } {
                    Verdict::Left => {
                        changed -= 1;
                        left.insert((ours, key));
                    }
                    Verdict::Ours => changed -= 1,
                    Verdict::Theirs => match found {
                        Some(held) => self.put(ours, &key, held.value, Told::Until(held.life)),
                        None => drop(self.remove(ours, &key)),
                    },
                    Verdict::Value(value) => self.put(ours, &key, value, Told::Keep),
                    Verdict::Delete => drop(self.remove(ours, &key)),
                }
            }
        }
        (changed, left)
    }
}

/// RFC 7386, section 2, as the pseudocode there.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let members = target.as_object_mut().unwrap();
    for (key, part) in patch {
        if part.is_null() {
            members.shift_remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), part);
        }
    }
}

//! What a store must hold: its log replayed commit by commit against what the workers were told to do.

use super::operation::{Answer, Effect, Expected, Operation};
use crate::{Failure, hold};
use llmspell_state_persistence::{Scope, State};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Write as _};

/// What one run of a worker did in one slot, as far as it told.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) slot: usize,
    /// How a failure calls it.
    pub(crate) name: String,
    pub(crate) operations: Vec<Operation>,
    /// Operations that it may begin before the one before them has ended.
    pub(crate) posts: usize,
    /// Operations that it began.
    pub(crate) begun: usize,
    /// What it was told of those that ended.
    pub(crate) told: Vec<String>,
    /// Operations that the log has shown so far.
    done: usize,
}

impl Run {
    pub(crate) fn new(slot: usize, name: String, operations: Vec<Operation>) -> Self {
        Self { slot, name, operations, posts: 0, begun: 0, told: Vec::new(), done: 0 }
    }
}

/// The newest change of one key.
struct Cell {
    seq: i64,
    version: i64,
    /// Nothing once deleted.
    value: Option<Value>,
}

/// A key that a commit has changed: its scope's path, itself, its new value.
type Found = (String, String, Option<Value>);

/// A row of the log.
struct Row {
    seq: i64,
    version: i64,
    scope: i64,
    key: String,
    prev: i64,
    value: Option<Value>,
}

/// The state that the log has reached, over all runs so far.
#[derive(Default)]
pub(crate) struct Ledger {
    seq: i64,
    pub(crate) version: i64,
    /// By scope's path, then key.
    keys: BTreeMap<String, BTreeMap<String, Cell>>,
    /// By slot: the version up to which its watch was told that it is kept.
    kept: BTreeMap<usize, u64>,
}

/// The longest text that a stored value of these tests has, in bytes.
const LONGEST: usize = 16 << 20;

impl Ledger {
    pub(crate) fn value(&self, scope: &str, key: &str) -> Option<&Value> {
        self.keys.get(scope)?.get(key)?.value.as_ref()
    }

    /// Live keys of a scope.
    pub(crate) fn keys(&self, scope: &str) -> impl Iterator<Item = &str> {
        let cells = self.keys.get(scope).into_iter().flatten();
        cells.filter(|(_, cell)| cell.value.is_some()).map(|(key, _)| key.as_str())
    }

    /// Replays what is new in the log: every commit is the next operation of one run, whole and exact; every operation that
    /// was acknowledged is there, with what its caller was told; nothing is there that nobody asked for.
    pub(crate) fn replay(&mut self, connection: &Connection, runs: &mut [Run]) -> Result<u64, Failure> {
        let paths = paths(connection)?;
        let rows = rows(connection, self.seq)?;
        let before = self.version;
        for commit in rows.chunk_by(|one, next| one.version == next.version) {
            let version = commit[0].version;
            hold!(version == self.version + 1, "after version {} comes {version}", self.version);
            let mut found: Vec<Found> = Vec::new();
            for row in commit {
                hold!(row.seq == self.seq + 1, "after log row {} comes {}", self.seq, row.seq);
                self.seq = row.seq;
                let path = paths.get(&row.scope).ok_or_else(|| Failure::new(format!("no scope {}", row.scope)))?;
                let cell = self.keys.get(path).and_then(|keys| keys.get(&row.key));
                hold!(row.prev == cell.map_or(0, |cell| cell.seq), "log row {} has prev {}", row.seq, row.prev);
                found.push((path.clone(), row.key.clone(), row.value.clone()));
            }
            self.attribute(version, &found, runs)?;
            for (row, (path, key, value)) in commit.iter().zip(found) {
                self.keys.entry(path).or_default().insert(key, Cell { seq: row.seq, version, value });
            }
            self.version = version;
        }
        self.settle(runs)?;
        Ok((self.version - before).unsigned_abs())
    }

    /// Finds whose commit it is.
    fn attribute(&mut self, version: i64, found: &[Found], runs: &mut [Run]) -> Result<(), Failure> {
        let mut others = Vec::new();
        for index in 0..runs.len() {
            // A later run of a slot begins only when the one before it is over, with its first operation, which stores something.
            let slot = runs[index].slot;
            let mut earlier = runs[..index].iter().filter(|earlier| earlier.slot == slot);
            let mut later = runs[index + 1..].iter().filter(|later| later.slot == slot);
            if earlier.any(|earlier| earlier.done < earlier.told.len()) || later.any(|later| later.done > 0) {
                continue;
            }
            let run = &mut runs[index];
            let Some(Expected { effects, answer }) = self.pass(run)? else { continue };
            if !same(&effects, found) {
                others.push((index, effects));
                continue;
            }
            let operation = &run.operations[run.done];
            let answer = match answer {
                Answer::Version => version.to_string(),
                Answer::Text(text) => text,
                Answer::Kept => return Err(Failure::new(format!("{operation} has changed something"))),
            };
            if let (Some(told), number) = (run.told.get(run.done), run.done) {
                hold!(*told == answer, "{}: operation {number} ({operation}) told {told}, not {answer}", run.name);
            }
            run.done += 1;
            return Ok(());
        }
        let mut text = format!("version {version} is nobody's: {}", shown(found));
        for (index, effects) in others {
            write!(text, "\n  {} would have made {}", runs[index].name, shown(&effects))?;
        }
        Err(Failure::new(text))
    }

    /// Passes over operations that change nothing; gives what the next one must do, if one has begun.
    fn pass(&mut self, run: &mut Run) -> Result<Option<Expected>, Failure> {
        while run.done < run.begun {
            let operation = &run.operations[run.done];
            let expected = operation.expected(run.slot, self);
            if !expected.effects.is_empty() {
                return Ok(Some(expected));
            }
            match (run.told.get(run.done), expected.answer) {
                (Some(told), Answer::Text(answer)) => {
                    hold!(*told == answer, "{}: {operation} told {told}, not {answer}", run.name);
                }
                (Some(told), Answer::Kept) => {
                    let (version, kept) = (told.parse()?, self.kept.entry(run.slot).or_default());
                    hold!(version >= *kept, "{}: a watch went back from {kept} to {version}", run.name);
                    *kept = version;
                }
                _ => {}
            }
            run.done += 1;
        }
        Ok(None)
    }

    fn settle(&mut self, runs: &mut [Run]) -> Result<(), Failure> {
        for run in runs {
            self.pass(run)?;
            let (name, told, done) = (&run.name, run.told.len(), run.done);
            hold!(done >= told, "{name}: {told} operations were acknowledged, {done} are stored");
            let most = told + 1 + run.posts;
            hold!(run.begun <= most, "{name}: {} operations begun, {told} acknowledged", run.begun);
        }
        Ok(())
    }

    /// Compares what the store shows with what its log says.
    pub(crate) fn compare(&self, state: &State) -> Result<(), Failure> {
        hold!(
            state.version()? == self.version.unsigned_abs(),
            "the store is at {}, its log at {}",
            state.version()?,
            self.version
        );
        for (slot, kept) in &self.kept {
            let watches = state.scope(&format!("s{slot}"))?.named_watches()?;
            let found = watches.first().map_or(0, |watch| watch.version);
            hold!(found >= *kept, "the watch of slot {slot} is kept at {found}, but it was told {kept}");
            hold!(found <= self.version.unsigned_abs(), "the watch of slot {slot} is beyond the log: {found}");
        }
        for (path, cells) in &self.keys {
            let mut scope: Scope = (**state).clone();
            for name in path.split('/') {
                scope = scope.scope(name)?;
            }
            let live: Vec<&str> = self.keys(path).collect();
            let listed = scope.keys("*")?.collect::<Result<Vec<_>, _>>()?;
            hold!(listed == live, "{path}: listed are {listed:?}, not {live:?}");
            hold!(scope.count("*")? == live.len() as u64, "{path}: {} keys, not {}", scope.count("*")?, live.len());
            for (key, cell) in cells {
                let entry = scope.entry(key)?;
                let found = entry.as_ref().map(|entry| (entry.value(), entry.version()));
                let wanted = cell.value.clone().map(|value| (value, cell.version.unsigned_abs()));
                hold!(found == wanted, "{path} {key}: {}, not {}", brief(&found), brief(&wanted));
            }
        }
        Ok(())
    }
}

/// The whole log and every entry once more, row by row, as they must be after `ledger`.
pub(crate) fn compare_entries(connection: &Connection, ledger: &Ledger) -> Result<(), Failure> {
    let paths = paths(connection)?;
    let mut statement = connection.prepare("SELECT scope_id, key, seq, live FROM entry")?;
    let mut found = statement.query([])?;
    let mut entries = 0;
    while let Some(row) = found.next()? {
        let (scope, key): (i64, String) = (row.get(0)?, row.get(1)?);
        let (seq, live): (i64, bool) = (row.get(2)?, row.get(3)?);
        let path = paths.get(&scope).map_or("nowhere", String::as_str);
        let cell = ledger.keys.get(path).and_then(|keys| keys.get(&key));
        let wanted = cell.map(|cell| (cell.seq, cell.value.is_some()));
        hold!(wanted == Some((seq, live)), "{path} {key}: the entry says {:?}, not {wanted:?}", (seq, live));
        entries += 1;
    }
    let wanted: usize = ledger.keys.values().map(BTreeMap::len).sum();
    hold!(entries == wanted, "{entries} entries, not {wanted}");
    Ok(())
}

/// Scopes by their number.
fn paths(connection: &Connection) -> Result<HashMap<i64, String>, Failure> {
    let mut statement = connection.prepare("SELECT id, parent_id, name FROM scope ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut paths = HashMap::new();
    while let Some(row) = rows.next()? {
        let (id, parent, name): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let path = match paths.get(&parent) {
            Some(above) if parent != 1 => format!("{above}/{name}"),
            _ => name,
        };
        paths.insert(id, path);
    }
    Ok(paths)
}

fn rows(connection: &Connection, after: i64) -> Result<Vec<Row>, Failure> {
    let mut statement = connection.prepare(
        "SELECT seq, version, scope_id, key, operation, prev, flags, value FROM log WHERE seq > ?1 ORDER BY seq",
    )?;
    let mut found = statement.query([after])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        let value = match (row.get::<_, i64>(4)?, row.get::<_, i64>(6)?, row.get_ref(7)?) {
            (0, 0, ValueRef::Null) => None,
            (1, 0, ValueRef::Text(text)) => Some(serde_json::from_slice(text)?),
            (1, flags @ 1..4, ValueRef::Blob(bytes)) => Some(serde_json::from_slice(&text(connection, flags, bytes)?)?),
            (operation, flags, _) => {
                return Err(Failure::new(format!("log row {seq}: operation {operation}, flags {flags}")));
            }
        };
        rows.push(Row { seq, version: row.get(1)?, scope: row.get(2)?, key: row.get(3)?, prev: row.get(5)?, value });
    }
    Ok(rows)
}

/// The text of a row whose value is compressed (1), or a difference (2) from an earlier row.
fn text(connection: &Connection, flags: i64, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    /// Number and check of the earlier row, and three numbers: bytes spent, shared at the beginning, shared at the end.
    const HEADER: usize = 28;
    let inflate =
        |bytes: &[u8]| if flags & 1 == 0 { Ok(bytes.to_vec()) } else { zstd::bulk::decompress(bytes, LONGEST) };
    if flags & 2 == 0 {
        return Ok(inflate(bytes)?);
    }
    hold!(bytes.len() >= HEADER, "a difference of {} bytes", bytes.len());
    let (header, middle) = bytes.split_at(HEADER);
    let number = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let earlier = "SELECT flags, CAST(value AS BLOB) FROM log WHERE seq = ?1";
    let earlier = connection.query_row(earlier, [i64::try_from(number(0))?], |row| Ok((row.get(0)?, row.get(1)?)));
    let (flags, earlier): (i64, Vec<u8>) = earlier?;
    hold!(flags < 2, "a difference from a difference");
    let earlier = text(connection, flags, &earlier)?;
    let (start, end) = (number(20), number(24));
    hold!(start + end <= earlier.len(), "{start} and {end} bytes of {}", earlier.len());
    Ok([&earlier[..start], &inflate(middle)?, &earlier[earlier.len() - end..]].concat())
}

fn same(wanted: &[Effect], found: &[Found]) -> bool {
    let is_found = |(path, key, wanted): &Effect| {
        let mut there = found.iter().filter(|there| there.0 == *path && there.1 == *key);
        there.any(|(_, _, value)| wanted.is(value.as_ref()))
    };
    wanted.len() == found.len() && wanted.iter().all(is_found)
}

fn shown(effects: &[(String, String, impl Debug)]) -> String {
    let shown: Vec<String> =
        effects.iter().map(|(path, key, value)| format!("{path} {key} = {}", brief(value))).collect();
    shown.join(", ")
}

fn brief(value: &impl Debug) -> String {
    format!("{value:?}").chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::storm::raw;

    #[test]
    fn a_commit_is_not_taken_for_what_a_killed_run_before_had_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let state = State::open(&path).unwrap();
        let set = |key: &str, tag: &str| Operation::Set { key: key.into(), tag: tag.into(), size: 0 };
        let delete = || Operation::Delete { key: "a".into() };
        // The first run was killed in its deletion, before that was stored; the second one deletes the same key.
        let mut killed = Run::new(0, "killed".into(), vec![set("a", "1"), delete()]);
        let mut next = Run::new(0, "next".into(), vec![set("b", "2"), delete()]);
        let own = state.scope("s0").unwrap();
        for (run, told) in [(&mut killed, 1), (&mut next, 2)] {
            for operation in &run.operations[..told] {
                run.told.push(match operation {
                    Operation::Set { key, tag, .. } => {
                        own.set(key, serde_json::json!({"tag": tag, "pad": ""})).unwrap().to_string()
                    }
                    _ => u8::from(own.delete("a").unwrap()).to_string(),
                });
            }
            run.begun = 2;
        }
        let mut ledger = Ledger::default();
        let commits = ledger.replay(&raw(&path).unwrap(), &mut [killed, next]).unwrap();
        assert_eq!(commits, 3);
    }
}

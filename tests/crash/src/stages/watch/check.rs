//! What watchers were told against what the log says.

use super::keeper::{Orders, Start, Stream};
use crate::{Failure, hold};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::path::Path;

struct Row {
    version: u64,
    scope: String,
    key: String,
    /// Nothing once deleted.
    value: Option<String>,
    actor: Option<String>,
}

/// Every change of a store, in the order of commits.
pub(super) struct Log(Vec<Row>);

/// A change as a watch of some keys must tell it.
struct Told {
    version: u64,
    text: String,
    ends_commit: bool,
}

impl Log {
    /// Reads the log of a store that nobody has open.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut rows = database.prepare(
            "SELECT log.version, scope.name, log.key, log.value, log.actor FROM log \
             JOIN scope ON scope.id = log.scope_id ORDER BY log.seq",
        )?;
        let rows = rows.query_map([], |row| {
            let value = match row.get_ref(3)? {
                ValueRef::Null => None,
                value => Some(String::from_utf8_lossy(value.as_bytes()?).into_owned()),
            };
            let version = row.get::<_, i64>(0)?.cast_unsigned();
            Ok(Row { version, scope: row.get(1)?, key: row.get(2)?, value, actor: row.get(4)? })
        })?;
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    /// The version of the newest commit.
    pub(super) fn version(&self) -> u64 {
        self.0.last().map_or(0, |row| row.version)
    }

    /// What a watch must tell of the commits after a version.
    fn expected(&self, orders: &Orders, after: u64) -> Vec<Told> {
        let prefix = orders.pattern.trim_end_matches('*');
        let mut values: HashMap<&str, &str> = HashMap::new();
        let mut all: Vec<Told> = Vec::new();
        for row in self.0.iter().filter(|row| row.scope == orders.scope && row.key.starts_with(prefix)) {
            let old = match &row.value {
                Some(value) => values.insert(&row.key, value),
                None => values.remove(&*row.key),
            };
            if row.version <= after {
                continue;
            }
            if let Some(last) = all.last_mut() {
                last.ends_commit = last.version != row.version;
            }
            let operation = if row.value.is_some() { "set" } else { "delete" };
            let text = format!(
                "{} {operation} {} {} {}",
                row.key,
                row.value.as_deref().unwrap_or("-"),
                old.unwrap_or("-"),
                row.actor.as_deref().unwrap_or("-")
            );
            all.push(Told { version: row.version, text, ends_commit: true });
        }
        all
    }

    /// Compares what a watcher was told; answers how many changes that were.
    pub(super) fn compare(&self, orders: &Orders, stream: &Stream, before: u64) -> Result<u64, Failure> {
        let after = if orders.start == Start::Now { before } else { 0 };
        let expected = self.expected(orders, after);
        // Where it has come to, and up to where the store was asked to keep that.
        let (mut place, mut kept, mut told) = (0, 0, 0);
        for (life, text) in stream.lives.iter().enumerate() {
            let mut at = None;
            for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
                match kind {
                    "c" => {
                        let found = at.map_or_else(|| start(&expected, rest, place), Ok)?;
                        hold!(found >= kept, "life {life} tells again what was saved: {rest}");
                        let wanted = expected.get(found).map(show).unwrap_or_default();
                        hold!(rest == wanted, "life {life} tells as change {found}: {rest}, not: {wanted}");
                        at = Some(found + 1);
                        place = place.max(found + 1);
                        told += 1;
                    }
                    "s" => {
                        let version: u64 = rest.parse()?;
                        let saved = expected.partition_point(|told| told.version <= version);
                        let taken = at.unwrap_or(place);
                        hold!(saved <= taken, "life {life} saved version {version}, having taken {taken} changes");
                        let whole = taken == 0 || expected[taken - 1].ends_commit;
                        hold!(!whole || saved == taken, "life {life} saved {saved} of {taken} changes");
                        kept = kept.max(saved);
                    }
                    _ => {}
                }
            }
        }
        hold!(place == expected.len(), "it told {place} changes of {}", expected.len());
        let once = orders.start == Start::Named || told == place as u64;
        hold!(once, "it told {told} changes, which are {place}");
        Ok(told)
    }
}

fn show(told: &Told) -> String {
    format!("{} {} {}", told.version, told.text, u8::from(told.ends_commit))
}

/// Where a life goes on: at a commit that was told before, or the next one.
fn start(expected: &[Told], line: &str, place: usize) -> Result<usize, Failure> {
    let version: u64 = line.split(' ').next().unwrap_or_default().parse()?;
    let found = expected.partition_point(|told| told.version < version);
    let next = expected.get(place).map(show).unwrap_or_default();
    hold!(found <= place, "it goes on with: {line}, without: {next}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        let row = |version, key: &str, value: i64| Row {
            version,
            scope: String::new(),
            key: key.into(),
            value: Some(value.to_string()),
            actor: None,
        };
        Log(vec![row(1, "a", 1), row(2, "a", 2), row(2, "b", 3), row(3, "a", 4)])
    }

    fn orders(start: Start) -> Orders {
        Orders {
            language: "rust",
            scope: "",
            pattern: "*",
            start,
            restarts: 0,
            save_every: 0,
            extra: Vec::new(),
            late: false,
        }
    }

    const ALL: [&str; 4] = ["c 1 a set 1 - - 1", "c 2 a set 2 1 - 0", "c 2 b set 3 - - 1", "c 3 a set 4 2 - 1"];

    fn compare(start: Start, lives: &[&[&str]]) -> Result<u64, String> {
        let lives = lives.iter().map(|lines| lines.iter().flat_map(|line| [*line, "\n"]).collect()).collect();
        log().compare(&orders(start), &Stream { lives, restarts: 0 }, 0).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_stream_that_is_the_log_holds_and_no_other() {
        let [one, two, three, four] = ALL;
        assert_eq!(compare(Start::Since, &[&ALL]), Ok(4));
        for wrong in [
            &[one, two, three][..],
            &[one, three, four],
            &[one, three, two, four],
            &[one, one, two, three, four],
            &[one, "c 2 a set 2 1 - 1", three, four],
            &[one, two, three, "c 3 a set 4 3 - 1"],
            &[one, two, three, "c 3 a set 4 2 w1 1"],
        ] {
            assert!(compare(Start::Since, &[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_named_stream_may_tell_commits_again_but_not_what_was_saved_and_has_no_gaps() {
        let [one, two, three, four] = ALL;
        let named = |lives: &[&[&str]]| compare(Start::Named, lives);
        assert_eq!(named(&[&[one, two], &[two, three, four]]), Ok(5));
        assert_eq!(named(&[&[one, two, "s 1"], &ALL[1..]]), Ok(5));
        assert_eq!(named(&[&[], &ALL]), Ok(4));
        assert!(named(&[&[one, "s 1"], &ALL]).unwrap_err().contains("again"));
        assert!(named(&[&[one], &[four]]).unwrap_err().contains("without"));
        assert!(named(&[&[one, two], &[three, four]]).is_err());
        assert!(named(&[&[one, "s 2"], &[four]]).unwrap_err().contains("saved version 2"));
    }
}

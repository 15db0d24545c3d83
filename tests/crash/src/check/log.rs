//! The order of commits, as a store has kept it.

use crate::{Failure, hold};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;

/// Every commit of a store; the first has version 1.
#[derive(Debug, Default)]
pub struct Log {
    /// What each commit changed: keys (with their scope's name and `/` in front, if it has one) and values; nothing is a
    /// deletion.
    pub commits: Vec<Vec<(String, Option<i64>)>>,
}

/// Keys with this beginning only take up room.
pub const BULK: &str = "bulk";

impl Log {
    /// Reads the log of a store that nobody has open.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut rows = database.prepare(
            "SELECT log.version, scope.name, log.key, log.value FROM log JOIN scope ON scope.id = log.scope_id \
             ORDER BY log.seq",
        )?;
        let mut rows = rows.query([])?;
        let mut commits: Vec<Vec<(String, Option<i64>)>> = Vec::new();
        while let Some(row) = rows.next()? {
            let version = usize::try_from(row.get::<_, i64>(0)?)?;
            let (scope, key): (String, String) = (row.get(1)?, row.get(2)?);
            if version == commits.len() + 1 {
                commits.push(Vec::new());
            }
            hold!(version == commits.len(), "version {version} follows version {} in the log", commits.len());
            let Some(commit) = commits.last_mut() else { return Err(Failure::new("a log without a first version")) };
            if key.starts_with(BULK) {
                continue;
            }
            let text = match row.get_ref(3)? {
                rusqlite::types::ValueRef::Null => None,
                value => Some(value.as_bytes()?),
            };
            let value = match text.filter(|text| !text.is_empty()).map(std::str::from_utf8) {
                None => None,
                // A value, or an array of it and what only takes up room.
                Some(text) => {
                    let text = text?;
                    let number = text.trim_start_matches('[').split_once(',').map_or(text, |(number, _)| number);
                    Some(number.parse()?)
                }
            };
            let key = if scope.is_empty() { key } else { format!("{scope}/{key}") };
            // Of several changes of a key in one commit, only the last was ever seen.
            commit.retain(|(changed, _)| *changed != key);
            commit.push((key, value));
        }
        Ok(Self { commits })
    }

    /// The version of the newest commit.
    pub fn newest(&self) -> usize {
        self.commits.len()
    }

    /// What a version changed.
    pub fn changes(&self, version: usize) -> &[(String, Option<i64>)] {
        &self.commits[version - 1]
    }

    /// The changes of each key.
    pub fn by_key(&self) -> BTreeMap<String, Lives> {
        let mut keys: BTreeMap<String, Lives> = BTreeMap::new();
        for (before, commit) in self.commits.iter().enumerate() {
            for (key, value) in commit {
                let lives = keys.entry(key.clone()).or_default();
                lives.versions.push(before + 1);
                lives.values.push(*value);
            }
        }
        keys
    }
}

/// What one key was, in the order of commits.
#[derive(Debug, Default)]
pub struct Lives {
    /// The versions that changed it.
    pub versions: Vec<usize>,
    /// What it was from then on; nothing while it was not there.
    pub values: Vec<Option<i64>>,
}

impl Lives {
    /// The place of the newest change up to a version.
    pub fn place(&self, version: usize) -> Option<usize> {
        self.versions.partition_point(|changed| *changed <= version).checked_sub(1)
    }

    /// What the key was after a version.
    pub fn at(&self, version: usize) -> Option<i64> {
        self.place(version).and_then(|place| self.values[place])
    }
}

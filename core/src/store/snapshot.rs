//! Reading the log: a key's entry now or at a version of the past, and keys in order.

use super::codec;
use crate::engine::{LogRow, Newest, Operation, Range, Reads, ScopeId};
use crate::error::shorten;
use crate::key::Pattern;
use crate::{Entry, Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Every key that can match a pattern, in byte order.
pub(crate) fn range(scope: ScopeId, pattern: &Pattern) -> Range {
    Range { scope, from: pattern.prefix().to_owned(), to: pattern.upper_bound(), reverse: false }
}

/// The entry that a log row holds.
pub(crate) fn decode(reads: &dyn Reads, row: &LogRow<'_>, created_ms: Option<i64>, max_bytes: usize) -> Result<Entry> {
    let (document, base) = codec::unpack(row, &|seq, look| reads.base(seq, look), max_bytes)?;
    let created_ms = created_ms.unwrap_or(row.time_ms);
    Ok(Entry::new(document, row.seq, row.version, created_ms, row.time_ms, row.expires_ms).with_base(base))
}

/// A row that must be the one of `key`.
pub(crate) fn check_key(row: &LogRow<'_>, scope: ScopeId, key: &str) -> Result<()> {
    if row.key != key || row.scope != scope {
        return Err(Error::corrupt(format!(
            "the entry of key {} points at log row {}, which is of another key; restore from a backup",
            shorten(key),
            row.seq
        )));
    }
    Ok(())
}

/// The entry of a key that is live now, in one question.
pub(crate) fn current(reads: &dyn Reads, scope: ScopeId, key: &str, max_bytes: usize) -> Result<Option<Entry>> {
    let mut found = None;
    let newest = reads.current(scope, key, &mut |row| {
        check_key(row, scope, key)?;
        match row.operation {
            Operation::Set => found = Some(decode(reads, row, None, max_bytes)?),
            Operation::Delete => codec::verify(row)?,
        }
        Ok(())
    })?;
    match (newest, found) {
        (None, _) => Ok(None),
        (Some(newest), found) if newest.live != found.is_some() => Err(disagreement(key, newest)),
        (Some(newest), found) => Ok(found.map(|entry| entry.with_created(newest.created_ms))),
    }
}

/// The entry of a key at its newest, live change.
pub(crate) fn entry(reads: &dyn Reads, newest: Newest, scope: ScopeId, key: &str, max_bytes: usize) -> Result<Entry> {
    let mut found = None;
    reads.row(newest.seq, &mut |row| {
        check_key(row, scope, key)?;
        found = Some(decode(reads, row, newest.created_ms, max_bytes)?);
        Ok(())
    })?;
    found.ok_or_else(|| disagreement(key, newest))
}

/// Makes sure that an entry which says that its key was deleted has the row of that deletion.
pub(crate) fn check_tombstone(reads: &dyn Reads, newest: Newest, key: &str) -> Result<()> {
    let mut deleted = false;
    reads.row(newest.seq, &mut |row| {
        deleted = row.operation == Operation::Delete && row.key == key;
        codec::verify(row)
    })?;
    if deleted { Ok(()) } else { Err(disagreement(key, newest)) }
}

fn disagreement(key: &str, newest: Newest) -> Error {
    Error::corrupt(format!(
        "the entry of key {} and log row {} disagree about whether it is there; restore from a backup",
        shorten(key),
        newest.seq
    ))
}

/// The entry of a key as it was when `at` was the newest row of the log.
pub(crate) fn entry_at(
    reads: &dyn Reads,
    newest: Newest,
    scope: ScopeId,
    key: &str,
    at: i64,
    max_bytes: usize,
) -> Result<Option<Entry>> {
    if newest.seq <= at {
        if newest.live {
            return entry(reads, newest, scope, key, max_bytes).map(Some);
        }
        check_tombstone(reads, newest, key)?;
        return Ok(None);
    }
    // Going back along the key's rows. While no deletion lies between, the key was made when the newest entry says.
    let (mut seq, mut same_life) = (newest.seq, newest.live);
    loop {
        let (mut prev, mut found) = (0, None);
        let there = reads.row(seq, &mut |row| {
            check_key(row, scope, key)?;
            prev = row.prev;
            if row.operation == Operation::Set && row.seq <= at {
                found = Some(decode(reads, row, newest.created_ms, max_bytes)?);
                return Ok(());
            }
            same_life &= row.operation == Operation::Set;
            codec::verify(row)
        })?;
        if !there {
            // Nothing trims the log, so this is no reason to start again from the present.
            return Err(Error::corrupt(format!(
                "log row {seq}, an older value of key {}, is missing; restore from a backup",
                shorten(key)
            )));
        }
        if seq <= at || prev == 0 {
            return match found {
                Some(entry) if !same_life => Ok(Some(entry.with_created(Some(birth(reads, seq)?)))),
                found => Ok(found),
            };
        }
        seq = prev;
    }
}

/// When the key of a row came into being: the time of the oldest row before which there is none, or a deletion.
pub(crate) fn birth(reads: &dyn Reads, mut seq: i64) -> Result<i64> {
    let mut born_ms = 0;
    loop {
        let mut prev = 0;
        reads.row(seq, &mut |row| {
            if row.operation == Operation::Set {
                born_ms = row.time_ms;
                prev = row.prev;
            }
            Ok(())
        })?;
        if prev == 0 {
            return Ok(born_ms);
        }
        seq = prev;
    }
}

/// A page of keys, each with what was asked for.
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<(Box<str>, T)>,
    /// Nothing comes after it.
    pub(crate) last: bool,
}

/// How far a page goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The snapshot: the newest row of the log that counts.
    pub(crate) at: i64,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) max_bytes: usize,
}

/// The keys of a range that match, as of the snapshot.
pub(crate) fn keys(reads: &dyn Reads, range: &Range, pattern: &Pattern, extent: Extent) -> Result<Page<()>> {
    page(reads, range, pattern, extent, &mut |key, newest| {
        let there = if newest.seq <= extent.at {
            newest.live
        } else {
            entry_at(reads, newest, range.scope, key, extent.at, extent.max_bytes)?.is_some()
        };
        Ok(there.then_some(((), key.len())))
    })
}

/// The keys of a range that match, with their entries, as of the snapshot. `cached` may know an entry by its row already.
pub(crate) fn items(
    reads: &dyn Reads,
    range: &Range,
    pattern: &Pattern,
    extent: Extent,
    cached: &dyn Fn(&str, Newest) -> Option<Arc<Entry>>,
) -> Result<Page<Arc<Entry>>> {
    page(reads, range, pattern, extent, &mut |key, newest| {
        let entry = match cached(key, newest).filter(|_| newest.live && newest.seq <= extent.at) {
            Some(entry) => Some(entry),
            None => entry_at(reads, newest, range.scope, key, extent.at, extent.max_bytes)?.map(Arc::new),
        };
        Ok(entry.map(|entry| {
            let bytes = entry.footprint();
            (entry, bytes)
        }))
    })
}

/// Answers what a key contributes to a page, with its bytes.
type Look<'f, T> = &'f mut dyn FnMut(&str, Newest) -> Result<Option<(T, usize)>>;

/// Walks a range until the page is full.
fn page<T>(reads: &dyn Reads, range: &Range, pattern: &Pattern, extent: Extent, look: Look<'_, T>) -> Result<Page<T>> {
    let (mut rows, mut bytes, mut last) = (Vec::new(), 0, true);
    reads.entries(range, &mut |key, newest| {
        if rows.len() >= extent.rows || bytes >= extent.bytes {
            last = false;
            return Ok(ControlFlow::Break(()));
        }
        // A tombstone that the snapshot knows is nothing, whatever its name.
        if (newest.live || newest.seq > extent.at)
            && pattern.matches(key)
            && let Some((row, size)) = look(key, newest)?
        {
            rows.push((key.into(), row));
            bytes += size;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Page { rows, last })
}

//! Reading the log: a key's entry now or at a version of the past, and keys in order.

use super::codec;
use crate::engine::{LogRow, Newest, Range, Reads, ScopeId, is_over};
use crate::error::shorten;
use crate::key::Pattern;
use crate::{Entry, Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A moment to read at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsOf {
    /// The newest row of the log that counts.
    pub(crate) seq: i64,
    /// Keys whose time has run out by then are gone.
    pub(crate) clock_ms: i64,
}

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

/// Whether a row can be one of a scope: it is its own, or of what the scope was forked from, from before that.
pub(crate) fn belongs(reads: &dyn Reads, scope: ScopeId, found: ScopeId, seq: i64) -> Result<bool> {
    let mut scope = scope;
    while scope != found {
        match reads.forked(scope)?.filter(|fork| seq <= fork.at) {
            Some(fork) => scope = fork.scope,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// The error for a row of a key's past that is not in the log: it was trimmed, or it is lost.
pub(crate) fn missing(reads: &dyn Reads, scope: ScopeId, key: &str, seq: i64) -> Error {
    match is_trimmed(reads, scope, seq) {
        Ok(true) => Error::new(
            ErrorKind::NotFound,
            format!("what key {} was then is not kept any more; see its retention policy", shorten(key)),
        ),
        Ok(false) => Error::corrupt(format!(
            "log row {seq}, an older value of key {}, is missing; restore from a backup",
            shorten(key)
        )),
        Err(error) => error,
    }
}

/// Whether rows up to that one have been trimmed.
pub(crate) fn is_trimmed(reads: &dyn Reads, scope: ScopeId, seq: i64) -> Result<bool> {
    let mut next = Some(scope);
    while let Some(scope) = next {
        if reads.trimmed(scope)?.seq >= seq {
            return Ok(true);
        }
        next = reads.forked(scope)?.map(|fork| fork.scope);
    }
    Ok(false)
}

/// Refuses a moment of which it is not known any more what keys there were.
pub(crate) fn check_reach(reads: &dyn Reads, scope: ScopeId, at: AsOf) -> Result<()> {
    if reads.trimmed(scope)?.gone > at.seq {
        return Err(Error::new(
            ErrorKind::NotFound,
            "what was deleted since that moment is not kept any more; see the scope's retention policy",
        ));
    }
    Ok(())
}

/// A row that must be the one of `key`.
pub(crate) fn check_key(reads: &dyn Reads, row: &LogRow<'_>, scope: ScopeId, key: &str) -> Result<()> {
    if row.key != key || row.scope != scope && !belongs(reads, scope, row.scope, row.seq)? {
        return Err(Error::corrupt(format!(
            "the entry of key {} points at log row {}, which is of another key; restore from a backup",
            shorten(key),
            row.seq
        )));
    }
    Ok(())
}

/// The entry of a key that has a value, in one question; its time may have run out.
pub(crate) fn current(reads: &dyn Reads, scope: ScopeId, key: &str, max_bytes: usize) -> Result<Option<Entry>> {
    let mut found = None;
    let newest = reads.current(scope, key, &mut |row| {
        check_key(reads, row, scope, key)?;
        if row.operation.has_value() {
            found = Some(decode(reads, row, None, max_bytes)?);
            return Ok(());
        }
        codec::verify(row)
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
        check_key(reads, row, scope, key)?;
        found = Some(decode(reads, row, newest.created_ms, max_bytes)?);
        Ok(())
    })?;
    found.ok_or_else(|| disagreement(key, newest))
}

/// Makes sure that an entry which says that its key is gone has the row that took it away.
pub(crate) fn check_tombstone(reads: &dyn Reads, newest: Newest, key: &str) -> Result<()> {
    let mut deleted = false;
    reads.row(newest.seq, &mut |row| {
        deleted = !row.operation.has_value() && row.key == key;
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

/// The entry of a key as it was at a moment.
pub(crate) fn entry_at(
    reads: &dyn Reads,
    newest: Newest,
    scope: ScopeId,
    key: &str,
    at: AsOf,
    max_bytes: usize,
) -> Result<Option<Entry>> {
    let alive = |entry: Entry| Some(entry).filter(|entry| !is_over(entry.expires_ms(), at.clock_ms));
    if newest.seq <= at.seq {
        if newest.live {
            return entry(reads, newest, scope, key, max_bytes).map(alive);
        }
        check_tombstone(reads, newest, key)?;
        return Ok(None);
    }
    // Going back along the key's rows. While no deletion lies between, the key was made when the newest entry says.
    let (mut seq, mut same_life) = (newest.seq, newest.live);
    loop {
        let (mut prev, mut found) = (0, None);
        let there = reads.row(seq, &mut |row| {
            check_key(reads, row, scope, key)?;
            prev = row.prev;
            if row.operation.has_value() && row.seq <= at.seq {
                found = Some(decode(reads, row, newest.created_ms, max_bytes)?);
                return Ok(());
            }
            same_life &= row.operation.has_value();
            codec::verify(row)
        })?;
        if !there {
            return Err(missing(reads, scope, key, seq));
        }
        if seq > at.seq && prev == 0 {
            // It may have had a life before of which nothing is left.
            return check_reach(reads, scope, at).map(|()| None);
        }
        if seq <= at.seq {
            return match found.and_then(alive) {
                Some(entry) if !same_life => {
                    let born_ms = birth(reads, seq)?;
                    let own_ms = entry.updated_ms();
                    Ok(Some(entry.with_created(born_ms.or(Some(own_ms)))))
                }
                found => Ok(found),
            };
        }
        seq = prev;
    }
}

/// When the key of a row came into being: the time of the oldest row before which there is none, or one that took the key away.
/// Nothing where that is not in the log any more.
pub(crate) fn birth(reads: &dyn Reads, mut seq: i64) -> Result<Option<i64>> {
    let mut born_ms = 0;
    loop {
        let mut prev = 0;
        let is_there = reads.row(seq, &mut |row| {
            if row.operation.has_value() {
                born_ms = row.time_ms;
                prev = row.prev;
            }
            Ok(())
        })?;
        if !is_there || prev == 0 {
            return Ok(is_there.then_some(born_ms));
        }
        seq = prev;
    }
}

/// A page of keys, each with what was asked for.
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<(Box<str>, T)>,
    /// The earliest time at which one of them expires.
    pub(crate) expires_ms: Option<i64>,
    /// Nothing comes after it.
    pub(crate) last: bool,
}

/// The earlier of two times, where nothing is never.
pub(crate) fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How far a page goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) at: AsOf,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) max_bytes: usize,
}

/// The keys of a range that match, as of the snapshot.
pub(crate) fn keys(reads: &dyn Reads, range: &Range, pattern: &Pattern, extent: Extent) -> Result<Page<()>> {
    page(reads, range, pattern, extent, &mut |key, newest| {
        if newest.seq <= extent.at.seq {
            return Ok(newest.is_alive(extent.at.clock_ms).then_some(((), key.len(), newest.expires_ms)));
        }
        let entry = entry_at(reads, newest, range.scope, key, extent.at, extent.max_bytes)?;
        Ok(entry.map(|entry| ((), key.len(), entry.expires_ms())))
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
        let is_present = newest.live && newest.seq <= extent.at.seq;
        let entry = match cached(key, newest).filter(|_| is_present) {
            Some(entry) => Some(entry).filter(|entry| !is_over(entry.expires_ms(), extent.at.clock_ms)),
            None => entry_at(reads, newest, range.scope, key, extent.at, extent.max_bytes)?.map(Arc::new),
        };
        Ok(entry.map(|entry| {
            let (bytes, expires_ms) = (entry.footprint(), entry.expires_ms());
            (entry, bytes, expires_ms)
        }))
    })
}

/// Answers what a key contributes to a page, with its bytes and when it expires.
type Look<'f, T> = &'f mut dyn FnMut(&str, Newest) -> Result<Option<(T, usize, Option<i64>)>>;

/// Walks a range until the page is full.
fn page<T>(reads: &dyn Reads, range: &Range, pattern: &Pattern, extent: Extent, look: Look<'_, T>) -> Result<Page<T>> {
    check_reach(reads, range.scope, extent.at)?;
    let (mut rows, mut bytes, mut last, mut soonest) = (Vec::new(), 0, true, None);
    reads.entries(range, &mut |key, newest| {
        if rows.len() >= extent.rows || bytes >= extent.bytes {
            last = false;
            return Ok(ControlFlow::Break(()));
        }
        // A tombstone that the snapshot knows is nothing, whatever its name.
        if (newest.live || newest.seq > extent.at.seq)
            && pattern.matches(key)
            && let Some((row, size, expires_ms)) = look(key, newest)?
        {
            soonest = earlier(soonest, expires_ms);
            rows.push((key.into(), row));
            bytes += size;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Page { rows, expires_ms: soonest, last })
}

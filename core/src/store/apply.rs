//! One request inside the write transaction: is what it relies on still true, and if so, its rows.

use super::cache::Cache;
use super::codec::{self, Packed};
use super::delta::Base;
use super::past::{self, Deeds, Value};
use super::request::{Action, Applied, Change, Life, Reliance, Request, Response};
use super::settings::Settings;
use super::snapshot::AsOf;
use super::{MAX_STORED_BYTES, snapshot};
use crate::engine::{Head, LogRow, Newest, Operation, Reads, ScopeId, Writes, is_over};
use crate::error::shorten;
use crate::harness::sabotaged;
use crate::key::Pattern;
use crate::scope::Budget;
use crate::{Document, Entry, Error, ErrorKind, Origin, Result, limits};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Settings that decide how values are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) compress: bool,
    pub(crate) max_bytes: usize,
}

/// A key as it is after a commit.
pub(crate) type Published = (ScopeId, Box<str>, Option<Arc<Entry>>);

/// The part of a commit group that one request makes.
pub(crate) struct Apply<'w> {
    writes: &'w mut dyn Writes,
    rules: Rules,
    settings: &'w Settings,
    times: Times,
    cache: &'w Cache,
    version: i64,
    published: &'w mut Vec<Published>,
    origin: Option<Arc<Origin>>,
}

/// What a key was before a write.
#[derive(Clone, Copy)]
enum Before {
    /// As the database says.
    Read(Option<Newest>),
    /// As the cache says, of a key that is there. The write tells whether it is so.
    Cached(Newest),
}

impl Before {
    const fn newest(self) -> Option<Newest> {
        match self {
            Self::Read(newest) => newest,
            Self::Cached(newest) => Some(newest),
        }
    }
}

/// When a group is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// What its rows say.
    pub(crate) now_ms: i64,
    /// What keys expire by.
    pub(crate) clock_ms: i64,
}

impl<'w> Apply<'w> {
    pub(crate) fn new(
        writes: &'w mut dyn Writes,
        rules: Rules,
        settings: &'w Settings,
        times: Times,
        cache: &'w Cache,
        published: &'w mut Vec<Published>,
    ) -> Self {
        let version = writes.head().version + 1;
        Self { writes, rules, settings, times, cache, version, published, origin: None }
    }

    /// Applies a request. When it fails, the rows it has appended must be undone; a request that is refused has appended none.
    pub(crate) fn request(mut self, request: Request) -> Result<Response> {
        if let Some(reliance) = &request.relies_on {
            self.check_reliance(reliance)?;
        }
        self.origin = request.origin;
        let mut applied = Vec::with_capacity(request.changes.len());
        for change in request.changes {
            applied.push(match change {
                Change::One { scope, key, action, if_version } => self.one(scope, key, action, if_version)?,
                Change::Clear { scope, pattern } => Applied::Cleared(self.clear(scope, &pattern)?),
                Change::Revert { scope, pattern, to } => Applied::Reverted(self.revert(scope, &pattern, to)?),
                Change::Undo(deeds) => self.undo(*deeds)?,
                Change::Sweep => Applied::Swept(self.sweep()?),
                Change::Trim(trim) => Applied::Trimmed(trim.apply(self.writes)?),
            });
        }
        Ok(Response { version: self.writes.head().version, applied })
    }

    fn reads(&self) -> &dyn Reads {
        self.writes.reads()
    }

    /// Everything the transaction read must be as it was: then it could have run at this very moment.
    fn check_reliance(&self, reliance: &Reliance) -> Result<()> {
        if sabotaged("no-reliance") {
            return Ok(());
        }
        let Head { seq, version } = reliance.snapshot;
        if is_over(reliance.expires_ms, self.times.clock_ms) && !sabotaged("commit-expired") {
            return Err(Error::new(
                ErrorKind::Conflict,
                "a key that was read has expired since; run the transaction again",
            ));
        }
        if self.writes.head().seq == seq {
            return Ok(());
        }
        let changed = |key: &str| {
            let message = format!(
                "key {} was changed by another writer after version {version}; run the transaction again",
                shorten(key)
            );
            Err(Error::new(ErrorKind::Conflict, message))
        };
        let scopes: BTreeSet<ScopeId> = reliance
            .keys
            .iter()
            .map(|(scope, _)| *scope)
            .chain(reliance.ranges.iter().map(|(scope, _)| *scope))
            .collect();
        for scope in scopes {
            // It may be one that was read.
            if self.reads().trimmed(scope)?.gone > seq {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "a key that was deleted after version {version} is not known any more; run the transaction again"
                    ),
                ));
            }
        }
        for (scope, key) in &reliance.keys {
            if self.reads().newest(*scope, key)?.is_some_and(|newest| newest.seq > seq) {
                return changed(key);
            }
        }
        if reliance.ranges.is_empty() || sabotaged("no-range-reliance") {
            return Ok(());
        }
        let mut found = None;
        self.reads().tail(seq, &mut |scope, key| {
            if reliance.ranges.iter().any(|(listed, pattern)| *listed == scope && pattern.matches(key)) {
                found = Some(key.to_owned());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        found.map_or(Ok(()), |key| changed(&key))
    }

    fn one(&mut self, scope: ScopeId, key: Box<str>, action: Action, if_version: Option<u64>) -> Result<Applied> {
        if let Action::Set { .. } = action
            && if_version.is_none()
            && let Some(cached) = self.cached(scope, &key)
            && let Action::Set { document, packed, life } = action
        {
            return self.write(scope, key, Before::Cached(cached), document, packed, life).map(Applied::Written);
        }
        let newest = self.look(scope, &key)?;
        let live = newest.filter(|newest| newest.is_alive(self.times.clock_ms));
        if let Some(expected) = if_version {
            self.check_version(&key, live, expected)?;
        }
        match action {
            Action::Set { document, packed, life } => {
                self.write(scope, key, Before::Read(newest), document, packed, life).map(Applied::Written)
            }
            Action::Update(update) => {
                let current =
                    live.map(|live| snapshot::entry(self.reads(), live, scope, &key, MAX_STORED_BYTES)).transpose()?;
                let document = update.apply(current.as_ref().map(Entry::document), self.rules.max_bytes)?;
                let packed = Packed::next(&document, self.rules.compress, scope, current.as_ref());
                self.write(scope, key, Before::Read(newest), document, packed, Life::Keep).map(Applied::Written)
            }
            Action::Touch(life) => {
                if let Some(newest) = live {
                    self.touch(scope, key, newest, life)?;
                }
                Ok(Applied::Touched(live.is_some()))
            }
            Action::Delete => {
                if let Some(newest) = live {
                    self.delete(scope, key, newest)?;
                }
                Ok(Applied::Deleted(live.is_some()))
            }
        }
    }

    /// The newest change of a key; one that took it away must be there.
    fn look(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        let newest = self.reads().newest(scope, key)?;
        if let Some(dead) = newest.filter(|newest| !newest.live) {
            snapshot::check_tombstone(self.reads(), dead, key)?;
        }
        Ok(newest)
    }

    /// What the cache says of a key that is there. It learns of a commit afterwards, so it knows nothing of this one.
    fn cached(&self, scope: ScopeId, key: &str) -> Option<Newest> {
        self.cache.newest(scope, key).filter(|newest| newest.is_alive(self.times.clock_ms))
    }

    fn check_version(&self, key: &str, live: Option<Newest>, expected: u64) -> Result<()> {
        let mut found = 0;
        if let Some(live) = live {
            self.reads().row(live.seq, &mut |row| {
                codec::verify(row)?;
                found = row.version.cast_unsigned();
                Ok(())
            })?;
        }
        if found == expected {
            return Ok(());
        }
        Err(version_conflict(key, found, expected))
    }

    fn write(
        &mut self,
        scope: ScopeId,
        key: Box<str>,
        before: Before,
        document: Document,
        packed: Packed,
        life: Life,
    ) -> Result<Arc<Entry>> {
        self.check_space()?;
        let before = match before {
            Before::Read(newest) => Before::Read(self.bury(scope, &key, newest)?),
            cached @ Before::Cached(_) => cached,
        };
        self.put(scope, key, Operation::Set, before, document, packed, life)
    }

    fn check_space(&self) -> Result<()> {
        if self.writes.is_short_of_space() {
            return Err(Error::new(
                ErrorKind::DiskFull,
                "the disk is full; what space is left is kept for deleting, so free some and try again",
            ));
        }
        Ok(())
    }

    /// The same value with another time to expire.
    fn touch(&mut self, scope: ScopeId, key: Box<str>, newest: Newest, life: Life) -> Result<()> {
        self.check_space()?;
        let entry = snapshot::entry(self.reads(), newest, scope, &key, MAX_STORED_BYTES)?;
        if sabotaged("touch-loses") {
            let nothing = Document::from_value(&serde_json::Value::Null, MAX_STORED_BYTES)?;
            let packed = Packed::new(&nothing, self.rules.compress);
            return self.put(scope, key, Operation::Touch, Before::Read(Some(newest)), nothing, packed, life).map(drop);
        }
        let packed = Packed::next(entry.document(), self.rules.compress, scope, Some(&entry));
        let before = Before::Read(Some(newest));
        self.put(scope, key, Operation::Touch, before, entry.into_document(), packed, life).map(drop)
    }

    /// Ends the life of a key whose time has run out before it gets another: otherwise nobody would learn of it.
    fn bury(&mut self, scope: ScopeId, key: &str, newest: Option<Newest>) -> Result<Option<Newest>> {
        match newest {
            Some(overdue) if overdue.live && !overdue.is_alive(self.times.clock_ms) => {
                self.end(scope, key.into(), Operation::Expire, overdue)?;
                self.reads().newest(scope, key)
            }
            newest => Ok(newest),
        }
    }

    #[allow(clippy::too_many_arguments)] // a row has as many parts
    fn put(
        &mut self,
        scope: ScopeId,
        key: Box<str>,
        operation: Operation,
        before: Before,
        document: Document,
        mut packed: Packed,
        life: Life,
    ) -> Result<Arc<Entry>> {
        // Packing took no lock: the row from which the value differs may be gone since.
        if let Some(base) = &packed.base
            && !self.reads().has(base.seq, base.check)?
        {
            packed = Packed::new(&document, self.rules.compress);
        }
        let newest = before.newest();
        let created_ms = self.created_ms(newest)?;
        let origin = self.origin.clone();
        let expires_ms = self.expires_ms(scope, life, newest.filter(|newest| newest.live))?;
        let row = LogRow { origin: parts(origin.as_deref()), ..self.row(scope, &key, operation, newest) };
        let row = codec::seal(LogRow { expires_ms, flags: packed.flags, value: packed.bytes(&document), ..row });
        let is_so = match before {
            Before::Read(newest) => self.writes.append(&row, created_ms, newest).map(|()| true)?,
            Before::Cached(_) => self.writes.supersede(&row, created_ms)?,
        };
        if !is_so {
            let before = Before::Read(self.look(scope, &key)?);
            return self.write(scope, key, before, document, packed, life);
        }
        let (seq, time_ms) = (row.seq, row.time_ms);
        let created_ms = created_ms.unwrap_or(time_ms);
        let own = Base::of(&row, document.text().len());
        let base = packed.base.take().or(own);
        let entry = Entry::new(document, seq, self.version, created_ms, time_ms, expires_ms).with_base(base);
        let entry = Arc::new(entry);
        self.published.push((scope, key, Some(Arc::clone(&entry))));
        Ok(entry)
    }

    /// When what is written now expires.
    fn expires_ms(&self, scope: ScopeId, life: Life, replaced: Option<Newest>) -> Result<Option<i64>> {
        let after = |millis: i64| self.times.clock_ms.saturating_add(millis);
        Ok(match (life, replaced) {
            (Life::Keep, Some(replaced)) => replaced.expires_ms,
            (Life::Keep | Life::Default, _) => self.settings.default_ttl(self.reads(), scope)?.map(after),
            (Life::For(millis), _) => millis.map(after),
            (Life::Until(time_ms), _) => time_ms,
        })
    }

    fn delete(&mut self, scope: ScopeId, key: Box<str>, newest: Newest) -> Result<()> {
        self.end(scope, key, Operation::Delete, newest)
    }

    fn end(&mut self, scope: ScopeId, key: Box<str>, operation: Operation, newest: Newest) -> Result<()> {
        // Nobody takes a key's time away.
        let origin = self.origin.clone().filter(|_| operation == Operation::Delete);
        let row = LogRow { origin: parts(origin.as_deref()), ..self.row(scope, &key, operation, Some(newest)) };
        let row = codec::seal(row);
        self.writes.append(&row, None, Some(newest))?;
        self.published.push((scope, key, None));
        Ok(())
    }

    /// The next row of the log, still without value and check.
    fn row<'r>(&self, scope: ScopeId, key: &'r str, operation: Operation, newest: Option<Newest>) -> LogRow<'r> {
        LogRow {
            seq: self.writes.head().seq + 1,
            version: self.version,
            time_ms: self.times.now_ms,
            scope,
            key,
            operation,
            prev: newest.map_or(0, |newest| newest.seq),
            expires_ms: None,
            flags: 0,
            value: &[],
            origin: [None; 3],
            check: 0,
        }
    }

    /// When a key that is written now came into being; nothing if that is now.
    fn created_ms(&self, newest: Option<Newest>) -> Result<Option<i64>> {
        let Some(live) = newest.filter(|newest| newest.live) else { return Ok(None) };
        if live.created_ms.is_some() {
            return Ok(live.created_ms);
        }
        let mut time_ms = None;
        self.reads().row(live.seq, &mut |row| {
            time_ms = Some(row.time_ms);
            Ok(())
        })?;
        Ok(time_ms)
    }

    fn revert(&mut self, scope: ScopeId, pattern: &Pattern, to: AsOf) -> Result<u64> {
        let now = AsOf { seq: i64::MAX, clock_ms: self.times.clock_ms };
        let keys = past::changed(self.reads(), scope, pattern, to, now)?;
        let (mut count, mut budget) = (0, Budget::default());
        for key in keys {
            let wanted = past::value_at(self.reads(), scope, &key, to)?;
            count += u64::from(self.restore(scope, key, wanted, &mut budget)?);
        }
        Ok(count)
    }

    fn undo(&mut self, mut deeds: Deeds) -> Result<Applied> {
        deeds.look(self.reads())?;
        let (undone, refused) = deeds.verdict();
        let (mut keys, mut budget) = (0, Budget::default());
        for ((scope, key), before) in undone {
            let wanted = past::value_of(self.reads(), before, scope, &key)?;
            keys += u64::from(self.restore(scope, key, wanted, &mut budget)?);
        }
        Ok(Applied::Undone { keys, refused })
    }

    /// Gives a key a value of the past, or its absence, also where its time has run out since; says whether it was another.
    fn restore(&mut self, scope: ScopeId, key: Box<str>, wanted: Option<Value>, budget: &mut Budget) -> Result<bool> {
        let newest = self.reads().newest(scope, &key)?;
        let live = newest.filter(|newest| newest.is_alive(self.times.clock_ms));
        let wanted = wanted.filter(|wanted| !is_over(wanted.expires_ms, self.times.clock_ms));
        let current =
            live.map(|live| snapshot::entry(self.reads(), live, scope, &key, MAX_STORED_BYTES)).transpose()?;
        if current.as_ref().map(|entry| (entry.document().text(), entry.expires_ms()))
            == wanted.as_ref().map(|wanted| (wanted.document.text(), wanted.expires_ms))
        {
            return Ok(false);
        }
        budget.spend(key.len() + wanted.as_ref().map_or(0, |wanted| wanted.document.text().len()))?;
        match (wanted, live) {
            (Some(Value { document, expires_ms }), _) => {
                let packed = Packed::next(&document, self.rules.compress, scope, current.as_ref());
                self.write(scope, key, Before::Read(newest), document, packed, Life::Until(expires_ms))?;
            }
            (None, Some(live)) => self.delete(scope, key, live)?,
            (None, None) => {}
        }
        Ok(true)
    }

    /// Takes away keys whose time has run out, the first of them first, at most a batch.
    fn sweep(&mut self) -> Result<u64> {
        let mut overdue = Vec::new();
        self.reads().overdue(self.times.clock_ms, &mut |scope, key, newest| {
            overdue.push((scope, key.into(), newest));
            if overdue.len() < limits::SWEEP_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let count = overdue.len() as u64;
        for (scope, key, newest) in overdue {
            self.end(scope, key, Operation::Expire, newest)?;
        }
        Ok(count)
    }

    fn clear(&mut self, scope: ScopeId, pattern: &Pattern) -> Result<u64> {
        let mut doomed = Vec::new();
        self.reads().entries(&snapshot::range(scope, pattern), &mut |key, newest| {
            if newest.is_alive(self.times.clock_ms) && pattern.matches(key) {
                doomed.push((key.into(), newest));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let count = doomed.len() as u64;
        for (key, newest) in doomed {
            self.delete(scope, key, newest)?;
        }
        Ok(count)
    }
}

/// An origin as a row has it.
fn parts(origin: Option<&Origin>) -> [Option<&str>; 3] {
    origin.map_or([None; 3], |origin| [&origin.actor, &origin.run, &origin.reason].map(Option::as_deref))
}

/// Compare-and-set met another version.
pub(crate) fn version_conflict(key: &str, found: u64, expected: u64) -> Error {
    let is = |version: u64| if version == 0 { "does not exist".into() } else { format!("has version {version}") };
    Error::new(
        ErrorKind::Conflict,
        format!("key {} {}, not as expected by if_version = {expected}; read it again", shorten(key), is(found)),
    )
}

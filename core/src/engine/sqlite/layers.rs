//! Forks. A fork shows the entries of the scope that it was made from, as they were then, and has entries of its own only of the
//! keys that one of the two has changed since: whoever changes the older scope first leaves the forks what they still show.

use super::error::from_sqlite;
use super::sql::{ENTRIES, ENTRIES_REVERSE, LAST_FORKED};
use super::statements::{View, end_of, newest, prepare, text};
use crate::engine::{Fork, Newest, Range, Reads as _, ScopeId};
use crate::{Error, Result};
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Connection, OptionalExtension as _, Rows, params};
use std::ops::ControlFlow;

/// Forks have numbers from this one on, and no other scope has, so that of those nobody has to ask what is beneath them.
pub(super) const FIRST_FORK: ScopeId = 1 << 30;

/// A scope in which entries are looked for, and the newest row that counts there.
pub(super) type Layer = Fork;

/// The uppermost layer of a scope: its own entries.
const fn own(scope: ScopeId) -> Layer {
    Layer { scope, at: i64::MAX }
}

/// Whether an entry only says that its key is unknown in a fork.
pub(super) fn hides(newest: &Newest, scope: ScopeId) -> bool {
    newest.seq == 0 && !newest.live && scope >= FIRST_FORK
}

/// What a scope shows of an entry in one of its layers: nothing of one that came after the fork, or hides its key.
pub(super) fn shown(newest: Newest, layer: Layer) -> Option<Newest> {
    let is_own = layer.at == i64::MAX;
    let versions = if is_own { newest.versions } else { 1 };
    (newest.seq <= layer.at && !hides(&newest, layer.scope)).then_some(Newest { versions, ..newest })
}

/// Does something that sees one state of the database.
pub(super) fn steadily<T>(connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let run = |sql| {
        let mut statement = connection.prepare_cached(sql)?;
        statement.execute([])
    };
    run("BEGIN").map_err(|e| from_sqlite("starting a read", e))?;
    let done = work();
    match run("COMMIT") {
        Ok(_) => done,
        // SQLite may have ended it by itself when the work failed.
        Err(e) => done.and_then(|_| Err(from_sqlite("ending a read", e))),
    }
}

impl View<'_> {
    /// The layer beneath another.
    fn beneath(&self, over: Layer) -> Result<Option<Layer>> {
        if over.scope < FIRST_FORK {
            return Ok(None);
        }
        let fork = self.forked(over.scope)?.ok_or_else(|| {
            Error::corrupt(format!("it is not known what scope {} was forked from; restore from a backup", over.scope))
        })?;
        Ok(Some(Layer { scope: fork.scope, at: fork.at.min(over.at) }))
    }

    /// Asks several layers about one state of the database: in between, one could leave another what it has shown.
    fn at_once<T>(&self, scope: ScopeId, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if scope < FIRST_FORK || !self.0.is_autocommit() { work() } else { steadily(self.0, work) }
    }

    /// The row at which a scope was forked last of all; 0 if none ever was. What is newer no fork shows that does not own it.
    pub(super) fn last_forked(&self) -> Result<i64> {
        prepare(self.0, LAST_FORKED)?
            .query_row([FIRST_FORK], |row| row.get(0))
            .optional()
            .map(Option::unwrap_or_default)
            .map_err(|e| from_sqlite("finding forks", e))
    }

    /// What the first layer of a scope shows that has an entry, from above.
    pub(super) fn uppermost(
        &self,
        scope: ScopeId,
        ask: impl FnMut(Layer) -> Result<ControlFlow<Option<Newest>>>,
    ) -> Result<Option<Newest>> {
        self.at_once(scope, || self.from(own(scope), ask))
    }

    /// The same from a layer on.
    fn from(
        &self,
        first: Layer,
        mut ask: impl FnMut(Layer) -> Result<ControlFlow<Option<Newest>>>,
    ) -> Result<Option<Newest>> {
        let mut next = Some(first);
        while let Some(layer) = next {
            if let ControlFlow::Break(shown) = ask(layer)? {
                return Ok(shown);
            }
            next = self.beneath(layer)?;
        }
        Ok(None)
    }

    /// What a layer shows of its entry of a key, if it has one.
    pub(super) fn newest_in(&self, layer: Layer, key: &str) -> Result<ControlFlow<Option<Newest>>> {
        Ok(match self.entry(layer.scope, key)? {
            Some(newest) => ControlFlow::Break(shown(newest, layer)),
            None => ControlFlow::Continue(()),
        })
    }

    /// What a key would be in a scope without an entry of its own.
    pub(super) fn inherited(&self, scope: ScopeId, key: &str) -> Result<Option<Newest>> {
        let Some(layer) = self.beneath(own(scope))? else { return Ok(None) };
        self.from(layer, |layer| self.newest_in(layer, key))
    }

    /// The forks of a scope that show its entry of a key, and those that show theirs, until `each` has enough.
    pub(super) fn heirs(
        &self,
        scope: ScopeId,
        key: &str,
        newest: Newest,
        each: &mut dyn FnMut(ScopeId, &str, Newest) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        for fork in self.forks(scope)? {
            let layer = Layer { scope, at: fork.at };
            if let Some(newest) = shown(newest, layer)
                && self.entry(fork.scope, key)?.is_none()
                && (each(fork.scope, key, newest).is_break() || self.heirs(fork.scope, key, newest, each)?.is_break())
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The entries of a range of a fork, as `Reads::entries` has them.
    pub(super) fn layered_entries(
        &self,
        range: &Range,
        each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.at_once(range.scope, || self.walk(range, each))
    }

    /// Goes along all layers at once: of those at the same key the uppermost counts.
    fn walk(&self, range: &Range, each: &mut dyn FnMut(&str, Newest) -> Result<ControlFlow<()>>) -> Result<()> {
        let failed = |e| from_sqlite("listing keys", e);
        let mut layers = Vec::new();
        self.from(own(range.scope), |layer| {
            layers.push(layer);
            Ok(ControlFlow::Continue(()))
        })?;
        let sql = if range.reverse { ENTRIES_REVERSE } else { ENTRIES };
        let mut statements = layers.iter().map(|_| prepare(self.0, sql)).collect::<Result<Vec<_>>>()?;
        let mut places = Vec::new();
        for (statement, layer) in statements.iter_mut().zip(layers) {
            let mut rows = statement.query(params![layer.scope, range.from, end_of(range)]).map_err(failed)?;
            rows.advance().map_err(failed)?;
            places.push((rows, layer));
        }
        let mut there = Vec::new();
        loop {
            first_of(&places, range.reverse, &mut there)?;
            let Some((rows, layer)) = there.first().map(|place| &places[*place]) else { return Ok(()) };
            let Some(row) = rows.get() else { return Ok(()) };
            if let Some(newest) = shown(newest(row, 1).map_err(failed)?, *layer)
                && each(text(row, 0)?, newest)?.is_break()
            {
                return Ok(());
            }
            for place in &there {
                places[*place].0.advance().map_err(failed)?;
            }
        }
    }
}

/// The layers, from above, that stand at the key that comes first.
fn first_of(places: &[(Rows<'_>, Layer)], reverse: bool, there: &mut Vec<usize>) -> Result<()> {
    there.clear();
    let mut first = None;
    for (place, (rows, _)) in places.iter().enumerate() {
        let Some(row) = rows.get() else { continue };
        let key = text(row, 0)?;
        if first.is_none_or(|first| if reverse { key > first } else { key < first }) {
            first = Some(key);
            there.clear();
        }
        if first == Some(key) {
            there.push(place);
        }
    }
    Ok(())
}

//! Scopes that start as copies of others.

use super::past::{Value, value_at};
use super::snapshot::AsOf;
use super::{Store, limits};
use crate::engine::{Fork, Range, ScopeId, Writes};
use crate::key::ScopeName;
use crate::{Error, ErrorKind, Result, harness};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

impl Store {
    /// Makes a copy of a child scope, with the scopes inside it.
    pub(crate) fn fork_scope(
        self: &Arc<Self>,
        parent: ScopeId,
        scope: ScopeName<'_>,
        name: ScopeName<'_>,
    ) -> Result<ScopeId> {
        // What has expired by now is nothing that the two begin with: merging could not tell it from what expires later.
        self.sweep()?;
        let mut made = 0;
        self.engine
            .write(&mut |writes| {
                let from = writes.reads().find_scope(parent, scope.as_str())?.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no scope {:?} to fork", scope.as_str()))
                })?;
                if writes.reads().find_scope(parent, name.as_str())?.is_some() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("there is a scope {:?} already; fork under another name", name.as_str()),
                    ));
                }
                harness::point("fork.begun");
                made = copy(writes, from, parent, name.as_str())?;
                Ok(())
            })
            .map(|_| {
                harness::point("fork.made");
                made
            })
    }

    /// From what a scope was forked, if it was.
    pub(crate) fn forked(&self, scope: ScopeId) -> Result<Option<Fork>> {
        let mut found = None;
        self.engine.read(&mut |reads| {
            found = reads.forked(scope)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// The keys that a fork has changed since it was made.
    pub(crate) fn changed_in(&self, scope: ScopeId, fork: Fork) -> Result<BTreeSet<Box<str>>> {
        let (mut keys, mut to) = (BTreeSet::new(), 0);
        let (after, clock_ms) = (fork.at, self.clock_ms());
        self.engine.snapshot(&mut |reads| {
            // Later than what the caller sees, where the sweeper may have been meanwhile.
            to = reads.head()?.seq;
            // Of what has expired no row tells before the sweeper was there.
            reads.overdue(clock_ms, &mut |found, key, _| {
                if found == scope {
                    keys.insert(key.into());
                }
                ControlFlow::Continue(())
            })?;
            if reads.trimmed(scope)?.gone <= after {
                return Ok(());
            }
            // Of a key that it has deleted and does not know any more, the other scope knows.
            let all = Range { scope: fork.scope, from: String::new(), to: None, reverse: false };
            reads.entries(&all, &mut |key, _| {
                if reads.newest(scope, key)?.is_none() {
                    keys.insert(key.into());
                }
                Ok(ControlFlow::Continue(()))
            })
        })?;
        let mut after = after;
        let mut more = true;
        while more {
            more = false;
            let mut rows = 0;
            self.engine.read(&mut |reads| {
                reads.outlines(after, &mut |row| {
                    if row.seq > to || rows == limits::WATCH_ROWS {
                        more = row.seq <= to;
                        return ControlFlow::Break(());
                    }
                    (after, rows) = (row.seq, rows + 1);
                    if row.scope == scope {
                        keys.insert(row.key.into());
                    }
                    ControlFlow::Continue(())
                })
            })?;
        }
        Ok(keys)
    }

    /// The value of a key when a row was the newest, whether its time had run out or not; the outer `None` says that it is not kept.
    #[allow(clippy::option_option)] // whether it is known, and if so, whether it was there
    pub(crate) fn document_at(&self, scope: ScopeId, key: &str, seq: i64) -> Result<Option<Option<Value>>> {
        let mut found = None;
        self.engine.snapshot(&mut |reads| {
            found = match value_at(reads, scope, key, AsOf { seq, clock_ms: i64::MIN }) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                value => Some(value?),
            };
            Ok(())
        })?;
        Ok(found)
    }
}

fn copy(writes: &mut dyn Writes, from: ScopeId, parent: ScopeId, name: &str) -> Result<ScopeId> {
    // Before the copy is there: it could be inside what is copied.
    let mut inside = Vec::new();
    for child in writes.reads().scopes(from)? {
        if let Some(id) = writes.reads().find_scope(from, &child)? {
            inside.push((id, child));
        }
    }
    let made = writes.fork_scope(from, parent, name)?;
    harness::point("fork.scope");
    inside.into_iter().try_for_each(|(id, child)| copy(writes, id, made, &child).map(drop))?;
    Ok(made)
}

//! What was set for scopes. It is kept under the ids of the scopes in a scope of its own, so that it is logged, checked and
//! seen by other processes like everything else.

use super::{MAX_STORED_BYTES, Store, snapshot};
use crate::engine::{Head, Range, Reads, SETTINGS, ScopeId};
use crate::{Document, Error, Result, RetentionPolicy, Ttl};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// As of no row: nothing was read yet.
pub(crate) const UNKNOWN: Head = Head { seq: -1, version: -1 };

/// What was set for one scope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Setting {
    /// How long its keys live, in milliseconds; 0 is for ever.
    pub(crate) ttl_ms: Option<i64>,
    pub(crate) retention: Option<RetentionPolicy>,
}

fn unreadable(scope: &str) -> Error {
    Error::corrupt(format!("what is set for scope {scope} cannot be read; restore from a backup"))
}

impl Setting {
    pub(crate) fn parse(scope: &str, document: &Document) -> Result<Self> {
        serde_json::from_str(document.text()).map_err(|_| unreadable(scope))
    }

    pub(crate) fn document(&self) -> Result<Document> {
        let value = serde_json::to_value(self).map_err(|e| Error::invalid(e.to_string()))?;
        Document::from_value(&value, MAX_STORED_BYTES)
    }
}

/// What was set for all scopes.
#[derive(Debug, Default)]
pub(crate) struct Settings(HashMap<ScopeId, Setting>);

impl Settings {
    fn read(reads: &dyn Reads) -> Result<Self> {
        let mut found = Vec::new();
        let all = Range { scope: SETTINGS, from: String::new(), to: None, reverse: false };
        reads.entries(&all, &mut |key, newest| {
            if newest.live {
                found.push((key.to_owned(), newest));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut settings = HashMap::new();
        for (key, newest) in found {
            let entry = snapshot::entry(reads, newest, SETTINGS, &key, MAX_STORED_BYTES)?;
            let scope = key.parse().map_err(|_| unreadable(&key))?;
            settings.insert(scope, Setting::parse(&key, entry.document())?);
        }
        Ok(Self(settings))
    }

    /// What is set for a scope, or for the nearest around it that has it set.
    fn nearest<T>(
        &self,
        reads: &dyn Reads,
        mut scope: ScopeId,
        set: impl Fn(&Setting) -> Option<T>,
    ) -> Result<Option<T>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some(found) = self.0.get(&scope).and_then(&set) {
                return Ok(Some(found));
            }
            match reads.parent(scope)? {
                Some(parent) if parent != 0 => scope = parent,
                _ => return Ok(None),
            }
        }
    }

    /// How long keys of a scope live unless told otherwise, in milliseconds; nothing is for ever.
    pub(crate) fn default_ttl(&self, reads: &dyn Reads, scope: ScopeId) -> Result<Option<i64>> {
        Ok(self.nearest(reads, scope, |setting| setting.ttl_ms)?.filter(|ttl_ms| *ttl_ms > 0))
    }

    /// Every policy that was set.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &RetentionPolicy> + Clone {
        self.0.values().filter_map(|setting| setting.retention.as_ref())
    }

    /// How much of the past is kept for a scope, if that was set.
    pub(crate) fn retention(&self, reads: &dyn Reads, scope: ScopeId) -> Result<Option<RetentionPolicy>> {
        self.nearest(reads, scope, |setting| setting.retention.clone())
    }
}

impl Store {
    /// What is set as of a row, which must be the newest that `reads` sees.
    pub(crate) fn settings(&self, reads: &dyn Reads, at: Head) -> Result<Arc<Settings>> {
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != at {
            *known = (at, Arc::new(Settings::read(reads)?));
        }
        Ok(Arc::clone(&known.1))
    }

    /// A commit has left the settings as they were.
    pub(crate) fn settings_stay(&self, start: Head, end: Head) {
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == start {
            known.0 = end;
        }
    }

    /// Looks at one state of the database and what is set in it.
    pub(crate) fn with_settings(&self, mut look: impl FnMut(&dyn Reads, &Settings) -> Result<()>) -> Result<()> {
        self.engine.snapshot(&mut |reads| {
            let settings = self.settings(reads, reads.head()?)?;
            look(reads, &settings)
        })
    }

    /// How long keys of a scope live unless told otherwise.
    pub(crate) fn default_ttl(&self, scope: ScopeId) -> Result<Ttl> {
        let mut millis = None;
        self.with_settings(|reads, settings| {
            millis = settings.default_ttl(reads, scope)?;
            Ok(())
        })?;
        Ok(millis.map_or(Ttl::Never, |millis| Ttl::After(Duration::from_millis(millis.cast_unsigned()))))
    }

    /// How much of the past is kept for a scope.
    pub(crate) fn retention(&self, scope: ScopeId) -> Result<RetentionPolicy> {
        let mut set = None;
        self.with_settings(|reads, settings| {
            set = settings.retention(reads, scope)?;
            Ok(())
        })?;
        Ok(set.unwrap_or_else(|| self.config.retention.clone()))
    }
}

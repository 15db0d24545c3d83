//! What a call came to, as plain values that any thread may hold.

use crate::error::Failure;
use crate::handle::{self, Object};
use crate::stack::Stack;
use crate::{history, merge, retention, usage, value};
use llmspell_state_persistence::{
    Change, Cleanup, Difference, Document, Entry, Merged, NamedWatch, Number, RetentionPolicy, Revision, Undone, Usage,
    Verification,
};
use std::os::raw::c_int;
use std::sync::Arc;

pub(crate) enum Outcome {
    Nothing,
    Flag(bool),
    Count(u64),
    Number(Number),
    Seconds(Option<f64>),
    Document(Document),
    /// The value of an entry.
    Value(Option<Arc<Entry>>),
    /// An entry with all that is known of it.
    Entry(Option<Arc<Entry>>),
    /// What `modify` starts from: the value, or the default, and its version.
    Old(Option<Arc<Entry>>, Option<Document>),
    Found(Vec<(String, Arc<Entry>)>),
    Names(Vec<String>),
    Watches(Vec<NamedWatch>),
    Verification(Verification),
    Handle(Object),
    Key(Option<String>),
    Item(Option<(String, Arc<Entry>)>),
    Change(Option<Change>),
    Revisions(Vec<Revision>),
    Difference(Option<Difference>),
    Undone(Undone),
    Retention(RetentionPolicy),
    Usage(Usage),
    Cleanup(Cleanup),
    Merged(Merged),
}

impl Outcome {
    /// Pushes it as its verb answers; says how many values that are.
    pub(crate) fn push(self, stack: Stack) -> Result<c_int, Failure> {
        match self {
            Self::Nothing => return Ok(0),
            Self::Flag(flag) => stack.push_boolean(flag),
            Self::Count(count) => stack.push_count(count),
            Self::Number(number) => value::push_number(stack, number)?,
            Self::Seconds(Some(seconds)) => stack.push_float(seconds),
            Self::Document(document) => value::push(stack, &document)?,
            Self::Value(entry) => push_value(stack, entry.as_deref().map(Entry::document))?,
            Self::Entry(entry) => match &entry {
                Some(entry) => push_entry(stack, entry)?,
                None => stack.push_nil(),
            },
            Self::Old(entry, default) => {
                push_value(stack, entry.as_deref().map(Entry::document).or(default.as_ref()))?;
                stack.push_count(entry.map_or(0, |entry| entry.version()));
                return Ok(2);
            }
            Self::Found(found) => push_found(stack, &found)?,
            Self::Names(names) => {
                let names = &*names;
                stack.protected(0, 1, &|stack: Stack| value::make_names(stack, names))?;
            }
            Self::Watches(watches) => push_watches(stack, &watches)?,
            Self::Verification(found) => push_verification(stack, &found)?,
            Self::Handle(object) => handle::push(stack, object)?,
            Self::Key(Some(key)) => {
                let key = &*key;
                stack.protected(0, 1, &|stack: Stack| stack.push_bytes(key.as_bytes()))?;
            }
            Self::Item(Some((key, entry))) => {
                let (key, tape) = (&*key, value::readable(entry.document())?);
                stack.protected(0, 2, &|stack: Stack| {
                    stack.push_bytes(key.as_bytes());
                    value::make(stack, tape);
                })?;
                return Ok(2);
            }
            Self::Seconds(None) | Self::Key(None) | Self::Item(None) => stack.push_nil(),
            Self::Change(change) => push_change(stack, change.as_ref())?,
            Self::Revisions(revisions) => history::push_revisions(stack, &revisions)?,
            Self::Difference(difference) => history::push_difference(stack, difference.as_ref())?,
            Self::Undone(undone) => history::push_undone(stack, &undone)?,
            Self::Retention(policy) => retention::push(stack, &policy)?,
            Self::Usage(usage) => usage::push(stack, &usage)?,
            Self::Cleanup(cleanup) => usage::push_cleanup(stack, &cleanup)?,
            Self::Merged(merged) => merge::push_merged(stack, &merged)?,
        }
        Ok(1)
    }
}

fn push_value(stack: Stack, document: Option<&Document>) -> Result<(), Failure> {
    match document {
        Some(document) => value::push(stack, document)?,
        None => stack.push_nil(),
    }
    Ok(())
}

pub(crate) fn push_entry(stack: Stack, entry: &Entry) -> Result<(), Failure> {
    let tape = value::readable(entry.document())?;
    stack.protected(0, 1, &|stack: Stack| value::make_entry(stack, entry, tape))
}

/// A table of values by key.
pub(crate) fn push_found<K: AsRef<str>>(stack: Stack, found: &[(K, Arc<Entry>)]) -> Result<(), Failure> {
    let readable = found.iter().map(|(key, entry)| Ok((key.as_ref(), value::readable(entry.document())?)));
    let readable = &*readable.collect::<Result<Vec<_>, Failure>>()?;
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, readable.len());
        for (key, tape) in readable {
            stack.push_bytes(key.as_bytes());
            value::make(stack, tape);
            stack.set_member(1);
        }
    })
}

/// A table of versions by name.
pub(crate) fn push_watches(stack: Stack, watches: &[NamedWatch]) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, watches.len());
        for watch in watches {
            stack.push_count(watch.version);
            stack.set_field(1, &watch.name);
        }
    })
}

/// A table of what was looked at and what is wrong.
pub(crate) fn push_verification(stack: Stack, found: &Verification) -> Result<(), Failure> {
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 6);
        stack.push_boolean(found.is_ok());
        stack.set_field(1, "ok");
        for (name, count) in
            [("version", found.version), ("changes", found.changes), ("keys", found.keys), ("scopes", found.scopes)]
        {
            stack.push_count(count);
            stack.set_field(1, name);
        }
        value::make_names(stack, &found.problems);
        stack.set_field(1, "problems");
    })
}

/// The change as a table, or nil.
pub(crate) fn push_change(stack: Stack, change: Option<&Change>) -> Result<(), Failure> {
    let Some(change) = change else {
        stack.push_nil();
        return Ok(());
    };
    let value = change.value.as_ref().map(value::readable).transpose()?;
    let old = change.old.as_ref().map(value::readable).transpose()?;
    stack.protected(0, 1, &|stack: Stack| {
        stack.push_table(0, 8);
        stack.push_bytes(change.key.as_bytes());
        stack.set_field(1, "key");
        stack.push_bytes(change.operation.name().as_bytes());
        stack.set_field(1, "operation");
        for (name, tape) in [("value", value), ("old", old)] {
            if let Some(tape) = tape {
                value::make(stack, tape);
                stack.set_field(1, name);
            }
        }
        stack.push_count(change.version);
        stack.set_field(1, "version");
        value::set_time(stack, "time", change.time_ms);
        value::set_origin(stack, &change.origin);
        stack.push_boolean(change.ends_commit);
        stack.set_field(1, "ends_commit");
    })
}

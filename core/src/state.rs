//! stub
#![allow(missing_docs, unused_variables, clippy::all, clippy::pedantic)]
use crate::{Document, IntoDocument, Number, Result, StateConfig, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::any::Any;
use serde_json::Value;

/// A value with what is known of it. Immutable: a change makes a new entry.
#[derive(Debug)]
pub struct Entry { }
impl Entry {
    pub fn value(&self) -> Value { todo!() }
    pub fn document(&self) -> &Document { todo!() }
    /// Version of the commit that wrote it.
    pub fn version(&self) -> u64 { todo!() }
    /// Milliseconds since the Unix epoch (UTC).
    pub fn created_ms(&self) -> i64 { todo!() }
    pub fn updated_ms(&self) -> i64 { todo!() }
    pub fn expires_ms(&self) -> Option<i64> { todo!() }
    /// What a binding keeps beside the value (a ready template object); dropped with the entry, outside every lock.
    pub fn attachment(&self) -> Option<&(dyn Any + Send + Sync)> { todo!() }
    /// Keeps `object`, once; `bytes` counts against the cache's budget.
    pub fn attach(&self, object: Box<dyn Any + Send + Sync>, bytes: usize) { todo!() }
    /// how often `note_read` was called before (saturating): lets a binding build a template only for values read twice
    pub fn note_read(&self) -> u8 { todo!() }
}

/// Which keys, from where, how many, in which direction.
#[derive(Debug, Clone, Default)]
pub struct Select { pub pattern: Option<String>, pub after: Option<String>, pub limit: Option<u64>, pub reverse: bool }
impl From<&str> for Select { fn from(pattern: &str) -> Self { Self { pattern: Some(pattern.into()), ..Self::default() } } }

/// Owned, Send, lazily paged over a snapshot; holds no lock between pages. Iterator<Item = Result<String>>
pub struct Keys;
impl Iterator for Keys { type Item = Result<String>; fn next(&mut self) -> Option<Result<String>> { todo!() } }
pub struct Items;
impl Iterator for Items { type Item = Result<(String, Arc<Entry>)>; fn next(&mut self) -> Option<Self::Item> { todo!() } }
impl Keys { /// true when next() needs no input/output (a binding need not release its interpreter lock)
    pub fn is_buffered(&self) -> bool { todo!() } }
impl Items { pub fn is_buffered(&self) -> bool { todo!() } }

/// Cheap to clone, Send + Sync.
#[derive(Debug, Clone)]
pub struct Scope;
impl Scope {
    pub fn get(&self, key: &str) -> Result<Option<Value>> { todo!() }
    pub fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>> { todo!() }
    /// Only the cache: `None` when it cannot answer without input/output. A binding tries this before it releases the interpreter.
    pub fn peek(&self, key: &str) -> Result<Option<Option<Arc<Entry>>>> { todo!() }
    pub fn exists(&self, key: &str) -> Result<bool> { todo!() }
    /// in the order asked for
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<Entry>>>> { todo!() }
    pub fn set(&self, key: &str, value: impl IntoDocument) -> Result<u64> { todo!() }
    /// Compare-and-set: 0 = must not exist. Conflict otherwise
    pub fn set_if(&self, key: &str, value: impl IntoDocument, if_version: u64) -> Result<u64> { todo!() }
    /// last one wins on a repeated key. One commit; returns its version (the current version if empty)
    pub fn set_many<K: AsRef<str>, V: IntoDocument>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<u64> { todo!() }
    pub fn delete(&self, key: &str) -> Result<bool> { todo!() }
    pub fn delete_if(&self, key: &str, if_version: u64) -> Result<bool> { todo!() }
    pub fn clear(&self, pattern: &str) -> Result<u64> { todo!() }
    pub fn keys(&self, select: impl Into<Select>) -> Result<Keys> { todo!() }
    pub fn items(&self, select: impl Into<Select>) -> Result<Items> { todo!() }
    pub fn count(&self, pattern: &str) -> Result<u64> { todo!() }
    /// fn gets the current entry, returns the new document; retried on conflict. E: From<Error>
    pub fn modify<E: From<crate::Error>>(&self, key: &str, f: impl FnMut(Option<&Arc<Entry>>) -> Result<Document, E>) -> Result<Arc<Entry>, E> { todo!() }
    /// returns the new number
    pub fn increment(&self, key: &str, by: impl Into<Number>) -> Result<Number> { todo!() }
    /// returns the new length of the array
    pub fn append(&self, key: &str, item: impl IntoDocument) -> Result<u64> { todo!() }
    /// returns the merged value
    pub fn merge(&self, key: &str, patch: impl IntoDocument) -> Result<Document> { todo!() }
    pub fn scope(&self, name: &str) -> Result<Scope> { todo!() }
    pub fn scopes(&self) -> Result<Vec<String>> { todo!() }
    /// last name of the path, "" for the root
    pub fn name(&self) -> &str { todo!() }
    pub fn transaction(&self) -> Result<Transaction> { todo!() }
    /// commits when f returns Ok, rolls back on Err, runs f again on a conflict (at commit, or an Err for which `is_conflict` is true), up to `attempts` times (limits::ATTEMPTS is the default)
    pub fn transact_with<T, E: From<crate::Error>>(&self, attempts: u32, is_conflict: impl Fn(&E) -> bool, f: impl FnMut(&Transaction) -> Result<T, E>) -> Result<T, E> { todo!() }
    pub fn transact<T>(&self, f: impl FnMut(&Transaction) -> Result<T>) -> Result<T> { todo!() }
    pub fn max_value_bytes(&self) -> usize { todo!() }
    pub fn is_closed(&self) -> bool { todo!() }
}

/// An open store. Derefs to its root Scope. Clones share the same opening: closing one closes all.
#[derive(Debug, Clone)]
pub struct State(Scope);
impl std::ops::Deref for State { type Target = Scope; fn deref(&self) -> &Scope { &self.0 } }
impl State {
    pub fn open(path: impl AsRef<Path>) -> Result<Self> { todo!() }
    pub fn in_memory() -> Result<Self> { todo!() }
    pub fn with_config(config: StateConfig) -> Result<Self> { todo!() }
    /// idempotent
    pub fn close(&self) -> Result<()> { todo!() }
    pub fn config(&self) -> &StateConfig { todo!() }
    /// UUID text
    pub fn store_id(&self) -> String { todo!() }
    /// Version of the newest commit, of any process
    pub fn version(&self) -> Result<u64> { todo!() }
}

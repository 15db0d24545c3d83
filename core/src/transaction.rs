//! stub
#![allow(missing_docs, unused_variables, clippy::all, clippy::pedantic)]
use crate::{Document, Entry, IntoDocument, Items, Keys, Number, Result, Select};
use std::sync::Arc;
use serde_json::Value;
/// Send + Sync, &self methods; dropped without commit = rolled back. Use after the end is `Closed`.
#[derive(Debug, Clone)]
pub struct Transaction;
impl Transaction {
    pub fn get(&self, key: &str) -> Result<Option<Value>> { todo!() }
    /// An own write that is not committed yet has version 0
    pub fn entry(&self, key: &str) -> Result<Option<Arc<Entry>>> { todo!() }
    pub fn exists(&self, key: &str) -> Result<bool> { todo!() }
    pub fn get_many<K: AsRef<str>>(&self, keys: &[K]) -> Result<Vec<Option<Arc<Entry>>>> { todo!() }
    pub fn set(&self, key: &str, value: impl IntoDocument) -> Result<()> { todo!() }
    pub fn set_if(&self, key: &str, value: impl IntoDocument, if_version: u64) -> Result<()> { todo!() }
    pub fn set_many<K: AsRef<str>, V: IntoDocument>(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<()> { todo!() }
    pub fn delete(&self, key: &str) -> Result<bool> { todo!() }
    pub fn delete_if(&self, key: &str, if_version: u64) -> Result<bool> { todo!() }
    pub fn clear(&self, pattern: &str) -> Result<u64> { todo!() }
    pub fn keys(&self, select: impl Into<Select>) -> Result<Keys> { todo!() }
    pub fn items(&self, select: impl Into<Select>) -> Result<Items> { todo!() }
    pub fn count(&self, pattern: &str) -> Result<u64> { todo!() }
    pub fn modify<E: From<crate::Error>>(&self, key: &str, f: impl FnOnce(Option<&Arc<Entry>>) -> Result<Document, E>) -> Result<Arc<Entry>, E> { todo!() }
    pub fn increment(&self, key: &str, by: impl Into<Number>) -> Result<Number> { todo!() }
    pub fn append(&self, key: &str, item: impl IntoDocument) -> Result<u64> { todo!() }
    pub fn merge(&self, key: &str, patch: impl IntoDocument) -> Result<Document> { todo!() }
    /// The same transaction, seen from a nested scope.
    pub fn scope(&self, name: &str) -> Result<Transaction> { todo!() }
    /// Returns the version of the commit (the snapshot's version when nothing was written)
    pub fn commit(&self) -> Result<u64> { todo!() }
    pub fn rollback(&self) -> Result<()> { todo!() }
    /// true until commit or rollback
    pub fn is_active(&self) -> bool { todo!() }
    pub fn max_value_bytes(&self) -> usize { todo!() }
}

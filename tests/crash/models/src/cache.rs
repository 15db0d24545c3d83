//! The cache: what was read before a write must not be taken in after it.

use super::{explore, spawn};
use crate::store::cache::Cache;
use crate::{Document, Entry};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a writer tells the cache.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// The new entry.
    Publish,
    /// That the key is another.
    Forget,
    /// That everything is.
    Clear,
}

#[allow(clippy::unnecessary_wraps)] // what the cache takes
fn entry(value: i64) -> Option<Arc<Entry>> {
    Some(Arc::new(Entry::pending(Document::trusted(value.to_string()), value, None)))
}

/// One writes and tells the cache; two read, and fill it with what they have read.
pub fn fill(told: Told, bug: Option<&'static str>) -> u64 {
    explore(bug, move || {
        // One shard; the entry's time is its value.
        let shared = Arc::new((Cache::new(1 << 20), loom::sync::atomic::AtomicU64::new(1)));
        let read = |shared: &(Cache, loom::sync::atomic::AtomicU64)| {
            let (cache, database) = shared;
            match cache.get(1, "a") {
                Ok(known) => known.expect("the key is always there").updated_ms(),
                Err(ticket) => {
                    let found = database.load(Ordering::Acquire).cast_signed();
                    cache.fill(ticket, 1, "a", entry(found));
                    found
                }
            }
        };
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                spawn(move || (read(&shared), read(&shared)))
            })
            .collect();
        let (cache, database) = &*shared;
        database.store(2, Ordering::Release);
        match told {
            Told::Publish => cache.publish(1, "a", entry(2)),
            Told::Forget => cache.forget(1, "a"),
            Told::Clear => cache.clear(),
        }
        assert_eq!(read(&shared), 2, "a value from before the write");
        for reader in readers {
            let (first, second) = reader.join().expect("a reader does not panic");
            assert!(first <= second, "{second} was read after {first}");
        }
        assert_eq!(read(&shared), 2, "a value from before the write stays");
    })
}

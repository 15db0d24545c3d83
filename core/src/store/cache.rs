//! Decoded entries of recently used keys, absent keys included, within a bound on bytes.
//!
//! The cache never decides what is true: a shard's generation moves with every write to it, and what was read from the
//! database is taken in only if the generation is still the one from before the read.

use crate::Entry;
use crate::engine::{Newest, ScopeId};
use crate::harness::sabotaged;
use crate::sync::{Mutex, MutexGuard};
use hashbrown::HashTable;
use std::sync::{Arc, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most shards; fewer where each would have less than [`SHARD_BYTES`].
const SHARDS: usize = 16;
const SHARD_BYTES: usize = 4 << 20;
/// What a place costs beside its key and entry: the slot, the table's share, the allocations.
const PLACE_BYTES: usize = 96;

/// What is known of a key: its entry, or that there is none.
pub(crate) type Known = Option<Arc<Entry>>;

/// The cache of one store.
pub(crate) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Bytes that one shard may hold.
    shard_bytes: usize,
    seed: u64,
}

/// The generation of a key's shard before a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    hash: u64,
    generation: u64,
}

#[derive(Default)]
struct Shard {
    /// Indexes of `slots`.
    table: HashTable<usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Where the search for something to drop goes on (the clock algorithm).
    hand: usize,
    bytes: usize,
    generation: u64,
}

struct Slot {
    hash: u64,
    scope: ScopeId,
    key: Box<str>,
    known: Known,
    bytes: usize,
    used: bool,
}

impl Slot {
    fn weigh(&self) -> usize {
        PLACE_BYTES + self.key.len() + self.known.as_ref().map_or(0, |entry| entry.footprint())
    }
}

impl Cache {
    /// A cache of at most `bytes`; with 0 it keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        let shards = (bytes / SHARD_BYTES).clamp(1, SHARDS).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_bytes: bytes / shards,
            seed: fastrand::u64(..),
        }
    }

    fn hash(&self, scope: ScopeId, key: &str) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.seed ^ scope.cast_unsigned())
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table inside a shard uses the other end of the hash.
        let index = usize::try_from(hash >> 32).unwrap_or(0) & (self.shards.len() - 1);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a key, or the ticket with which the answer of the database may be taken in.
    pub(crate) fn get(&self, scope: ScopeId, key: &str) -> Result<Known, Ticket> {
        let hash = self.hash(scope, key);
        let mut shard = self.shard(hash);
        let Some(index) = shard.find(hash, scope, key) else {
            return Err(Ticket { hash, generation: shard.generation });
        };
        let Some(slot) = &mut shard.slots[index] else { return Err(Ticket { hash, generation: shard.generation }) };
        slot.used = true;
        let known = slot.known.clone();
        // A binding may have attached something since: it counts from the next read on.
        let bytes = slot.weigh();
        if bytes != slot.bytes {
            let before = std::mem::replace(&mut slot.bytes, bytes);
            shard.bytes = shard.bytes - before + bytes;
            let dropped = shard.shrink(self.shard_bytes);
            drop(shard);
            drop(dropped);
        }
        Ok(known)
    }

    /// The newest change of a key that is known to be there, but for how many versions it has. Drops nothing, so that nothing of
    /// others runs.
    pub(crate) fn newest(&self, scope: ScopeId, key: &str) -> Option<Newest> {
        let hash = self.hash(scope, key);
        let shard = self.shard(hash);
        let entry = shard.slots[shard.find(hash, scope, key)?].as_ref()?.known.as_ref()?;
        let (created_ms, expires_ms) = (Some(entry.created_ms()), entry.expires_ms());
        Some(Newest { seq: entry.seq, live: true, created_ms, expires_ms, versions: 0 })
    }

    /// Takes in what the database answered, unless the key was written since the ticket was given.
    pub(crate) fn fill(&self, ticket: Ticket, scope: ScopeId, key: &str, known: Known) {
        let mut shard = self.shard(ticket.hash);
        if shard.generation == ticket.generation || sabotaged("fill-anyway") {
            let dropped = shard.put(ticket.hash, scope, key, known, self.shard_bytes);
            drop(shard);
            drop(dropped);
        }
    }

    /// Takes in what was just committed.
    pub(crate) fn publish(&self, scope: ScopeId, key: &str, known: Known) {
        let hash = self.hash(scope, key);
        let mut shard = self.shard(hash);
        shard.generation += 1;
        let dropped = shard.put(hash, scope, key, known, self.shard_bytes);
        drop(shard);
        drop(dropped);
    }

    /// Forgets a key that somebody else wrote.
    pub(crate) fn forget(&self, scope: ScopeId, key: &str) {
        let hash = self.hash(scope, key);
        let mut shard = self.shard(hash);
        shard.generation += 1;
        let dropped = shard.find(hash, scope, key).and_then(|index| shard.remove(index));
        drop(shard);
        drop(dropped);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let generation = shard.generation + 1;
            let dropped = std::mem::replace(&mut *shard, Shard { generation, ..Shard::default() });
            drop(shard);
            drop(dropped);
        }
    }
}

/// Whatever a shard lets go of is handed out, so that it is dropped without the lock: an attachment's destructor is code
/// of a binding.
impl Shard {
    fn find(&self, hash: u64, scope: ScopeId, key: &str) -> Option<usize> {
        let same = |index: &usize| {
            self.slots[*index]
                .as_ref()
                .is_some_and(|slot| slot.hash == hash && slot.scope == scope && *slot.key == *key)
        };
        self.table.find(hash, same).copied()
    }

    fn put(&mut self, hash: u64, scope: ScopeId, key: &str, known: Known, most: usize) -> Vec<Slot> {
        let mut dropped: Vec<Slot> =
            self.find(hash, scope, key).and_then(|index| self.remove(index)).into_iter().collect();
        let mut slot = Slot { hash, scope, key: key.into(), known, bytes: 0, used: false };
        slot.bytes = slot.weigh();
        if slot.bytes > most {
            return dropped;
        }
        self.bytes += slot.bytes;
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        let slots = &self.slots;
        self.table.insert_unique(hash, index, |index| slots[*index].as_ref().map_or(0, |slot| slot.hash));
        dropped.extend(self.shrink(most));
        dropped
    }

    fn remove(&mut self, index: usize) -> Option<Slot> {
        let slot = self.slots[index].take()?;
        if let Ok(found) = self.table.find_entry(slot.hash, |other| *other == index) {
            found.remove();
        }
        self.free.push(index);
        self.bytes -= slot.bytes;
        Some(slot)
    }

    /// Drops what was not used since the hand last passed, until the rest fits.
    fn shrink(&mut self, most: usize) -> Vec<Slot> {
        let mut dropped = Vec::new();
        while self.bytes > most {
            self.hand = (self.hand + 1) % self.slots.len();
            match &mut self.slots[self.hand] {
                None => {}
                Some(slot) if slot.used => slot.used = false,
                Some(_) => dropped.extend(self.remove(self.hand)),
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use serde_json::json;

    #[allow(clippy::unnecessary_wraps)] // what the cache takes
    fn entry(text: &str) -> Known {
        Some(Arc::new(Entry::pending(Document::from_value(&json!(text), 1 << 20).unwrap(), 0, None)))
    }

    #[test]
    fn an_answer_from_before_a_write_is_not_taken_in() {
        let cache = Cache::new(1 << 20);
        let Err(ticket) = cache.get(1, "a") else { panic!("nothing is known yet") };
        cache.publish(1, "a", entry("new"));
        cache.fill(ticket, 1, "a", entry("old"));
        assert_eq!(cache.get(1, "a").unwrap().unwrap().value(), json!("new"));
        let Err(ticket) = cache.get(1, "b") else { panic!("nothing is known yet") };
        cache.forget(1, "b");
        cache.fill(ticket, 1, "b", entry("old"));
        assert!(cache.get(1, "b").is_err());
    }

    #[test]
    fn scopes_do_not_share_places() {
        let cache = Cache::new(1 << 20);
        cache.publish(1, "a", entry("one"));
        assert!(cache.get(2, "a").is_err());
    }

    #[test]
    fn the_bound_holds_whatever_comes_and_what_is_used_stays() {
        let cache = Cache::new(64 << 10);
        cache.publish(1, "hot", entry("hot"));
        for n in 0..10_000 {
            cache.publish(1, &format!("key{n}"), entry(&"x".repeat(n % 300)));
            assert!(cache.get(1, "hot").is_ok(), "after {n}");
            assert!(cache.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum::<usize>() <= 64 << 10);
        }
        cache.clear();
        assert!(cache.get(1, "hot").is_err());
    }

    #[test]
    fn what_is_attached_later_counts() {
        let cache = Cache::new(64 << 10);
        for n in 0..40 {
            let key = format!("key{n}");
            cache.publish(1, &key, entry("x"));
            cache.get(1, &key).unwrap().unwrap().attach(Box::new(()), 8 << 10);
            let _ = cache.get(1, &key);
        }
        let kept = (0..40).filter(|n| cache.get(1, &format!("key{n}")).is_ok()).count();
        assert!(kept <= 8, "{kept}");
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = Cache::new(0);
        cache.publish(1, "a", entry("a"));
        assert!(cache.get(1, "a").is_err());
    }
}

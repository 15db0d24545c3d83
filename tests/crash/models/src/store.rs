//! The whole pipeline over a database in memory: handles, session, queue, cache, and what other processes commit.

use super::engine::{Fate, Shelf};
use super::{explore, spawn};
use crate::engine::ROOT;
use crate::session::Session;
use crate::store::Store;
use crate::store::apply::{Apply, Rules, Times};
use crate::store::cache::Cache;
use crate::store::request::{Action, Change, Life, Request};
use crate::store::settings::Settings;
use crate::{Document, ErrorKind, Scope, StateConfig};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use super::engine::Sharing;

/// An open store with its database.
#[derive(Clone)]
pub(super) struct World {
    shelf: Shelf,
    pub(super) state: Scope,
}

impl World {
    pub(super) fn new(sharing: Sharing) -> Self {
        let shelf = Shelf::new(sharing);
        // The smallest cache has one shard.
        let config = StateConfig { cache_size_mb: 1, ..StateConfig::default() };
        let store = Store::new(Box::new(shelf.clone()), config).expect("a new database answers");
        Self { shelf, state: Scope::new(Arc::new(Session::new(store, None)), ROOT, "", 0) }
    }

    /// Starts a thread that works with this world.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> loom::thread::JoinHandle<T> {
        let world = self.clone();
        spawn(move || work(&world))
    }

    pub(super) fn set(&self, key: &str, value: i64) {
        self.state.set(key, value).expect("a set succeeds");
    }

    /// Sets two keys in one commit.
    fn set_both(&self, value: i64) {
        self.state.set_many([("left", value), ("right", value)]).expect("a set succeeds");
    }

    /// One more opening of the same store.
    pub(super) fn open_again(&self) -> Scope {
        let store = self.state.store().expect("it is open");
        Scope::new(Arc::new(Session::new(Arc::clone(store), None)), ROOT, "", 0)
    }

    fn get(&self, key: &str) -> Option<i64> {
        self.state.get(key).expect("a read succeeds").and_then(|value| value.as_i64())
    }

    /// Sets keys in one commit of another process.
    pub(super) fn set_elsewhere(&self, keys: &[&str], value: i64) {
        let changes = keys.iter().map(|key| {
            let action = Action::set(Document::trusted(value.to_string()), false, Life::Default);
            Change::One { scope: ROOT, key: (*key).into(), action, if_version: None }
        });
        let mut request = Some(Request { changes: changes.collect(), ..Request::default() });
        let rules = Rules { compress: false, max_bytes: 1 << 10 };
        let times = Times { now_ms: 0, clock_ms: 0 };
        self.shelf
            .commit_elsewhere(&mut |writes| {
                let request = request.take().unwrap_or_default();
                let (settings, cache) = (Settings::default(), Cache::new(0));
                Apply::new(writes, rules, &settings, times, &cache, &mut Vec::new()).request(request).map(drop)
            })
            .expect("another process commits");
    }
}

/// Whoever was told that its write is stored reads it, whoever else writes and reads.
pub fn own_write(sharing: Sharing, bug: Option<&'static str>) -> u64 {
    explore(bug, move || {
        let world = World::new(sharing);
        let reader = world.spawn(|world| world.get("a"));
        let other = world.spawn(|world| world.set("b", 1));
        world.set("a", 1);
        assert_eq!(world.get("a"), Some(1), "an acknowledged write is not read");
        other.join().expect("nobody panics");
        reader.join().expect("nobody panics");
        assert_eq!((world.get("a"), world.get("b")), (Some(1), Some(1)), "a value from before stays");
    })
}

/// A later read is never older than an earlier one of the same commits; several keys at once are of one commit.
pub fn two_keys(sharing: Sharing, bug: Option<&'static str>) -> u64 {
    explore(bug, move || {
        let world = World::new(sharing);
        world.set_both(1);
        let writer = world.spawn(|world| world.set_both(2));
        let reader = world.spawn(|world| {
            let left = world.get("left");
            let right = world.get("right");
            assert!(left <= right, "right {right:?} was read after left {left:?}");
        });
        let both = world.state.get_many(&["left", "right"]).expect("a read succeeds");
        let texts: Vec<_> = both.iter().flatten().map(|entry| entry.document().text()).collect();
        assert!(texts == ["1", "1"] || texts == ["2", "2"], "half a commit: {texts:?}");
        writer.join().expect("nobody panics");
        reader.join().expect("the reads are in order");
    })
}

/// What another process was told is stored shows in this one from then on, and so does what this one writes meanwhile.
pub fn other_process(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        world.set("a", 1);
        assert_eq!(world.get("a"), Some(1));
        let acknowledged = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let other = {
            let acknowledged = Arc::clone(&acknowledged);
            world.spawn(move |world| {
                world.set_elsewhere(&["a"], 2);
                acknowledged.store(true, Ordering::Release);
            })
        };
        let writer = world.spawn(|world| {
            world.set("b", 1);
            world.get("b")
        });
        let was_acknowledged = acknowledged.load(Ordering::Acquire);
        let found = world.get("a");
        assert!(!was_acknowledged || found == Some(2), "another process' write is not read");
        other.join().expect("nobody panics");
        assert_eq!(writer.join().expect("nobody panics"), Some(1), "an acknowledged write is not read");
        assert_eq!((world.get("a"), world.get("b")), (Some(2), Some(1)), "a value from before stays");
    })
}

/// A commit of which nobody knows what became of it: from then on readers see what the database has.
pub fn unknown_commit(stored: bool, bug: Option<&'static str>) -> u64 {
    explore(bug, move || {
        let world = World::new(Sharing::Shared);
        world.set("a", 1);
        world.shelf.decide(if stored { Fate::Unknown } else { Fate::Lost });
        let reader = world.spawn(|world| world.get("a"));
        let error = world.state.set("a", 2).expect_err("the commit is unknown");
        assert_eq!(error.kind(), ErrorKind::CommitUnknown);
        let expected = Some(if stored { 2 } else { 1 });
        assert_eq!(world.get("a"), expected, "not what the database has");
        let meanwhile = reader.join().expect("nobody panics");
        assert!(meanwhile == Some(1) || meanwhile == expected, "{meanwhile:?} was never stored");
        assert_eq!(world.get("a"), expected, "not what the database has");
    })
}

/// Closing against writes and reads under way: everybody is answered, nothing is committed once closing has ended, and what
/// was acknowledged is stored.
pub fn close(sharing: Sharing, bug: Option<&'static str>) -> u64 {
    explore(bug, move || {
        let world = World::new(sharing);
        let writers = ["a", "b"].map(|key| {
            let writer = world.spawn(move |world| world.state.set(key, 1));
            (key, writer)
        });
        world.state.session().close().expect("closing succeeds");
        let commits = world.shelf.commits();
        let late = world.state.set("c", 1).expect_err("a closed session commits nothing");
        assert_eq!(late.kind(), ErrorKind::Closed);
        for (key, writer) in writers {
            let acknowledged = match writer.join().expect("nobody panics") {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    false
                }
            };
            assert_eq!(world.shelf.has(key), acknowledged, "what was told and what is stored");
        }
        assert_eq!(world.shelf.commits(), commits, "a commit after closing");
    })
}

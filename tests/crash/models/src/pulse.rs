//! Waiting for the next commit: a wait and what it waits for may come in any order.

use super::explore;
use super::store::{Sharing, World};
use crate::store::pulse::Pulse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Waits from now on for a commit after `seen`. Answers what takes it back; counts how often it was woken.
fn wait(world: &World, seen: u64, woken: &Arc<AtomicUsize>) -> u64 {
    let woken = Arc::clone(woken);
    let wake = Box::new(move || {
        woken.fetch_add(1, Ordering::Relaxed);
    });
    Pulse::wait(world.state.store().expect("it is open"), seen, wake)
}

/// Std's atomic: no step of the model.
fn counter() -> Arc<AtomicUsize> {
    Arc::default()
}

/// Two wait while another commits: whoever has seen the state from before is woken, once.
pub fn commit(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let seen = world.state.store().expect("it is open").stamp();
        let (here, there) = (counter(), counter());
        let writer = world.spawn(|world| world.set("a", 1));
        let other = {
            let there = Arc::clone(&there);
            world.spawn(move |world| wait(world, seen, &there))
        };
        wait(&world, seen, &here);
        writer.join().expect("nobody panics");
        other.join().expect("nobody panics");
        let woken = [&here, &there].map(|woken| woken.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 1], "a wait slept through a commit");
    })
}

/// A wait that is taken back while another commits is woken once or never, and never again.
pub fn forget(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let seen = world.state.store().expect("it is open").stamp();
        let (taken_back, left) = (counter(), counter());
        let writer = world.spawn(|world| world.set("a", 1));
        let id = wait(&world, seen, &taken_back);
        wait(&world, seen, &left);
        world.state.store().expect("it is open").pulse.forget(id);
        writer.join().expect("nobody panics");
        let woken = taken_back.load(Ordering::Relaxed);
        assert!(woken <= 1, "a wait was woken {woken} times");
        assert_eq!(left.load(Ordering::Relaxed), 1, "a wait slept through a commit");
        world.set("a", 2);
        assert_eq!(taken_back.load(Ordering::Relaxed), woken, "a wait that was taken back was woken");
    })
}

/// Closing the store wakes whoever waits, has begun to, or still will.
pub fn stop(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let store = Arc::clone(world.state.store().expect("it is open"));
        let seen = store.stamp();
        let (here, there) = (counter(), counter());
        let waits = |woken: &Arc<AtomicUsize>| {
            let (store, woken) = (Arc::clone(&store), Arc::clone(woken));
            move || {
                let wake = Box::new(move || {
                    woken.fetch_add(1, Ordering::Relaxed);
                });
                Pulse::wait(&store, seen, wake);
            }
        };
        let other = super::spawn(waits(&there));
        let closes = world.spawn(|world| world.state.session().close().expect("closing succeeds"));
        waits(&here)();
        other.join().expect("nobody panics");
        closes.join().expect("nobody panics");
        let woken = [&here, &there].map(|woken| woken.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 1], "a wait outlives its store");
    })
}

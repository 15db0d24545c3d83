//! Watches that nobody waits for in a thread: whoever asks is told, whatever happens meanwhile.

use super::explore;
use super::store::{Sharing, World};
use crate::{ErrorKind, Result, Watch};
use std::sync::{Arc, Mutex};

/// What somebody was told. Std's lock: no step of the model.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Result<()>>>>);

impl Told {
    fn ask(&self, watch: &Watch) {
        let told = Arc::clone(&self.0);
        watch.ready(move |outcome| told.lock().expect("nobody panics with it").push(outcome));
    }

    /// The only answer.
    fn only(&self) -> Result<()> {
        let mut told = self.0.lock().expect("nobody panics with it");
        assert_eq!(told.len(), 1, "answers to one who asked");
        told.remove(0)
    }
}

/// Two ask while another commits: both are told, and there is the change.
pub fn commit(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let watch = world.state.watch("*").expect("a watch");
        let (here, there) = (Told::default(), Told::default());
        let writer = world.spawn(|world| world.set("a", 1));
        let other = {
            let (there, watch) = (there.clone(), watch.clone());
            super::spawn(move || there.ask(&watch))
        };
        here.ask(&watch);
        writer.join().expect("nobody panics");
        other.join().expect("nobody panics");
        here.only().expect("there is a change");
        there.only().expect("there is a change");
        assert_eq!(watch.pop().expect("the change").key, "a");
        assert!(watch.pop().is_none(), "a change was told twice");
    })
}

/// One asks while a commit and the end of the watch come.
pub fn close(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let watch = world.state.watch("*").expect("a watch");
        let told = Told::default();
        let writer = world.spawn(|world| world.set("a", 1));
        let closes = {
            let watch = watch.clone();
            super::spawn(move || watch.close().expect("closing succeeds"))
        };
        told.ask(&watch);
        writer.join().expect("nobody panics");
        closes.join().expect("nobody panics");
        told.only().expect("the end is no error");
        assert!(watch.pop().is_none(), "a change after the end");
    })
}

/// One asks while its opening is closed and another opening of the store goes on.
pub fn close_session(bug: Option<&'static str>) -> u64 {
    explore(bug, || {
        let world = World::new(Sharing::Shared);
        let watched = world.open_again();
        let watch = watched.watch("*").expect("a watch");
        let told = Told::default();
        let closes = {
            let session = Arc::clone(watched.session());
            super::spawn(move || session.end())
        };
        told.ask(&watch);
        closes.join().expect("nobody panics");
        assert_eq!(told.only().expect_err("it was closed").kind(), ErrorKind::Closed);
    })
}

//! `Watch`: every change of the keys that match, in the order of commits, from now on or from a version of the past.
//!
//! A watch reads the log page by page, so it never holds up a writer, and a slow consumer costs no memory.

use crate::calls::{Call, guarded};
use crate::change::Change;
use crate::engine::Head;
use crate::harness::sabotaged;
use crate::interrupt::Waiting;
use crate::key::{Pattern, check_watch_name};
use crate::session::Session;
use crate::store::Store;
use crate::store::pulse::Pulse;
use crate::store::tail::Watched;
use crate::sync::{Mutex, MutexGuard};
use crate::{Result, Scope};
use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// What to watch. The default is every key of the scope, from now on.
///
/// ```
/// # use llmspell_state_persistence::{State, WatchOptions};
/// # let state = State::in_memory()?;
/// let before = state.version()?;
/// state.set("user:1", 1)?;
/// let watch = state.watch(WatchOptions { since: Some(before), ..WatchOptions::from("user:*") })?;
/// assert_eq!(watch.next()?.map(|change| change.key), Some("user:1".into()));
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// A glob that keys must match; see [`Pattern`].
    pub pattern: Option<String>,
    /// Only commits after this version. A named watch that was there before goes on where it was instead.
    pub since: Option<u64>,
    /// Keeps in the store how far the watch has come, so that it goes on there when it is opened again.
    pub name: Option<String>,
}

impl From<&str> for WatchOptions {
    fn from(pattern: &str) -> Self {
        Self { pattern: Some(pattern.to_owned()), ..Self::default() }
    }
}

/// A named watch as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedWatch {
    /// Its name.
    pub name: String,
    /// The last version that it is done with.
    pub version: u64,
}

/// A stream of changes; made by [`Scope::watch`]. Clones are the same stream: each change goes to one of them.
///
/// A named watch keeps how far it has come whenever it fetches more, and when it is saved or closed. A change counts as done
/// when the next one is asked for, or at [`Watch::save`]. After a crash the commits since are told again: at least once, never
/// not at all.
#[derive(Clone)]
pub struct Watch(Arc<Stream>);

struct Stream {
    session: Arc<Session>,
    watched: Watched,
    name: Option<String>,
    /// One page at a time is fetched. Held while the database is read, so never by who must not wait.
    fetching: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    buffer: VecDeque<Change>,
    /// The log was read up to here.
    read: Head,
    /// The commit that the consumer is at.
    at: Option<Head>,
    /// The last commit that it is done with.
    done: Head,
    /// What the store keeps of that.
    saved: Head,
    /// It was moved by changes that were taken, not only by those of other keys.
    took: bool,
    /// The stamp before a look at the log that found nothing more.
    seen: u64,
    /// Those who wait for a change without a thread of their own.
    waiters: Vec<(Waiter, Ready)>,
    next_waiter: u64,
    /// Somebody is on the way to answer them.
    filling: bool,
    /// Waits for commits so far.
    fills: u64,
    /// The wait for the next commit, while there is one.
    pulse: Option<u64>,
    closed: bool,
}

/// Names one who waits for a watch; see [`Watch::wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter(u64);

/// Gets told that there is a change, that the watch is closed, or why it cannot go on.
type Ready = Box<dyn FnOnce(Result<()>) + Send>;

impl WatchOptions {
    /// Refuses a pattern or a name that breaks the rules.
    pub(crate) fn checked(self) -> Result<Self> {
        self.parsed()?;
        if let Some(name) = &self.name {
            check_watch_name(name)?;
        }
        Ok(self)
    }

    fn parsed(&self) -> Result<Pattern> {
        self.pattern.as_deref().map_or_else(|| Ok(Pattern::all()), Pattern::parse)
    }
}

impl Scope {
    /// Watches the keys of this scope; those of its children are not part of it.
    ///
    /// # Errors
    /// `Invalid` for a pattern or a name that breaks the rules, or a `since` beyond the newest commit.
    pub fn watch(&self, options: impl Into<WatchOptions>) -> Result<Watch> {
        let store = self.store()?;
        let options = options.into().checked()?;
        let pattern = options.parsed()?;
        let WatchOptions { since, name, .. } = options;
        let kept = name.as_ref().map_or(Ok(None), |name| store.cursor(self.id(), name))?;
        let mut start = match (kept, since) {
            (Some(kept), _) => kept,
            (None, Some(version)) => store.row_of(version)?,
            (None, None) => store.head()?,
        };
        if let (Some(name), None) = (&name, kept) {
            // From now on nothing is missed, even if this process does not live to see a change.
            start = store.add_cursor(self.id(), name, start)?;
        }
        Ok(Watch::new(self, pattern, name, start))
    }

    /// The named watches of this scope, sorted by their names.
    pub fn named_watches(&self) -> Result<Vec<NamedWatch>> {
        let cursors = self.store()?.cursors(self.id())?.into_iter();
        Ok(cursors.map(|c| NamedWatch { name: c.name, version: c.at.version.cast_unsigned() }).collect())
    }

    /// Forgets how far a named watch has come; says whether there was one of this name.
    pub fn forget_watch(&self, name: &str) -> Result<bool> {
        self.store()?.drop_cursor(self.id(), name)
    }
}

impl Watch {
    fn new(scope: &Scope, pattern: Pattern, name: Option<String>, start: Head) -> Self {
        let watched = Watched { scope: scope.id(), pattern };
        let state = State { read: start, done: start, saved: start, ..State::default() };
        let session = Arc::clone(scope.session());
        Self(Arc::new(Stream { session, watched, name, fetching: Mutex::new(()), state: Mutex::new(state) }))
    }

    /// A watch that begins now, where that takes no look at the database.
    pub(crate) fn from_now(scope: &Scope, options: &WatchOptions) -> Result<Option<Self>> {
        let WatchOptions { since: None, name: None, .. } = options else { return Ok(None) };
        let Some(head) = scope.store()?.peek_head() else { return Ok(None) };
        Ok(Some(Self::new(scope, options.parsed()?, None, head)))
    }

    /// The next change, waiting for it as long as it takes; `None` once the watch is closed.
    ///
    /// # Errors
    /// `Closed` when the state is; `NotFound` when changes that are to be told are not in the log any more; after an error the
    /// next call tries again.
    #[allow(clippy::should_implement_trait)] // it takes a shared watch
    pub fn next(&self) -> Result<Option<Change>> {
        self.next_until(None)
    }

    /// The next change, waiting for it at most so long; `None` when there was none.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn next_timeout(&self, most: Duration) -> Result<Option<Change>> {
        self.next_until(Instant::now().checked_add(most))
    }

    fn next_until(&self, deadline: Option<Instant>) -> Result<Option<Change>> {
        let mut waiting = Waiting::new();
        loop {
            self.0.store()?;
            if let Some(change) = self.pop() {
                return Ok(Some(change));
            }
            if self.is_closed() {
                return Ok(None);
            }
            if !self.0.fetch()? && !self.0.wait(deadline, &mut waiting)? {
                return Ok(None);
            }
        }
    }

    /// The next change if it was fetched already. Asks nobody and waits for nobody.
    pub fn pop(&self) -> Option<Change> {
        // [`Watch::ready`] tells why there is nothing.
        self.0.store().ok()?;
        let mut state = self.0.state();
        if state.closed {
            return None;
        }
        state.finish();
        let change = state.buffer.pop_front()?;
        state.at = change.ends_commit.then(|| Head { seq: change.seq, version: change.version.cast_signed() });
        Some(change)
    }

    /// Calls `then`, in another thread or at once, when [`Watch::pop`] has something to give, when the watch was closed, or with
    /// the error that [`Watch::next`] would fail with. Dropping the last watch drops `then` uncalled.
    ///
    /// It stays until then: whoever may give up waiting uses [`Watch::wait`].
    pub fn ready(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        self.wait(then);
    }

    /// [`Watch::ready`] for whoever may give up waiting: what it answers takes the wait back.
    pub fn wait(&self, then: impl FnOnce(Result<()>) + Send + 'static) -> Waiter {
        if let Err(error) = self.0.store() {
            then(Err(error));
            return Waiter(u64::MAX);
        }
        let mut state = self.0.state();
        let waiter = Waiter(state.next_waiter);
        state.next_waiter += 1;
        if state.closed || !state.buffer.is_empty() {
            drop(state);
            then(Ok(()));
            return waiter;
        }
        state.waiters.push((waiter, Box::new(then)));
        let is_filling = std::mem::replace(&mut state.filling, true);
        drop(state);
        if !is_filling {
            Stream::fill(&self.0);
        }
        waiter
    }

    /// Takes back a wait of [`Watch::wait`], if it was not answered before.
    pub fn forget(&self, waiter: Waiter) {
        if self.0.session.check_fork().is_err() {
            return;
        }
        let mut state = self.0.state();
        let place = state.waiters.iter().position(|(other, _)| *other == waiter);
        let forgotten = place.map(|place| state.waiters.swap_remove(place));
        drop(state);
        // What it holds may be the caller's.
        drop(forgotten);
    }

    /// Refuses a state that was closed, and a fork.
    #[cfg(feature = "tokio")]
    pub(crate) fn check(&self) -> Result<()> {
        self.0.store().map(drop)
    }

    /// Whether [`Watch::close`] was called.
    pub fn is_closed(&self) -> bool {
        // In a fork the lock may be held by a thread of the parent, for ever.
        self.0.session.check_fork().is_ok() && self.0.state().closed
    }

    /// The last version that the consumer is done with: all changes of that commit and of those before it were taken; 0 in a
    /// fork of the process that opened the state.
    pub fn version(&self) -> u64 {
        if self.0.session.check_fork().is_err() {
            return 0;
        }
        let state = self.0.state();
        state.at.unwrap_or(state.done).version.cast_unsigned()
    }

    /// The name under which the store keeps how far it has come.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Counts every change that was taken as done and, for a named watch, keeps that in the store.
    ///
    /// Within a commit that is a point between commits: the last whole one.
    pub fn save(&self) -> Result<()> {
        self.0.session.check_fork()?;
        self.0.state().finish();
        self.0.keep()
    }

    /// Ends the stream, for those who wait, too. A named watch keeps that it is done with all commits before the one that
    /// it is at.
    pub fn close(&self) -> Result<()> {
        self.0.session.check_fork()?;
        let (waiters, pulse, was_closed) = {
            let mut state = self.0.state();
            state.buffer.clear();
            (std::mem::take(&mut state.waiters), state.pulse.take(), std::mem::replace(&mut state.closed, true))
        };
        for (_, ready) in waiters {
            ready(Ok(()));
        }
        if let (Some(pulse), Ok(store)) = (pulse, self.0.store()) {
            store.pulse.forget(pulse);
        }
        if was_closed || self.0.session.is_closed() { Ok(()) } else { self.0.keep() }
    }
}

impl Watch {
    /// Fetches what was committed already, as a call that need not be waited for; says whether [`Watch::pop`] has something
    /// to give, or the watch is closed.
    pub fn fetch_call(&self) -> Call<bool> {
        let watch = self.clone();
        Call::work(&self.0.session, move || watch.0.fetch())
    }

    /// [`Watch::save`] as a call that need not be waited for.
    pub fn save_call(&self) -> Call<()> {
        let watch = self.clone();
        Call::work(&self.0.session, move || watch.save())
    }

    /// [`Watch::close`] without waiting: tells `then` how it went, in another thread or at once.
    pub fn close_then(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        let watch = self.clone();
        match self.0.store() {
            Ok(store) if self.0.name.is_some() => store.defer(Box::new(move |_| then(guarded(|| watch.close())))),
            // Nothing is to be kept.
            _ => then(self.close()),
        }
    }
}

impl State {
    /// The consumer is done with the commit that it was at.
    fn finish(&mut self) {
        if let Some(at) = self.at.take() {
            self.done = at;
            self.took = true;
        }
    }
}

impl Stream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Result<&Arc<Store>> {
        self.session.store()
    }

    /// Fetches a page unless there is one; says whether there is a change now, or the watch is closed.
    fn fetch(&self) -> Result<bool> {
        let _alone = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.store()?;
        loop {
            let read = {
                let state = self.state();
                if state.closed || !state.buffer.is_empty() {
                    return Ok(true);
                }
                state.read
            };
            self.keep()?;
            // Before the log: a commit in between wakes too often rather than never.
            let seen = store.stamp();
            let tail = store.tail(&self.watched, read)?;
            let mut state = self.state();
            state.read = tail.reached;
            if sabotaged("watch-skips-a-row") && !tail.is_end {
                state.read.seq += 1;
            }
            if tail.changes.is_empty() && state.at.is_none() {
                // Nothing of these commits was to be told, so nothing of them is left to do.
                state.done = tail.whole.unwrap_or(state.done);
            }
            state.buffer.extend(tail.changes);
            state.seen = seen;
            if tail.is_end && state.buffer.is_empty() {
                return Ok(false);
            }
        }
    }

    /// Keeps how far a named watch has come, if it has come further by what is worth a commit.
    fn keep(&self) -> Result<()> {
        /// Changes of other keys that may be looked at again after a crash.
        const SKIPPED: i64 = 10_000;
        let Some(name) = &self.name else { return Ok(()) };
        let done = {
            let state = self.state();
            if !state.took && state.done.seq - state.saved.seq < SKIPPED {
                return Ok(());
            }
            if sabotaged("save-early") { state.read } else { state.done }
        };
        self.store()?.move_cursor(self.watched.scope, name, done)?;
        let mut state = self.state();
        state.took &= state.done.seq > done.seq;
        state.saved = done;
        Ok(())
    }

    /// Waits for a commit of anybody, or the end of the watch; says whether there was time for that.
    fn wait(&self, deadline: Option<Instant>, waiting: &mut Waiting) -> Result<bool> {
        /// Between looks at whether anybody wants the waiting to end.
        const EVERY: Duration = Duration::from_millis(20);
        let (tell, told) = sync_channel(1);
        let seen = self.state().seen;
        let wake = Box::new(move || {
            let _ = tell.try_send(());
        });
        let pulse = Pulse::wait(self.store()?, seen, wake);
        let outcome = loop {
            let now = Instant::now();
            let left = deadline.map_or(EVERY, |deadline| EVERY.min(deadline.saturating_duration_since(now)));
            if told.recv_timeout(left).is_ok() || self.state().closed {
                break Ok(true);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                break Ok(false);
            }
            if let Err(error) = self.store().map(drop).and_then(|()| waiting.check()) {
                break Err(error);
            }
        };
        if let Ok(store) = self.store() {
            store.pulse.forget(pulse);
        }
        outcome
    }

    /// Has those who wait answered, without waiting here.
    fn fill(this: &Arc<Self>) {
        let stream = Arc::clone(this);
        match this.store() {
            Ok(store) => store.defer(Box::new(move |store| stream.fill_with(store))),
            Err(error) => this.answer(&Err(error)),
        }
    }

    fn fill_with(self: Arc<Self>, store: &Arc<Store>) {
        match guarded(|| self.fetch()) {
            Ok(false) => {
                let (fill, seen) = {
                    let mut state = self.state();
                    state.fills += 1;
                    (state.fills, state.seen)
                };
                let weak = Arc::downgrade(&self);
                let again = Box::new(move || weak.upgrade().iter().for_each(Self::fill));
                let pulse = Pulse::wait(store, seen, again);
                {
                    let mut state = self.state();
                    // Once woken it is of no use, and what woke it may have begun the next wait.
                    if state.fills == fill && state.filling {
                        state.pulse = Some(pulse);
                    }
                }
                // The end of the session wakes those who wait; whoever comes later has to look.
                if let Err(error) = self.store() {
                    store.pulse.forget(pulse);
                    self.answer(&Err(error));
                }
            }
            done => self.answer(&done.map(drop)),
        }
    }

    fn answer(&self, outcome: &Result<()>) {
        let waiters = {
            let mut state = self.state();
            state.filling = false;
            state.pulse = None;
            std::mem::take(&mut state.waiters)
        };
        for (_, ready) in waiters {
            ready(outcome.clone());
        }
    }
}

/// What a watch had not kept is told again.
impl Drop for Stream {
    fn drop(&mut self) {
        let pulse = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).pulse.take();
        if let (Some(pulse), Ok(store)) = (pulse, self.store()) {
            store.pulse.forget(pulse);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("name", &self.0.name).field("version", &self.version()).finish_non_exhaustive()
    }
}

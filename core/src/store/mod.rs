//! The pipeline between handles and an engine: one cache, one queue of commits, one view of what other processes did.

pub(crate) mod apply;
mod audit;
pub(crate) mod cache;
pub(crate) mod codec;
pub(crate) mod commit;
pub(crate) mod delta;
mod doomed;
mod forking;
mod group;
pub(crate) mod lane;
pub(crate) mod past;
pub(crate) mod pulse;
pub(crate) mod request;
pub(crate) mod settings;
pub(crate) mod snapshot;
mod sweep;
pub(crate) mod tail;
mod trim;

use self::cache::Cache;
use self::codec::Packed;
use self::commit::Commits;
use self::lane::{Job, Lane};
use self::pulse::Pulse;
use self::request::{Action, Life, Request, Response};
use self::settings::{Settings, UNKNOWN};
use self::snapshot::{AsOf, Extent, Page};
use self::sweep::Sweeper;
use crate::clock::Steady;
use crate::engine::{Engine, Head, Newest, Range, ScopeId, is_over};
use crate::harness::{self, sabotaged};
use crate::key::{Key, Pattern, ScopeName};
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::{Document, Entry, Error, ErrorKind, Result, StateConfig, fork, limits};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, Weak};

/// An open database with everything that its handles share.
pub(crate) struct Store {
    engine: Box<dyn Engine>,
    config: StateConfig,
    cache: Cache,
    commits: Commits<Self>,
    /// The stamp up to which the cache is known to be true.
    seen: AtomicU64,
    /// The end of the log up to which it is.
    known: Mutex<Head>,
    /// Leads the commits of callers that do not wait.
    writer: Lane,
    /// Reads for them.
    readers: Lane,
    pub(crate) pulse: Pulse,
    sweeper: Sweeper,
    clock: Steady,
    /// What was set for scopes, as of a row of the log.
    settings: Mutex<(Head, Arc<Settings>)>,
    me: OnceLock<Weak<Self>>,
    generation: u64,
}

/// The name of the note that makes all processes go by one clock.
const CLOCK: &str = "clock";

/// What a stored value may decode to: the store may have been written under a larger setting than today's.
const MAX_STORED_BYTES: usize = limits::MAX_VALUE_BYTES_CEILING;

impl Store {
    pub(crate) fn new(engine: Box<dyn Engine>, config: StateConfig) -> Result<Arc<Self>> {
        let clock = settle_clock(&*engine)?;
        let store = Arc::new(Self {
            cache: Cache::new(config.cache_size_mb << 20),
            commits: Commits::default(),
            seen: AtomicU64::new(engine.stamp()),
            known: Mutex::new(Head::default()),
            writer: Lane::new("llmspell-writer", 1),
            readers: Lane::new("llmspell-reader", limits::READER_THREADS),
            pulse: Pulse::new(),
            sweeper: Sweeper::default(),
            clock,
            settings: Mutex::new((UNKNOWN, Arc::default())),
            me: OnceLock::new(),
            generation: fork::generation(),
            engine,
            config,
        });
        let _ = store.me.set(Arc::downgrade(&store));
        let (mut head, mut next_expiry_ms, mut unseen) = (Head::default(), None, 0);
        store.engine.read(&mut |reads| {
            head = reads.head()?;
            next_expiry_ms = reads.next_expiry()?;
            unseen = trim::unseen(reads)?;
            Ok(())
        })?;
        store.sweeper.expect(&Arc::downgrade(&store), next_expiry_ms);
        // Where no process lives long enough for its own turn, the past would never be trimmed.
        if unseen >= limits::TRIM_AT_OPENING {
            store.sweeper.hasten(&Arc::downgrade(&store));
        }
        // The stamp was read before the head: at worst the first read looks at the log's end in vain.
        *store.known() = head;
        Ok(store)
    }

    pub(crate) fn config(&self) -> &StateConfig {
        &self.config
    }

    pub(crate) fn store_id(&self) -> &str {
        self.engine.store_id()
    }

    /// Refuses a process that is a fork of the one that opened the store.
    pub(crate) fn check_fork(&self) -> Result<()> {
        fork::check(self.generation)
    }

    /// Whether this process is a fork of the one that opened the store.
    pub(crate) fn is_forked(&self) -> bool {
        fork::happened_since(self.generation)
    }

    pub(crate) fn close(&self) -> Result<()> {
        self.sweeper.stop();
        self.pulse.stop();
        self.readers.stop();
        self.writer.stop();
        self.engine.close()?;
        self.cache.clear();
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Head> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the cache knows of every commit that was acknowledged to anybody before this call.
    fn refresh(&self) -> Result<()> {
        if sabotaged("stale-cache") {
            return Ok(());
        }
        if self.engine.stamp() == self.seen.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut known = self.known();
        // Read before the log: what is committed in between is looked at twice rather than not at all.
        let stamp = self.engine.stamp();
        if stamp == self.seen.load(Ordering::Acquire) {
            return Ok(());
        }
        self.engine.snapshot(&mut |reads| {
            let head = reads.head()?;
            let mut rows = 0;
            reads.tail(known.seq, &mut |scope, key| {
                self.cache.forget(scope, key);
                rows += 1;
                if rows > limits::TAIL_ROWS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            // Where rows are missing, keys may have gone of which nothing tells any more.
            let has_gap = i64::try_from(rows).unwrap_or(i64::MAX) < head.seq - known.seq;
            if rows > limits::TAIL_ROWS || head.seq < known.seq || has_gap && reads.has_gone(known.seq)? {
                self.cache.clear();
            }
            *known = head;
            Ok(())
        })?;
        self.seen.store(stamp, Ordering::Release);
        Ok(())
    }

    /// A number that differs after every commit of any process.
    pub(crate) fn stamp(&self) -> u64 {
        self.engine.stamp()
    }

    /// The time by which keys expire.
    pub(crate) fn clock_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// An entry, unless its time has run out.
    fn alive(&self, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        entry.filter(|entry| !is_over(entry.expires_ms(), self.clock_ms()) || sabotaged("read-expired"))
    }

    /// The present, as of a row.
    pub(crate) fn as_of(&self, at: Head) -> AsOf {
        AsOf { seq: at.seq, clock_ms: self.clock_ms() }
    }

    /// The newest commit of any process.
    pub(crate) fn head(&self) -> Result<Head> {
        self.refresh()?;
        Ok(*self.known())
    }

    /// The newest commit of any process, if it is known without asking the database.
    pub(crate) fn peek_head(&self) -> Option<Head> {
        // Before the head: whoever has seen a commit acknowledged finds a head that has it.
        let stamp = self.engine.stamp();
        let known = self.known.try_lock().ok()?;
        (self.seen.load(Ordering::Acquire) == stamp).then_some(*known)
    }

    /// The entry of a key as far as the cache can tell; the outer `None` says that it cannot.
    #[allow(clippy::option_option)] // whether it is known, and if so, whether it is there
    pub(crate) fn peek(&self, scope: ScopeId, key: Key<'_>) -> Option<Option<Arc<Entry>>> {
        if self.engine.stamp() != self.seen.load(Ordering::Acquire) {
            return None;
        }
        self.cache.get(scope, key.as_str()).ok().map(|known| self.alive(known))
    }

    /// The entry of a key.
    pub(crate) fn entry(&self, scope: ScopeId, key: Key<'_>) -> Result<Option<Arc<Entry>>> {
        self.refresh()?;
        let key = key.as_str();
        let ticket = match self.cache.get(scope, key) {
            Ok(known) => return Ok(self.alive(known)),
            Err(ticket) => ticket,
        };
        let mut found = None;
        self.engine.read(&mut |reads| {
            found = snapshot::current(reads, scope, key, MAX_STORED_BYTES)?.map(Arc::new);
            Ok(())
        })?;
        self.cache.fill(ticket, scope, key, found.clone());
        Ok(self.alive(found))
    }

    /// The entry of a key when `at` was the newest commit, if the cache knows it.
    ///
    /// A snapshot is a state that this process has known, and a cached entry the newest that it knows of: if it is old
    /// enough, it was the one at the snapshot.
    pub(crate) fn peek_at(&self, scope: ScopeId, key: Key<'_>, at: Head) -> Option<Arc<Entry>> {
        self.alive(self.cache.get(scope, key.as_str()).ok().flatten()).filter(|entry| entry.seq <= at.seq)
    }

    /// The entry of a key at a moment.
    pub(crate) fn entry_at(&self, scope: ScopeId, key: Key<'_>, at: AsOf) -> Result<Option<Arc<Entry>>> {
        let known = self.cache.get(scope, key.as_str()).ok().flatten();
        if let Some(entry) = known.filter(|entry| entry.seq <= at.seq) {
            return Ok(Some(entry).filter(|entry| !is_over(entry.expires_ms(), at.clock_ms)));
        }
        let key = key.as_str();
        let mut found = None;
        self.engine.snapshot(&mut |reads| {
            found = match reads.newest(scope, key)? {
                Some(newest) => snapshot::entry_at(reads, newest, scope, key, at, MAX_STORED_BYTES)?.map(Arc::new),
                None => snapshot::check_reach(reads, scope, at).map(|()| None)?,
            };
            Ok(())
        })?;
        Ok(found)
    }

    /// The entries of several keys, in their order, all of one moment.
    pub(crate) fn entries(&self, scope: ScopeId, keys: &[Key<'_>]) -> Result<Vec<Option<Arc<Entry>>>> {
        if sabotaged("read-two-snapshots") {
            return keys.iter().map(|key| self.entry(scope, *key)).collect();
        }
        self.refresh()?;
        let before = self.seen.load(Ordering::Acquire);
        let cached: Result<Vec<_>, _> = keys.iter().map(|key| self.cache.get(scope, key.as_str())).collect();
        // The cache may have moved on while its shards were asked one after the other; then the database answers.
        if let Ok(found) = cached
            && self.is_unchanged(before)
        {
            return Ok(found.into_iter().map(|entry| self.alive(entry)).collect());
        }
        let mut found = Vec::with_capacity(keys.len());
        self.engine.snapshot(&mut |reads| {
            for key in keys {
                found.push(snapshot::current(reads, scope, key.as_str(), MAX_STORED_BYTES)?.map(Arc::new));
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(|entry| self.alive(entry)).collect())
    }

    /// Whether no commit of anybody has shown since the stamp.
    fn is_unchanged(&self, stamp: u64) -> bool {
        self.engine.stamp() == stamp && self.seen.load(Ordering::Acquire) == stamp
    }

    /// A page of at most `rows` keys at a moment.
    pub(crate) fn keys(&self, range: &Range, pattern: &Pattern, at: AsOf, rows: usize) -> Result<Page<()>> {
        let mut page = None;
        self.engine.snapshot(&mut |reads| {
            page = Some(snapshot::keys(reads, range, pattern, extent(at, rows))?);
            Ok(())
        })?;
        page.ok_or_else(|| Error::closed("the store"))
    }

    /// A page of at most `rows` keys with their entries at a moment.
    pub(crate) fn items(&self, range: &Range, pattern: &Pattern, at: AsOf, rows: usize) -> Result<Page<Arc<Entry>>> {
        let cached = |key: &str, newest: Newest| match self.cache.get(range.scope, key) {
            Ok(Some(entry)) if entry.seq == newest.seq => Some(entry),
            _ => None,
        };
        let mut page = None;
        self.engine.snapshot(&mut |reads| {
            page = Some(snapshot::items(reads, range, pattern, extent(at, rows), &cached)?);
            Ok(())
        })?;
        page.ok_or_else(|| Error::closed("the store"))
    }

    /// How many keys match now.
    pub(crate) fn count(&self, scope: ScopeId, pattern: &Pattern) -> Result<u64> {
        let (mut count, clock_ms) = (0, self.clock_ms());
        self.engine.read(&mut |reads| {
            let range = snapshot::range(scope, pattern);
            if pattern.is_range() {
                count = reads.count(&range, clock_ms)?;
                return Ok(());
            }
            reads.entries(&range, &mut |key, newest| {
                count += u64::from(newest.is_alive(clock_ms) && pattern.matches(key));
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok(count)
    }

    /// The id of a child scope, which is made if need be.
    pub(crate) fn scope(&self, parent: ScopeId, name: ScopeName<'_>) -> Result<ScopeId> {
        if let Some(id) = self.find_scope(parent, name)? {
            return Ok(id);
        }
        let mut id = None;
        self.engine.write(&mut |writes| {
            id = match writes.reads().find_scope(parent, name.as_str())? {
                Some(id) => Some(id),
                None => Some(writes.add_scope(parent, name.as_str())?),
            };
            Ok(())
        })?;
        id.ok_or_else(|| Error::closed("the store"))
    }

    /// The id of a child scope, if there is one.
    pub(crate) fn find_scope(&self, parent: ScopeId, name: ScopeName<'_>) -> Result<Option<ScopeId>> {
        let mut id = None;
        self.engine.read(&mut |reads| {
            id = reads.find_scope(parent, name.as_str())?;
            Ok(())
        })?;
        Ok(id)
    }

    /// The names of the child scopes, sorted.
    pub(crate) fn scopes(&self, parent: ScopeId) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.engine.read(&mut |reads| {
            names = reads.scopes(parent)?;
            Ok(())
        })?;
        Ok(names)
    }

    /// A set of `document`, ready to be submitted: packed by the caller's thread rather than by the writer.
    pub(crate) fn set_action(&self, scope: ScopeId, key: &str, document: Document, life: Life) -> Action {
        let compress = self.config.enable_compression;
        // What the cache has may be old; the row that it tells of stays what it is.
        let before = (compress && delta::is_worth_it(document.text())).then(|| self.cache.get(scope, key).ok());
        let packed = Packed::next(&document, compress, scope, before.flatten().flatten().as_deref());
        Action::Set { document, packed, life }
    }

    /// The planted bug `lost-increment`.
    fn update_outside(&self, request: &mut Request) -> Result<()> {
        for change in &mut request.changes {
            if let request::Change::One { scope, key, action, .. } = change
                && let Action::Update(update) = action
            {
                let current = self.entry(*scope, Key::parse(key)?)?;
                let document =
                    update.apply(current.as_ref().map(|entry| entry.document()), self.config.max_value_bytes)?;
                *action = self.set_action(*scope, key, document, Life::Keep);
            }
        }
        Ok(())
    }

    /// Commits a request together with whatever else waits.
    pub(crate) fn submit(&self, mut request: Request) -> Result<Response> {
        if sabotaged("lost-increment") {
            self.update_outside(&mut request)?;
        }
        self.commits.submit(self, request)
    }

    /// Has a request committed without waiting; `then` is told in another thread.
    pub(crate) fn post(&self, request: Request, then: impl FnOnce(Result<Response>) + Send + 'static) {
        if harness::one_thread() && !self.commits.is_led() {
            then(self.submit(request));
        } else {
            self.commits.post(self, request, Box::new(then));
        }
    }

    /// Has another thread do what may wait for the database. When there is none, this one does.
    pub(crate) fn defer(self: &Arc<Self>, job: Job) {
        let left = if harness::one_thread() { Err(job) } else { Lane::run(|store| &store.readers, self, job) };
        if let Err(job) = left {
            job(self);
        }
    }

    /// Has the thread for commits lead the queue; says whether there is one.
    fn lead_in_background(&self) -> bool {
        let Some(store) = self.me.get().and_then(Weak::upgrade) else { return false };
        Lane::run(|store| &store.writer, &store, Box::new(|store| store.commits.lead(store))).is_ok()
    }
}

/// The clock that every process of this boot goes by for this store. Where it cannot be noted, on a full disk, others may take one
/// that differs by what the machine's clock was set meanwhile.
fn settle_clock(engine: &dyn Engine) -> Result<Steady> {
    let mut note = None;
    engine.read(&mut |reads| {
        note = reads.note(CLOCK)?;
        Ok(())
    })?;
    let clock = Steady::new(note.as_deref());
    let Some(wanted) = clock.note().filter(|wanted| note.as_ref() != Some(wanted)) else { return Ok(clock) };
    let noted = engine.write(&mut |writes| {
        // Another process may have been faster.
        note = writes.reads().note(CLOCK)?;
        let wanted = Steady::new(note.as_deref()).note().unwrap_or_else(|| wanted.clone());
        if note.as_ref() != Some(&wanted) {
            writes.put_note(CLOCK, &wanted)?;
            note = Some(wanted);
        }
        Ok(())
    });
    match noted {
        Err(error) if error.kind() != ErrorKind::DiskFull => Err(error),
        _ => Ok(Steady::new(note.as_deref())),
    }
}

/// A page at a moment.
fn extent(at: AsOf, rows: usize) -> Extent {
    Extent { at, rows, bytes: limits::PAGE_BYTES, max_bytes: MAX_STORED_BYTES }
}

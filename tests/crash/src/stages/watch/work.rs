//! What the Rust processes do: `write STORE NUMBER SEED UNTIL`, or `tell STORE JOURNAL SCOPE PATTERN SINCE NAME SAVE_EVERY EXTRA…`.
//!
//! `-` stands for nothing. A watcher tells in its journal, one line at a time and before it asks for more: `o VERSION` once it
//! watches, `c VERSION KEY OPERATION VALUE OLD ACTOR ENDS_COMMIT` for a change, `s VERSION` when `save` has returned, `e` once
//! it was told the last change. `workers/watch.py` and `workers/watch.lua` do the same. Besides, this one knows `ready` (it is
//! told when there is something instead of waiting), `slow`, and `die=saved:N`, `die=POINT:N`.

use crate::Failure;
use llmspell_state_persistence::harness::{self, Event};
use llmspell_state_persistence::{
    Call, Change, Document, Error, RetentionPolicy, Scope, State, StateConfig, Watch, WatchOptions,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// The value that ends the story.
pub(super) const END: i64 = -1;

/// Settings of a store whose whole log is looked at afterwards.
pub(super) fn keeping(store: impl Into<PathBuf>) -> StateConfig {
    StateConfig { retention: RetentionPolicy::keep_all(), ..StateConfig::at(store) }
}

/// A worker process.
pub fn process(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["write", store, number, seed, until] => Writer::open(store, number, seed)?.write(until.parse()?),
        ["tell", store, journal, scope, pattern, since, name, save_every, ref extra @ ..] => {
            let state = State::with_config(keeping(store))?;
            let scope = if scope == "-" { (*state).clone() } else { state.scope(scope)? };
            let options = WatchOptions {
                pattern: Some(pattern.into()),
                since: Some(since).filter(|since| *since != "-").map(str::parse).transpose()?,
                name: Some(name).filter(|name| *name != "-").map(Into::into),
            };
            tell(&scope.watch(options)?, File::options().append(true).create(true).open(journal)?, save_every, extra)?;
            Ok(state.close()?)
        }
        _ => Err(Failure::new("write or tell")),
    }
}

#[allow(unsafe_code)]
fn die() {
    // SAFETY: plain system calls.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn die_at(point: &str, times: u64) {
    let (point, passed) = (point.to_owned(), AtomicU64::new(0));
    harness::watch(move |event| {
        if matches!(event, Event::Point(name) if *name == point) && passed.fetch_add(1, Ordering::Relaxed) + 1 == times
        {
            die();
        }
        Ok(())
    });
}

fn text(document: Option<&Document>) -> &str {
    document.map_or("-", Document::text)
}

fn line(change: &Change) -> String {
    let Change { version, key, operation, value, old, origin, ends_commit, .. } = change;
    let (value, old, actor) = (text(value.as_ref()), text(old.as_ref()), origin.actor.as_deref().unwrap_or("-"));
    format!("c {version} {key} {} {value} {old} {actor} {}\n", operation.name(), u8::from(*ends_commit))
}

/// The next change, without a thread that waits in the watch.
fn once_ready(watch: &Watch) -> Result<Change, Failure> {
    loop {
        if let Some(change) = watch.pop() {
            return Ok(change);
        }
        let (tell, told) = channel();
        watch.ready(move |outcome| drop(tell.send(outcome)));
        told.recv()??;
    }
}

fn tell(watch: &Watch, mut journal: File, save_every: &str, extra: &[&str]) -> Result<(), Failure> {
    let save_every: u64 = save_every.parse()?;
    let (mut ready, mut slow, mut saves) = (false, false, u64::MAX);
    for word in extra {
        match word.strip_prefix("die=").and_then(|when| when.split_once(':')) {
            Some(("saved", times)) => saves = times.parse()?,
            Some((point, times)) => die_at(point, times.parse()?),
            None => (ready, slow) = (ready || *word == "ready", slow || *word == "slow"),
        }
    }
    journal.write_all(format!("o {}\n", watch.version()).as_bytes())?;
    for count in 1.. {
        let change = if ready {
            once_ready(watch)?
        } else {
            watch.next()?.ok_or_else(|| Failure::new("the watch has ended"))?
        };
        journal.write_all(line(&change).as_bytes())?;
        let over = change.ends_commit && text(change.value.as_ref()) == END.to_string();
        if save_every > 0 && (over || count % save_every == 0) {
            watch.save()?;
            journal.write_all(format!("s {}\n", watch.version()).as_bytes())?;
            if count / save_every == saves {
                die();
            }
        }
        if over {
            journal.write_all(b"e\n")?;
            return Ok(watch.close()?);
        }
        if slow && count % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Calls of one writer that may be under way at a time.
const POSTED: usize = 64;
/// Keys of one commit that do not fit into a page of a watch.
const LARGE: usize = 300;

struct Writer {
    config: StateConfig,
    state: State,
    inner: Scope,
    random: fastrand::Rng,
    /// A part of every value, so that no two are the same.
    number: i64,
    written: i64,
    posted: Arc<Posted>,
}

/// What is known of calls that nobody waits for.
#[derive(Default)]
struct Posted {
    under_way: AtomicUsize,
    failed: AtomicUsize,
    newest: AtomicU64,
}

impl Writer {
    fn open(store: &str, number: &str, seed: &str) -> Result<Self, Failure> {
        let config = StateConfig {
            actor: Some(format!("w{number}")),
            enable_compression: false,
            cache_size_mb: 1,
            ..keeping(store)
        };
        let state = State::with_config(config.clone())?;
        let inner = state.scope("in")?;
        let random = fastrand::Rng::with_seed(seed.parse()?);
        Ok(Self { config, state, inner, random, number: number.parse()?, written: 0, posted: Arc::default() })
    }

    fn value(&mut self) -> Value {
        self.written += 1;
        let number = (self.number << 32) + self.written;
        if self.random.u8(..8) == 0 {
            json!(format!("x{number}").repeat(self.random.usize(1..40)))
        } else {
            json!(number)
        }
    }

    fn key(&mut self) -> String {
        format!("{}{}", self.random.choice(['a', 'b', 'c']).unwrap_or('a'), self.random.u8(..6))
    }

    fn pairs(&mut self, count: usize) -> Vec<(String, Value)> {
        let keys: BTreeSet<String> = (0..count).map(|_| self.key()).collect();
        keys.into_iter().map(|key| (key, self.value())).collect()
    }

    /// Has a call made without waiting for it.
    fn post(&self, call: Call<u64>) {
        let posted = Arc::clone(&self.posted);
        posted.under_way.fetch_add(1, Ordering::Relaxed);
        call.then(move |version| {
            match version {
                Ok(version) => drop(posted.newest.fetch_max(version, Ordering::Relaxed)),
                Err(_) => drop(posted.failed.fetch_add(1, Ordering::Relaxed)),
            }
            posted.under_way.fetch_sub(1, Ordering::Release);
        });
    }

    /// Writes until the store has that version.
    fn write(&mut self, until: u64) -> Result<(), Failure> {
        let mut version = 0;
        while version < until {
            let scope = if self.random.u8(..3) == 0 { self.inner.clone() } else { (*self.state).clone() };
            let key = self.key();
            match self.random.u16(..1_000) {
                0..400 => version = scope.set(&key, self.value())?,
                400..520 => {
                    let count = self.random.usize(2..6);
                    version = scope.set_many(self.pairs(count))?;
                }
                520..640 => {
                    let (first, second, gone) = (self.value(), self.value(), self.key());
                    version = self.both(&key, &gone, &first, &second)?;
                }
                640..720 => drop(scope.delete(&key)?),
                720..730 => drop(scope.clear(["b*", "c*"][self.random.usize(0..2)])?),
                730..780 => drop(scope.increment("a.n", 1)?),
                780..985 => {
                    while self.posted.under_way.load(Ordering::Acquire) >= POSTED {
                        std::thread::yield_now();
                    }
                    let value = self.value();
                    self.post(scope.calls().set(&key, value)?);
                    version = self.posted.newest.load(Ordering::Relaxed);
                }
                985..988 => {
                    let pairs: Vec<_> = (0..LARGE).map(|place| (format!("a.{place:03}"), self.value())).collect();
                    version = scope.set_many(pairs)?;
                }
                _ => self.reopen()?,
            }
        }
        self.end()
    }

    /// Changes both scopes in one commit.
    fn both(&self, key: &str, gone: &str, first: &Value, second: &Value) -> Result<u64, Error> {
        let root = self.state.transaction()?;
        let inner = root.scope("in")?;
        root.set(key, first)?;
        inner.set(key, second)?;
        match inner.delete(gone).and_then(|_| root.commit()) {
            // Somebody else was faster.
            Err(error) if error.kind() == llmspell_state_persistence::ErrorKind::Conflict => Ok(0),
            done => done,
        }
    }

    /// Closes the store with calls under way: each of them was made, or told that it was not.
    fn end(&self) -> Result<(), Failure> {
        self.state.close()?;
        let (left, failed) =
            (self.posted.under_way.load(Ordering::Acquire), self.posted.failed.load(Ordering::Acquire));
        crate::hold!(left == 0 && failed == 0, "closing left {left} calls without an answer; {failed} failed");
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        self.end()?;
        self.state = State::with_config(self.config.clone())?;
        self.inner = self.state.scope("in")?;
        Ok(())
    }
}

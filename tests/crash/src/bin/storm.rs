//! The Rust worker of the storm; `workers/storm.py` tells what it reads and says. Besides, it knows `die POINT N` (kill this
//! process at the Nth passing of a named point) and `posts N` (make calls without waiting for them, at most N at a time), and
//! works with one thread for each slot.

use llmspell_state_persistence::harness::{self, Event};
use llmspell_state_persistence::{
    Document, Error, Number, Result, RetentionPolicy, Scope, State, StateConfig, WatchOptions,
};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One write a line: what was told before the process dies is told whole.
fn say(line: &str) {
    // Without a listener there is nothing to do but to go on until killed.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn filled(tag: &str, size: &str) -> Value {
    let size = size.parse().unwrap_or(0);
    let squares = (0_u64..).flat_map(|n| (n * n).to_string().into_bytes()).map(char::from);
    let pad: String =
        if size < 4_000 { tag.chars().cycle().take(size).collect() } else { squares.take(size).collect() };
    json!({"tag": tag, "pad": pad})
}

#[allow(unsafe_code)]
fn die() {
    // SAFETY: plain system calls.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// The name of an event: a point's own, or what is done past SQLite.
fn name_of(event: &Event<'_>) -> &'static str {
    match event {
        Event::Point(name) => name,
        Event::Write { .. } => "file.write",
        _ => "file.change",
    }
}

fn die_at(point: &str, times: u64) {
    let (point, passed) = (point.to_owned(), AtomicU64::new(0));
    harness::watch(move |event| {
        if name_of(event) == point && passed.fetch_add(1, Ordering::Relaxed) + 1 == times {
            die();
        }
        Ok(())
    });
}

/// The same file through plain system calls: closing it drops every lock that SQLite holds on it in this process.
fn peek(path: &str) {
    for suffix in ["", "-wal", "-shm"] {
        drop(std::fs::read(format!("{path}{suffix}")));
    }
}

/// Changes that a watch takes at a time.
const FOLLOWED: usize = 40;

struct Worker {
    state: State,
    config: StateConfig,
    posts: Posts,
}

/// The calls of one slot that nobody waits for.
#[derive(Clone)]
struct Posts {
    most: usize,
    under_way: Arc<(Mutex<usize>, Condvar)>,
    made: Arc<AtomicUsize>,
}

impl Posts {
    fn new(most: usize) -> Self {
        Self { most, under_way: Arc::default(), made: Arc::default() }
    }

    /// Waits until there are fewer than so many, or none.
    fn wait(&self, most: usize) {
        let under_way = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |under_way: &mut usize| *under_way > 0 && *under_way >= most;
        drop(self.under_way.1.wait_while(under_way, full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the next operation is to be posted; some are not, so that both kinds come together.
    fn is_next(&self) -> bool {
        self.most > 0 && self.made.fetch_add(1, Ordering::Relaxed) % 4 != 3
    }

    /// What says the answer of a slot.
    fn tell(&self, slot: &str) -> Tell {
        let (posts, slot) = (self.clone(), slot.to_owned());
        *posts.under_way.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Box::new(move |answer| {
            match answer {
                Ok(answer) => say(&format!("k {slot} {answer}")),
                Err(error) => say(&failure(&error)),
            }
            *posts.under_way.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            posts.under_way.1.notify_all();
        })
    }

    /// After closing everybody has been answered.
    fn check(&self) -> Result<()> {
        let left = *self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        if left == 0 { Ok(()) } else { Err(Error::invalid(format!("closing left {left} calls without an answer"))) }
    }
}

type Tell = Box<dyn FnOnce(Result<String>) + Send>;

fn failure(error: &Error) -> String {
    format!("x {}: {}", error.kind(), error.message().replace('\n', " "))
}

/// Does one operation, or has it done, telling before and after.
fn step(state: &State, posts: &Posts, slot: &str, operation: &str, words: &[&str]) -> Result<()> {
    // Where a watch is kept does not stand in the queue of commits, and would be told before those that do.
    posts.wait(if operation == "follow" { 0 } else { posts.most });
    say(&format!("a {slot}"));
    let name = format!("s{slot}");
    if !posts.is_next() || !can_post(operation) {
        say(&format!("k {slot} {}", operate(state, &name, operation, words)?));
        return Ok(());
    }
    post(state, &name, operation, words, posts.tell(slot))
}

fn can_post(operation: &str) -> bool {
    ["set", "many", "trim", "increment", "append", "merge", "delete", "clear", "child"].contains(&operation)
}

/// Has an operation done, of those that need no answer on the way.
fn post(state: &State, name: &str, operation: &str, words: &[&str], tell: Tell) -> Result<()> {
    let own: Scope = state.scope(name)?;
    let shared = state.scope("shared")?;
    match (operation, words) {
        ("set", [key, tag, size]) => own.calls().set(key, filled(tag, size))?.then(|told| tell(told.map(int))),
        ("many", [tag, size, keys @ ..]) => {
            let pairs = keys.iter().map(|key| (key, filled(tag, size)));
            own.calls().set_many(pairs)?.then(|told| tell(told.map(int)));
        }
        ("trim", [key, tag]) => {
            let root = state.transaction()?;
            root.scope("shared")?.set("list", json!([]))?;
            root.scope(name)?.set(key, filled(tag, "0"))?;
            root.commit_call()?.then(|told| tell(told.map(|_| "-".into())));
        }
        ("increment", [by]) => {
            let by = by.parse::<i64>().unwrap_or(0);
            shared.calls().increment("counter", by)?.then(|told| tell(told.map(number)));
        }
        ("append", [tag]) => shared.calls().append("list", json!(tag))?.then(|told| tell(told.map(int))),
        ("merge", [member, tag]) => {
            let patch = Value::Object(Map::from_iter([((*member).to_owned(), json!(tag))]));
            shared.calls().merge("merged", patch)?.then(|told| tell(told.map(|_| "-".into())));
        }
        ("delete", [key]) => own.calls().delete(key)?.then(|told| tell(told.map(|there| int(u8::from(there))))),
        ("clear", [pattern]) => own.calls().clear(pattern)?.then(|told| tell(told.map(int))),
        ("child", [child, key, tag]) => {
            own.scope(child)?.calls().set(key, filled(tag, "0"))?.then(|told| tell(told.map(int)));
        }
        _ => tell(Ok(format!("what is {operation} {words:?}?"))),
    }
    Ok(())
}

fn int(number: impl std::fmt::Display) -> String {
    number.to_string()
}

fn number(number: Number) -> String {
    match number {
        Number::Int(number) => number.to_string(),
        Number::Float(number) => number.to_string(),
    }
}

impl Worker {
    fn open(config: StateConfig, posts: Posts) -> Result<Self> {
        Ok(Self { state: State::with_config(config.clone())?, config, posts })
    }

    fn run(&mut self, slot: &str, operation: &str, words: &[&str]) -> Result<()> {
        if operation != "reopen" {
            return step(&self.state, &self.posts, slot, operation, words);
        }
        // With calls under way: each of them is made.
        say(&format!("a {slot}"));
        self.state.close()?;
        self.posts.check()?;
        self.state = State::with_config(self.config.clone())?;
        say(&format!("k {slot} -"));
        Ok(())
    }
}

fn operate(state: &State, name: &str, operation: &str, words: &[&str]) -> Result<String> {
    let own: Scope = state.scope(name)?;
    let shared = || state.scope("shared");
    Ok(match (operation, words) {
        ("set", [key, tag, size]) => int(own.set(key, filled(tag, size))?),
        ("many", [tag, size, keys @ ..]) => int(own.set_many(keys.iter().map(|key| (key, filled(tag, size))))?),
        ("both", [tag, size, first, second, gone, by]) => state.transact(|root| {
            let mine = root.scope(name)?;
            mine.set(first, filled(tag, size))?;
            mine.delete(gone)?;
            let count = root.scope("shared")?.increment("counter", by.parse::<i64>().unwrap_or(0))?;
            mine.set(second, filled(tag, size))?;
            Ok(number(count))
        })?,
        ("trim", [key, tag]) => {
            let root = state.transaction()?;
            root.scope("shared")?.set("list", json!([]))?;
            root.scope(name)?.set(key, filled(tag, "0"))?;
            root.commit()?;
            "-".into()
        }
        ("modify", [tag]) => {
            let entry = shared()?.modify("modified", |old| -> Result<Document> {
                let n = old.and_then(|old| old.value()["n"].as_i64()).unwrap_or(0) + 1;
                Document::from_value(&json!({"tag": tag, "n": n}), usize::MAX)
            })?;
            entry.value()["n"].to_string()
        }
        ("increment", [by]) => number(shared()?.increment("counter", by.parse::<i64>().unwrap_or(0))?),
        ("append", [tag]) => int(shared()?.append("list", json!(tag))?),
        ("merge", [member, tag]) => {
            shared()?.merge("merged", Value::Object(Map::from_iter([((*member).to_owned(), json!(tag))])))?;
            "-".into()
        }
        ("delete", [key]) => int(u8::from(own.delete(key)?)),
        ("clear", [pattern]) => int(own.clear(pattern)?),
        ("child", [child, key, tag]) => int(own.scope(child)?.set(key, filled(tag, "0"))?),
        ("follow", []) => {
            let watch = own.watch(WatchOptions { since: Some(0), name: Some("w".into()), pattern: None })?;
            for _ in 0..FOLLOWED {
                if watch.next_timeout(Duration::ZERO)?.is_none() {
                    break;
                }
            }
            watch.save()?;
            int(own.named_watches()?.first().map_or(0, |watch| watch.version))
        }
        _ => format!("what is {operation} {words:?}?"),
    })
}

/// `NAME=VALUE` as a setting.
fn setting(pair: &str) -> Option<(String, Value)> {
    let (name, value) = pair.split_once('=')?;
    Some((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

type Line<'s> = (&'s str, &'s str, Vec<&'s str>);

fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?, words.collect()))
}

fn work(script: &str) -> Result<()> {
    let (mut settings, mut path, mut every, mut most) = (Map::new(), "", 0, 0);
    let mut operations = Vec::new();
    for line in script.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["open", file, ref pairs @ ..] => {
                path = file;
                settings.extend(pairs.iter().filter_map(|pair| setting(pair)));
            }
            ["peek", number] => every = number.parse().unwrap_or(0),
            ["posts", number] => most = number.parse().unwrap_or(0),
            ["die", point, times] => die_at(point, times.parse().unwrap_or(1)),
            _ => operations.extend(parse(line)),
        }
    }
    settings.insert("persistence_path".into(), path.into());
    // The whole log is looked at afterwards.
    let config = StateConfig { retention: RetentionPolicy::keep_all(), ..StateConfig::from_options(settings)? };
    let mut worker = Worker::open(config, Posts::new(most))?;
    say("o");
    let mut slots: Vec<&str> = operations.iter().map(|(slot, ..)| *slot).collect();
    slots.sort_unstable();
    slots.dedup();
    if slots.len() < 2 {
        for (number, (slot, operation, words)) in operations.iter().enumerate() {
            if every > 0 && number % every == 0 {
                // Also in the middle of a commit of this process, whose locks that takes away.
                peek(path);
            }
            worker.run(slot, operation, words)?;
        }
        worker.state.close()?;
        worker.posts.check()?;
    } else {
        let (state, operations) = (&worker.state, &operations);
        let posts: Vec<Posts> = slots.iter().map(|_| Posts::new(most)).collect();
        std::thread::scope(|threads| {
            let each = |(own, posts)| {
                threads.spawn(move || -> Result<()> {
                    for (slot, operation, words) in operations.iter().filter(|(slot, ..)| *slot == own) {
                        step(state, posts, slot, operation, words)?;
                    }
                    Ok(())
                })
            };
            let running: Vec<_> = slots.into_iter().zip(&posts).map(each).collect();
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
        worker.state.close()?;
        posts.iter().try_for_each(Posts::check)?;
    }
    say("e");
    Ok(())
}

fn main() -> ExitCode {
    let script = std::fs::read_to_string(std::env::args().nth(1).unwrap_or_default()).unwrap_or_default();
    match work(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&failure(&error));
            ExitCode::FAILURE
        }
    }
}

//! The Rust worker of the storm; `workers/storm.py` tells what it reads and says. Besides, it knows `die POINT N` (kill this
//! process at the Nth passing of a named point), and works with one thread for each slot.

use llmspell_state_persistence::harness::{self, Event};
use llmspell_state_persistence::{Document, Number, Result, Scope, State, StateConfig};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// One write a line: what was told before the process dies is told whole.
fn say(line: &str) {
    // Without a listener there is nothing to do but to go on until killed.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn filled(tag: &str, size: &str) -> Value {
    let size = size.parse().unwrap_or(0);
    let pad: String = tag.chars().cycle().take(size).collect();
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

struct Worker {
    state: State,
    config: StateConfig,
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
    fn open(config: StateConfig) -> Result<Self> {
        Ok(Self { state: State::with_config(config.clone())?, config })
    }

    fn run(&mut self, slot: &str, operation: &str, words: &[&str]) -> Result<String> {
        if operation == "reopen" {
            self.state.close()?;
            self.state = State::with_config(self.config.clone())?;
            return Ok("-".into());
        }
        operate(&self.state, &format!("s{slot}"), operation, words)
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
    let (mut settings, mut path, mut every) = (Map::new(), "", 0);
    let mut operations = Vec::new();
    for line in script.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["open", file, ref pairs @ ..] => {
                path = file;
                settings.extend(pairs.iter().filter_map(|pair| setting(pair)));
            }
            ["peek", number] => every = number.parse().unwrap_or(0),
            ["die", point, times] => die_at(point, times.parse().unwrap_or(1)),
            _ => operations.extend(parse(line)),
        }
    }
    settings.insert("persistence_path".into(), path.into());
    let mut worker = Worker::open(StateConfig::from_options(settings)?)?;
    say("o");
    let mut slots: Vec<&str> = operations.iter().map(|(slot, ..)| *slot).collect();
    slots.sort_unstable();
    slots.dedup();
    if slots.len() < 2 {
        for (number, (slot, operation, words)) in operations.iter().enumerate() {
            if every > 0 && number % every == 0 {
                peek(path);
            }
            say(&format!("a {slot}"));
            say(&format!("k {slot} {}", worker.run(slot, operation, words)?));
        }
    } else {
        let (state, operations) = (&worker.state, &operations);
        std::thread::scope(|threads| {
            let each = |own| {
                threads.spawn(move || -> Result<()> {
                    for (slot, operation, words) in operations.iter().filter(|(slot, ..)| *slot == own) {
                        say(&format!("a {slot}"));
                        say(&format!("k {slot} {}", operate(state, &format!("s{slot}"), operation, words)?));
                    }
                    Ok(())
                })
            };
            let running: Vec<_> = slots.into_iter().map(each).collect();
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })?;
    }
    worker.state.close()?;
    say("e");
    Ok(())
}

fn main() -> ExitCode {
    let script = std::fs::read_to_string(std::env::args().nth(1).unwrap_or_default()).unwrap_or_default();
    match work(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("x {}: {}", error.kind(), error.message().replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

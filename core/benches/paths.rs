//! The core's hot paths: reads with and without the cache, lone and grouped commits, values that grow, listing, the value codec.

#![allow(missing_docs)] // what `criterion_group!` makes

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use llmspell_state_persistence::{Document, Select, State, StateConfig, SyncMode};
use serde_json::{Value, json};
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KEYS: usize = 10_000;
const LONGEST: usize = 1 << 20;

fn small() -> Value {
    json!({"name": "Alice", "score": 100})
}

/// About ten kilobytes of a conversation.
fn large() -> Value {
    let message = |number: u32| {
        json!({"role": "assistant", "text": "the plan is to look at the memory of the last run ".repeat(5),
               "score": 0.1 * f64::from(number), "tokens": number, "final": false, "parent": null, "tags": ["plan", "memory"]})
    };
    json!({"id": 1, "messages": (0..28).map(message).collect::<Vec<_>>()})
}

fn key(number: usize) -> String {
    format!("k{number:07}")
}

/// A store of [`KEYS`] small values in a fresh folder, which must outlive it.
fn store(config: &StateConfig) -> (TempDir, State) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = Some(folder.path().join("bench.db"));
    let state = State::with_config(StateConfig { persistence_path: path, ..config.clone() });
    let state = state.expect("a store");
    state.set_many((0..KEYS).map(|number| (key(number), small()))).expect("values");
    (folder, state)
}

fn normal() -> StateConfig {
    StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::default() }
}

fn reads(c: &mut Criterion) {
    let (_folder, cached) = store(&normal());
    cached.entry("k0000042").expect("a value");
    c.bench_function("read/cached", |b| b.iter(|| cached.entry(black_box("k0000042")).expect("a value")));
    c.bench_function("read/cached, missing", |b| b.iter(|| cached.entry(black_box("nobody")).expect("an answer")));

    let (_folder, uncached) = store(&StateConfig { cache_size_mb: 0, ..normal() });
    let mut number = 0;
    c.bench_function("read/not cached", |b| {
        b.iter(|| {
            number = (number + 7919) % KEYS;
            uncached.entry(&key(number)).expect("a value")
        });
    });

    let mut page = c.benchmark_group("list");
    page.throughput(Throughput::Elements(1000));
    let select = || Select { limit: Some(1000), ..Select::from("k0001*") };
    page.bench_function("1,000 keys", |b| b.iter(|| cached.keys(select()).expect("keys").count()));
    page.bench_function("1,000 items", |b| b.iter(|| cached.items(select()).expect("items").count()));
    page.finish();
}

fn lone_writes(c: &mut Criterion) {
    for (name, sync_mode) in [("set/alone, NORMAL", SyncMode::Normal), ("set/alone, FULL", SyncMode::Full)] {
        let (_folder, state) = store(&StateConfig { sync_mode, ..StateConfig::default() });
        let mut number = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                number += 1;
                state.set(&key(number % KEYS), i64::try_from(number).expect("small")).expect("a version")
            });
        });
    }
}

/// Sets by `threads` threads that each wait for their acknowledgement; the time is the whole run's.
fn together(state: &State, threads: u64, iterations: u64) -> Duration {
    let each = iterations.div_ceil(threads);
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for turn in 0..each {
                    let number = thread * each + turn;
                    let key = key(usize::try_from(number).expect("small") % KEYS);
                    state.set(&key, i64::try_from(number).expect("small")).expect("a version");
                }
            });
        }
    });
    start.elapsed()
}

fn grouped_writes(c: &mut Criterion) {
    for (name, sync_mode) in [("set/64 threads, NORMAL", SyncMode::Normal), ("set/64 threads, FULL", SyncMode::Full)] {
        let (_folder, state) = store(&StateConfig { sync_mode, ..StateConfig::default() });
        c.bench_function(name, |b| b.iter_custom(|iterations| together(&state, 64, iterations)));
    }
}

fn transactions(c: &mut Criterion) {
    let (_folder, state) = store(&normal());
    c.bench_function("transact/read two, write two, NORMAL", |b| {
        b.iter(|| {
            state
                .transact(|tx| {
                    for key in ["k0000001", "k0000002"] {
                        let before = tx.get(key)?.unwrap_or_default();
                        let score = before["score"].as_i64().unwrap_or_default();
                        tx.set(key, json!({"name": "Alice", "score": score + 1}))?;
                    }
                    Ok(())
                })
                .expect("a commit");
        });
    });
    c.bench_function("increment/NORMAL", |b| b.iter(|| state.increment("n", 1).expect("a number")));
}

/// Words that no other message has, most of them.
fn message(random: &mut fastrand::Rng) -> Value {
    let syllables = ["ka", "lo", "mi", "ren", "tas", "u", "vel", "or", "en", "di", "sha", "per"];
    let mut word =
        || (0..random.usize(1..5)).map(|_| syllables[random.usize(0..syllables.len())]).collect::<Vec<_>>().concat();
    json!({"role": "assistant", "content": (0..30).map(|_| word()).collect::<Vec<_>>().join(" ")})
}

fn document(value: &[Value]) -> Document {
    Document::from_value(&json!(value), LONGEST).expect("a document")
}

/// Large values that share nothing with the one before, and some that are the one before with one message more.
fn large_values(c: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    let messages: Vec<Value> = (0..700).map(|_| message(&mut random)).collect();
    let random: Vec<_> = (0..16).map(|n| document(&messages[n * 40..(n + 1) * 40])).collect();
    let growing: Vec<_> = (450..550).map(|turns| document(&messages[..turns])).collect();
    for (name, documents) in [("10 KB, random", random), ("100 KB, growing", growing)] {
        let (folder, state) = store(&normal());
        let mut next = documents.iter().cycle();
        c.bench_function(&format!("set/{name}"), |b| {
            let set = |document: Document| state.set("chat", document).expect("a version");
            b.iter_batched(|| next.next().expect("endless").clone(), set, BatchSize::SmallInput);
        });
        state.close().expect("closed");
        let path = Some(folder.path().join("bench.db"));
        let config = StateConfig { persistence_path: path, cache_size_mb: 0, ..normal() };
        let state = State::with_config(config).expect("a store");
        c.bench_function(&format!("read/not cached, {name}"), |b| b.iter(|| state.entry("chat").expect("a value")));
        c.bench_function(&format!("history/10 of {name}"), |b| {
            b.iter(|| state.history("chat", Some(10)).expect("a history"));
        });
    }
}

fn codec(c: &mut Criterion) {
    for (name, value) in [("small", small()), ("10 KB", large())] {
        let document = Document::from_value(&value, LONGEST).expect("a document");
        let mut group = c.benchmark_group(format!("codec/{name}"));
        group.throughput(Throughput::Bytes(document.text().len() as u64));
        group.bench_function("write", |b| b.iter(|| Document::from_value(black_box(&value), LONGEST)));
        group.bench_function("read", |b| {
            let parse = |fresh: Document| {
                fresh.tape().expect("canonical text");
                fresh
            };
            b.iter_batched(|| document.clone(), parse, BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(paths, reads, lone_writes, grouped_writes, transactions, large_values, codec);
criterion_main!(paths);

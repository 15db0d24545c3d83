//! Sound stores of every shape, with what each held after every commit.

use crate::Failure;
use fastrand::Rng;
use llmspell_state_persistence::{RetentionPolicy, State, StateConfig, WatchOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that a store holds, by scope (the root has the empty name) and key.
pub(super) type Contents = BTreeMap<(&'static str, String), Value>;

/// A named watch of the root.
pub(super) const WATCH: &str = "indexer";

/// The scopes of these stores.
pub(super) const SCOPES: [&str; 3] = ["", "inner", "other"];

/// A store's files as a killed process leaves them, or as a closed store is.
pub(super) struct Base {
    /// Where the files are; the store is called `store.db`.
    pub(super) dir: PathBuf,
    pub(super) config: StateConfig,
    /// By version, the first being 0; what is stored after it.
    pub(super) history: Vec<Contents>,
    /// The version up to which the watch [`WATCH`] is kept.
    pub(super) kept: u64,
    /// What a failure calls it.
    pub(super) name: &'static str,
}

impl Base {
    /// What it holds now.
    pub(super) fn now(&self) -> &Contents {
        // The history is never empty: it begins with the empty store.
        &self.history[self.history.len() - 1]
    }
}

/// How large a store is, and how it was left.
struct Shape {
    name: &'static str,
    commits: usize,
    /// Different keys of a scope.
    keys: usize,
    /// Longest text of a value.
    text: usize,
    /// Keys that are set in the first commit.
    bulk: usize,
    left: Left,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Everything is in the log.
    InLog,
    /// Some is in the database, and what came after it in the log.
    InBoth,
    /// Everything is in the database.
    Closed,
    /// Closed, in exclusive use without a write-ahead log.
    Journal,
}

const SHAPES: [Shape; 8] = [
    Shape { name: "small, in the log", commits: 12, keys: 6, text: 40, bulk: 0, left: Left::InLog },
    Shape { name: "small, closed", commits: 12, keys: 6, text: 40, bulk: 0, left: Left::Closed },
    Shape { name: "many changes, in both", commits: 60, keys: 10, text: 300, bulk: 0, left: Left::InBoth },
    Shape { name: "many changes, closed", commits: 60, keys: 10, text: 300, bulk: 0, left: Left::Closed },
    Shape { name: "long values, in the log", commits: 14, keys: 5, text: 30_000, bulk: 0, left: Left::InLog },
    Shape { name: "long values, closed", commits: 14, keys: 5, text: 30_000, bulk: 0, left: Left::Closed },
    Shape { name: "many keys, in both", commits: 20, keys: 300, text: 60, bulk: 400, left: Left::InBoth },
    Shape { name: "many keys, journal", commits: 20, keys: 300, text: 60, bulk: 400, left: Left::Journal },
];

/// Makes all of them below `dir`.
pub(super) fn make(dir: &Path, random: &mut Rng) -> Result<Vec<Base>, Failure> {
    SHAPES.iter().enumerate().map(|(number, shape)| base(&dir.join(format!("base{number}")), shape, random)).collect()
}

fn value(random: &mut Rng, longest: usize) -> Value {
    let length = random.usize(0..=longest);
    // Half of the long ones do not compress.
    let text: String = if random.bool() {
        "state ".chars().cycle().take(length).collect()
    } else {
        std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
    };
    json!({"n": random.u32(..), "text": text})
}

fn base(dir: &Path, shape: &Shape, random: &mut Rng) -> Result<Base, Failure> {
    let made = dir.join("made");
    fs::create_dir_all(&made)?;
    let config = StateConfig {
        exclusive: shape.left == Left::Journal,
        enable_wal: shape.left != Left::Journal,
        retention: RetentionPolicy::keep_all(),
        ..StateConfig::at(made.join("store.db"))
    };
    let mut state = State::with_config(config.clone())?;
    let mut contents = Contents::new();
    let mut history = vec![contents.clone()];
    let mut kept = follow(&state)?;
    for commit in 0..shape.commits {
        if commit == shape.commits / 2 && shape.left == Left::InBoth {
            state.close()?;
            state = State::with_config(config.clone())?;
        }
        if commit == shape.commits / 2 {
            kept = follow(&state)?;
        }
        let bulk = if commit == 0 { shape.bulk } else { 0 };
        change(&state, shape, bulk, &mut contents, random)?;
        let version = usize::try_from(state.version()?)?;
        // A deletion of nothing is no commit.
        history.truncate(version);
        history.push(contents.clone());
    }
    if matches!(shape.left, Left::Closed | Left::Journal) {
        state.close()?;
    }
    let files = dir.join("files");
    copy(&made, &files)?;
    state.close()?;
    fs::remove_dir_all(&made)?;
    Ok(Base { dir: files, config, history, kept, name: shape.name })
}

/// Has the watch take everything, and answers up to where that is kept.
fn follow(state: &State) -> Result<u64, Failure> {
    let watch = state.watch(WatchOptions { name: Some(WATCH.into()), ..WatchOptions::default() })?;
    while watch.next_timeout(Duration::ZERO)?.is_some() {}
    watch.save()?;
    Ok(state.named_watches()?.first().map_or(0, |watch| watch.version))
}

/// One commit.
fn change(state: &State, shape: &Shape, bulk: usize, contents: &mut Contents, random: &mut Rng) -> Result<(), Failure> {
    let name = random.choice(SCOPES).unwrap_or_default();
    let scope = if name.is_empty() { (**state).clone() } else { state.scope(name)? };
    let key = |random: &mut Rng| format!("key{:03}", random.usize(0..shape.keys));
    let count = if bulk > 0 { bulk } else { random.usize(1..4) };
    if bulk == 0 && random.u32(0..4) == 0 {
        let key = key(random);
        scope.delete(&key)?;
        contents.remove(&(name, key));
        return Ok(());
    }
    let pairs: BTreeMap<String, Value> = (0..count).map(|_| (key(random), value(random, shape.text))).collect();
    scope.set_many(pairs.clone())?;
    contents.extend(pairs.into_iter().map(|(key, value)| ((name, key), value)));
    Ok(())
}

/// Copies the files of a store.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

//! What the writer does before the power is cut, and a model of what the store then holds.

use llmspell_state_persistence::{Error, Scope, State, StateConfig, SyncMode, WatchOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flavour {
    pub(super) name: &'static str,
    pub(super) sync_mode: SyncMode,
    pub(super) exclusive: bool,
    pub(super) wal: bool,
}

const fn flavour(name: &'static str, sync_mode: SyncMode, exclusive: bool, wal: bool) -> Flavour {
    Flavour { name, sync_mode, exclusive, wal }
}

/// One after the other; the default is there twice.
pub(super) const FLAVOURS: &[Flavour] = &[
    flavour("shared, FULL", SyncMode::Full, false, true),
    flavour("exclusive, FULL", SyncMode::Full, true, true),
    flavour("rollback journal, FULL", SyncMode::Full, true, false),
    flavour("shared, NORMAL", SyncMode::Normal, false, true),
    flavour("shared, FULL", SyncMode::Full, false, true),
    flavour("exclusive, NORMAL", SyncMode::Normal, true, true),
];

impl Flavour {
    pub(super) fn config(self, path: &Path) -> StateConfig {
        StateConfig {
            sync_mode: self.sync_mode,
            exclusive: self.exclusive,
            enable_wal: self.wal,
            cache_size_mb: 1,
            ..StateConfig::at(path)
        }
    }

    /// Whether every acknowledged commit survives a power cut.
    pub(super) fn keeps_all(self) -> bool {
        self.sync_mode == SyncMode::Full
    }
}

/// A value's text and the version that wrote it.
pub(super) type Stored = (Arc<str>, u64);
/// Every scope that exists, by its path, with what it holds. A named watch of it is there as if it were a key, with the version up
/// to which it is kept.
pub(super) type Model = BTreeMap<String, BTreeMap<String, Stored>>;

/// One step of the writer.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Open,
    Close,
    /// Moves the log into the database; the number is SQLite's mode.
    Checkpoint(i32),
    Scope(String),
    /// Sets keys of one scope in one commit.
    Set(String, Vec<(String, Arc<str>)>),
    /// Sets one key in each of several scopes in one commit.
    Transact(Vec<(String, String, Arc<str>)>),
    Increment(String, String),
    Append(String, String),
    Delete(String, String),
    Clear(String, String),
    /// Sets a key by a call that is not waited for.
    Post(String, String, Arc<str>),
    /// Makes a named watch from now on, unless there is one.
    Watch(String, &'static str),
    /// Has a named watch give so many changes, and keeps that.
    Follow(String, &'static str, usize),
    Forget(String, &'static str),
    /// The process is killed after so many operations on files, at the latest when it has done this.
    Killed(Box<Operation>, u32),
}

/// Before the name of a watch, where it stands among keys.
const WATCH: &str = "watch:";
const WATCHES: [&str; 2] = ["indexer", "mirror"];

const SCOPES: [&str; 4] = ["", "a", "b", "a/c"];

/// The steps of one writer. `model` is what the store holds before.
pub(super) fn operations(random: &mut fastrand::Rng, model: &Model) -> Vec<Operation> {
    let mut scopes: Vec<&str> =
        SCOPES.into_iter().filter(|scope| scope.is_empty() || model.contains_key(*scope)).collect();
    // The longest value of this writer: within a page, some pages, many pages; so many that the log is moved meanwhile.
    let longest = if random.u8(..16) == 0 { 400_000 } else { [200, 9_000, 40_000][random.usize(..3)] };
    let mut all = vec![Operation::Open];
    for _ in 0..random.usize(8..28) {
        match random.u8(..20) {
            0 => all.extend([Operation::Close, Operation::Open]),
            1 => {
                let last = if random.u8(..4) == 0 { Operation::Close } else { change(random, &scopes, longest) };
                all.extend([Operation::Killed(Box::new(last), random.u32(..30)), Operation::Open]);
            }
            2 if scopes.len() < SCOPES.len() => {
                let new = SCOPES.into_iter().find(|scope| !scopes.contains(scope)).unwrap_or_default();
                scopes.push(new);
                all.push(Operation::Scope(new.into()));
            }
            3..=5 => all.push(watching(random, &scopes)),
            _ => all.push(change(random, &scopes, longest)),
        }
    }
    if random.bool() {
        all.push(Operation::Close);
    }
    all
}

fn watching(random: &mut fastrand::Rng, scopes: &[&str]) -> Operation {
    let scope = scopes[random.usize(..scopes.len())].to_owned();
    let name = WATCHES[random.usize(..WATCHES.len())];
    match random.u8(..10) {
        0..3 => Operation::Watch(scope, name),
        3 => Operation::Forget(scope, name),
        _ => Operation::Follow(scope, name, random.usize(1..6)),
    }
}

fn change(random: &mut fastrand::Rng, scopes: &[&str], longest: usize) -> Operation {
    let scope = scopes[random.usize(..scopes.len())].to_owned();
    let key = format!("key{}", random.u8(..6));
    match random.u8(..18) {
        0..=4 => Operation::Set(scope, vec![(key, text(random, longest))]),
        5 | 6 => Operation::Post(scope, key, text(random, longest)),
        7 | 8 => {
            let pairs = (0..random.u8(2..6)).map(|number| (format!("key{number}"), text(random, longest / 2)));
            Operation::Set(scope, pairs.collect())
        }
        9 | 10 => {
            let each = scopes.iter().map(|scope| ((*scope).to_owned(), key.clone(), text(random, longest / 2)));
            Operation::Transact(each.collect())
        }
        11 => Operation::Increment(scope, "count".into()),
        12 => Operation::Append(scope, "list".into()),
        13 => Operation::Delete(scope, key),
        14 => Operation::Clear(scope, ["key1*", "*", "key*"][random.usize(..3)].into()),
        _ => Operation::Checkpoint(random.i32(0..4)),
    }
}

/// The text of a value, hard to compress mostly.
fn text(random: &mut fastrand::Rng, longest: usize) -> Arc<str> {
    let len = random.usize(..=longest);
    let body: String = match random.u8(..4) {
        0 => "x".repeat(len),
        _ => std::iter::repeat_with(|| random.alphanumeric()).take(len).collect(),
    };
    format!("\"{body}\"").into()
}

/// The scope at a path.
fn scope(state: &State, path: &str) -> Result<Scope, Error> {
    let mut scope: Scope = (**state).clone();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        scope = scope.scope(name)?;
    }
    Ok(scope)
}

/// A named watch that is there, or from now on.
fn named(name: &str) -> WatchOptions {
    WatchOptions { name: Some(name.into()), ..WatchOptions::default() }
}

/// How far a named watch is kept.
fn kept(scope: &Scope, name: &str) -> Result<Option<u64>, Error> {
    Ok(scope.named_watches()?.into_iter().find(|watch| watch.name == name).map(|watch| watch.version))
}

/// Takes changes, of one page at most, and keeps how far that was.
fn follow(scope: &Scope, name: &str, most: usize) -> Result<(), Error> {
    let Some(before) = kept(scope, name)? else { return Ok(()) };
    let watch = scope.watch(named(name))?;
    let (mut last, mut whole) = (before, before);
    let mut change = watch.next_timeout(Duration::ZERO)?;
    let mut taken = 0;
    while let Some(told) = change {
        let follows = told.version > whole && told.version >= last;
        if !follows {
            return Err(Error::invalid(format!(
                "after version {last} a watch that is kept at {before} told {}",
                told.version
            )));
        }
        last = told.version;
        whole = if told.ends_commit { last } else { whole };
        taken += 1;
        change = if taken < most { watch.pop() } else { None };
    }
    watch.save()?;
    match kept(scope, name)? {
        Some(after) if after == whole => Ok(()),
        after => Err(Error::invalid(format!("all up to version {whole} was taken and saved, but kept is {after:?}"))),
    }
}

fn document(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_default()
}

impl Operation {
    /// Does it; opening, closing, moving the log and dying are the caller's.
    pub(super) fn run(&self, state: &State) -> Result<(), Error> {
        match self {
            Self::Open | Self::Close | Self::Checkpoint(_) | Self::Killed(..) => {}
            Self::Scope(path) => drop(scope(state, path)?),
            Self::Set(path, pairs) => {
                let pairs = pairs.iter().map(|(key, text)| (key, document(text)));
                scope(state, path)?.set_many(pairs)?;
            }
            Self::Transact(each) => state.transact(|tx| {
                for (path, key, text) in each {
                    let mut names = path.split('/').filter(|name| !name.is_empty());
                    let inner = names.try_fold(tx.clone(), |tx, name| tx.scope(name))?;
                    inner.set(key, document(text))?;
                }
                Ok(())
            })?,
            Self::Increment(path, key) => drop(scope(state, path)?.increment(key, 1)?),
            Self::Append(path, key) => drop(scope(state, path)?.append(key, 7)?),
            Self::Delete(path, key) => drop(scope(state, path)?.delete(key)?),
            Self::Clear(path, pattern) => drop(scope(state, path)?.clear(pattern)?),
            Self::Post(path, key, text) => {
                let (tell, told) = channel();
                let call = scope(state, path)?.calls().set(key, document(text))?;
                call.then(move |version| drop(tell.send(version)));
                told.recv().map_err(|_| Error::invalid("nobody was told"))??;
            }
            Self::Watch(path, name) => drop(scope(state, path)?.watch(named(name))?),
            Self::Follow(path, name, most) => follow(&scope(state, path)?, name, *most)?,
            Self::Forget(path, name) => drop(scope(state, path)?.forget_watch(name)?),
        }
        Ok(())
    }

    /// Whether it is about a named watch: then what it has kept is taken from the store.
    pub(super) fn is_watching(&self) -> bool {
        matches!(self, Self::Watch(..) | Self::Follow(..) | Self::Forget(..))
    }

    /// Does it to the model; `version` is that of the commit, if it makes one.
    pub(super) fn model(&self, model: &mut Model, version: u64) {
        let mut set = |path: &str, key: &str, text: Arc<str>| {
            model.entry(path.to_owned()).or_default().insert(key.to_owned(), (text, version));
        };
        match self {
            Self::Open => drop(model.entry(String::new()).or_default()),
            Self::Close
            | Self::Checkpoint(_)
            | Self::Killed(..)
            | Self::Watch(..)
            | Self::Follow(..)
            | Self::Forget(..) => {}
            Self::Post(path, key, text) => set(path, key, Arc::clone(text)),
            Self::Scope(path) => drop(model.entry(path.clone()).or_default()),
            Self::Set(path, pairs) => {
                for (key, text) in pairs {
                    set(path, key, Arc::clone(text));
                }
            }
            Self::Transact(each) => {
                for (path, key, text) in each {
                    set(path, key, Arc::clone(text));
                }
            }
            Self::Increment(path, key) => {
                let before =
                    model.get(path).and_then(|keys| keys.get(key)).map_or(0, |(text, _)| text.parse().unwrap_or(0));
                let sum: i64 = before + 1;
                model.entry(path.clone()).or_default().insert(key.clone(), (sum.to_string().into(), version));
            }
            Self::Append(path, key) => {
                let before = model.get(path).and_then(|keys| keys.get(key)).map_or("[]", |(text, _)| text);
                let list = if before == "[]" { "[7]".to_owned() } else { before.replace(']', ",7]") };
                model.entry(path.clone()).or_default().insert(key.clone(), (list.into(), version));
            }
            Self::Delete(path, key) => drop(model.get_mut(path).and_then(|keys| keys.remove(key))),
            Self::Clear(path, pattern) => {
                let prefix = pattern.trim_end_matches('*');
                let doomed = |key: &str| key.starts_with(prefix) && !key.starts_with(WATCH);
                model.entry(path.clone()).or_default().retain(|key, _| !doomed(key));
            }
        }
    }
}

/// What named watches still tell must be all that was committed since they were kept.
pub(super) fn watch_on(state: &State, model: &Model) -> Result<Option<String>, Error> {
    for (path, keys) in model {
        let scope = scope(state, path)?;
        for (name, (_, kept)) in keys.iter().filter_map(|(key, stored)| Some((key.strip_prefix(WATCH)?, stored))) {
            let watch = scope.watch(named(name))?;
            let mut told = BTreeMap::new();
            while let Some(change) = watch.next_timeout(Duration::ZERO)? {
                if change.version <= *kept {
                    return Ok(Some(format!("the watch {name} of '{path}', kept at {kept}, told {}", change.version)));
                }
                told.insert(change.key, change.version);
            }
            let since = keys.iter().filter(|(key, (_, version))| !key.starts_with(WATCH) && version > kept);
            for (key, (_, version)) in since {
                if told.get(key) != Some(version) {
                    let told = told.get(key);
                    return Ok(Some(format!("the watch {name} of '{path}' told {told:?} of {key}, not {version}")));
                }
            }
        }
    }
    Ok(None)
}

/// Everything that a store holds.
pub(super) fn dump(state: &State) -> Result<Model, Error> {
    fn below(scope: &Scope, path: &str, model: &mut Model) -> Result<(), Error> {
        let mut keys = BTreeMap::new();
        for item in scope.items("*")? {
            let (key, entry) = item?;
            keys.insert(key, (entry.document().text().into(), entry.version()));
        }
        for watch in scope.named_watches()? {
            keys.insert(format!("{WATCH}{}", watch.name), ("".into(), watch.version));
        }
        model.insert(path.to_owned(), keys);
        for name in scope.scopes()? {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            below(&scope.scope(&name)?, &path, model)?;
        }
        Ok(())
    }
    let mut model = Model::new();
    below(state, "", &mut model)?;
    Ok(model)
}

/// In what two models differ, in few words.
pub(super) fn difference(found: &Model, wanted: &Model) -> String {
    let scopes = |model: &Model| model.keys().cloned().collect::<Vec<_>>();
    if scopes(found) != scopes(wanted) {
        return format!("scopes {:?} instead of {:?}", scopes(found), scopes(wanted));
    }
    let tell = |stored: Option<&Stored>| {
        stored.map_or("nothing".to_owned(), |(text, version)| format!("{} bytes of version {version}", text.len()))
    };
    let mut all = Vec::new();
    for (path, keys) in wanted {
        let mut names: Vec<&String> = keys.keys().chain(found[path].keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (found, wanted) = (found[path].get(name), keys.get(name));
            if found != wanted {
                all.push(format!("'{path}' {name}: {} instead of {}", tell(found), tell(wanted)));
            }
        }
    }
    all.join("; ")
}

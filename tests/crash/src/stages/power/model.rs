//! What a store holds, and has held.

use llmspell_state_persistence::{Error, Scope, State, WatchOptions};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The text of its value.
    pub(super) text: Arc<str>,
    /// That wrote it.
    pub(super) version: u64,
    pub(super) expires_ms: Option<i64>,
}

/// The keys of a scope. Named watches are there as if they were keys, with the version up to which they are kept, and so is the
/// retention policy, where it is another than that of the store.
pub(super) type Keys = BTreeMap<String, Stored>;
/// Every scope that exists, by its path.
pub(super) type Content = BTreeMap<String, Keys>;

/// A change of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) version: u64,
    pub(super) operation: &'static str,
    /// Tells one value from another; nothing where the key was gone.
    pub(super) value: Option<u64>,
}

/// A key of a scope.
pub(super) type Place = (String, String);

/// A store between two operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// Keys whose time has run out are there until somebody takes them away.
    pub(super) content: Content,
    /// What the log tells of every key, the newest change first.
    pub(super) past: BTreeMap<Place, Vec<Deed>>,
    pub(super) version: u64,
    pub(super) clock_ms: i64,
}

/// Before the name of a watch, where it stands among keys.
pub(super) const WATCH: &str = "watch:";
/// A retention policy among keys.
pub(super) const RETENTION: &str = "retention:";
/// Keys that anybody sets.
pub(super) const KEYS: [&str; 8] = ["key0", "key1", "key2", "key3", "key4", "key5", "count", "list"];

/// Whether it stands among keys only in the model.
pub(super) fn is_setting(key: &str) -> bool {
    key.contains(':')
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Stored {
    pub(super) fn is_alive(&self, clock_ms: i64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > clock_ms)
    }

    /// Whether it is the same, whoever wrote it.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.text == other.text && self.expires_ms == other.expires_ms
    }
}

/// What is there at a time.
pub(super) fn alive(content: &Content, clock_ms: i64) -> Content {
    let keys = |keys: &Keys| {
        let alive = keys.iter().filter(|(_, stored)| stored.is_alive(clock_ms));
        alive.map(|(key, stored)| (key.clone(), stored.clone())).collect()
    };
    content.iter().map(|(path, of)| (path.clone(), keys(of))).collect()
}

impl Model {
    /// A store that does not exist yet.
    pub(super) fn new(clock_ms: i64) -> Self {
        Self { content: Content::from([(String::new(), Keys::new())]), clock_ms, ..Self::default() }
    }

    pub(super) fn alive(&self, path: &str, key: &str) -> Option<&Stored> {
        self.content.get(path)?.get(key).filter(|stored| stored.is_alive(self.clock_ms))
    }

    pub(super) fn deeds(&self, path: &str, key: &str) -> &[Deed] {
        self.past.get(&(path.to_owned(), key.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Whether a store that was looked at is this one.
    pub(super) fn is(&self, found: &Self) -> bool {
        self.past == found.past && alive(&self.content, found.clock_ms) == found.content
    }

    /// Whether a store is one on the way from this one to the next, of which the past was cleaned up.
    pub(super) fn leads_by(&self, found: &Self, next: &Self) -> bool {
        let places = self.past.keys().chain(next.past.keys()).chain(found.past.keys());
        let is_between = |place: &Place| {
            let [before, now, then] = [self, found, next].map(|model| model.deeds(&place.0, &place.1));
            // What tells that its time had run out may have come and gone.
            let is_expiry = |deed: &Deed| deed.operation == "expire" && deed.version > self.version;
            now.iter().all(|deed| before.contains(deed) || then.contains(deed) || is_expiry(deed))
                && before.iter().filter(|deed| then.contains(deed)).all(|deed| now.contains(deed))
        };
        alive(&self.content, found.clock_ms) == found.content
            && alive(&next.content, found.clock_ms) == found.content
            && places.into_iter().all(is_between)
    }

    /// Whether what the log tells of each key leads to what the key is.
    fn check(&self) -> Result<(), String> {
        for ((path, key), deeds) in &self.past {
            let told = |what: &str| Err(format!("'{path}' {key}: {what}: {deeds:?}"));
            let newest = deeds.first().map(|deed| (deed.version, deed.value));
            match self.content.get(path).and_then(|keys| keys.get(key)) {
                Some(stored) if newest != Some((stored.version, Some(hash(&stored.text)))) => {
                    return told(&format!("it is of version {}, but its history", stored.version));
                }
                _ => {}
            }
            if deeds.windows(2).any(|both| both[0].version < both[1].version) {
                return told("its history is out of order");
            }
            if deeds.windows(2).any(|both| both[0].value.is_none() && both[1].value.is_none()) {
                return told("it was gone twice");
            }
        }
        let keys = self.content.iter().flat_map(|(path, keys)| keys.keys().map(move |key| (path, key)));
        let untold =
            |(path, key): &(&String, &String)| KEYS.contains(&key.as_str()) && self.deeds(path, key).is_empty();
        keys.into_iter().find(untold).map_or(Ok(()), |(path, key)| Err(format!("'{path}' {key} has no history")))
    }
}

/// The scope at a path.
pub(super) fn scope(state: &State, path: &str) -> Result<Scope, Error> {
    let mut scope: Scope = (**state).clone();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        scope = scope.scope(name)?;
    }
    Ok(scope)
}

/// A named watch that is there, or from now on.
pub(super) fn named(name: &str) -> WatchOptions {
    WatchOptions { name: Some(name.into()), ..WatchOptions::default() }
}

/// What named watches still tell must be all that was committed since they were kept.
pub(super) fn watch_on(state: &State, model: &Model) -> Result<Option<String>, Error> {
    for (path, keys) in &model.content {
        let scope = scope(state, path)?;
        let watches = keys.iter().filter_map(|(key, stored)| Some((key.strip_prefix(WATCH)?, stored.version)));
        for (name, kept) in watches {
            let watch = scope.watch(named(name))?;
            let mut told = BTreeMap::new();
            while let Some(change) = watch.next_timeout(Duration::ZERO)? {
                if change.version <= kept {
                    return Ok(Some(format!("the watch {name} of '{path}', kept at {kept}, told {}", change.version)));
                }
                told.insert(change.key, change.version);
            }
            for (key, stored) in keys.iter().filter(|(key, stored)| !is_setting(key) && stored.version > kept) {
                if told.get(key) != Some(&stored.version) {
                    let (told, wanted) = (told.get(key), stored.version);
                    return Ok(Some(format!("the watch {name} of '{path}' told {told:?} of {key}, not {wanted}")));
                }
            }
        }
    }
    Ok(None)
}

/// What a retention policy is called in the model.
pub(super) fn policy_text(versions: usize, age: Option<Duration>) -> Arc<str> {
    format!("{versions} {age:?}").into()
}

/// Everything that a store holds; the clock stands at `clock_ms`.
pub(super) fn dump(state: &State, clock_ms: i64) -> Result<Model, Error> {
    fn below(state: &State, scope: &Scope, path: &str, model: &mut Model) -> Result<(), Error> {
        let mut keys = Keys::new();
        for item in scope.items("*")? {
            let (key, entry) = item?;
            let text = entry.document().text().into();
            keys.insert(key, Stored { text, version: entry.version(), expires_ms: entry.expires_ms() });
        }
        for watch in scope.named_watches()? {
            let stored = Stored { text: "".into(), version: watch.version, expires_ms: None };
            keys.insert(format!("{WATCH}{}", watch.name), stored);
        }
        let policy = scope.retention()?;
        if policy != state.config().retention {
            let text = policy_text(policy.max_versions, policy.max_age);
            keys.insert(RETENTION.into(), Stored { text, version: 0, expires_ms: None });
        }
        for key in KEYS {
            let (alone, listed) = (scope.entry(key)?, keys.get(key));
            if alone.map(|entry| entry.version()) != listed.map(|stored| stored.version) {
                return Err(Error::invalid(format!("'{path}' {key} is read as another than is listed")));
            }
            let history = scope.history(key, None)?.into_iter();
            let deeds = history.map(|revision| Deed {
                version: revision.version,
                operation: revision.operation.name(),
                value: revision.value.map(|value| hash(value.text())),
            });
            let deeds: Vec<Deed> = deeds.collect();
            if !deeds.is_empty() {
                model.past.insert((path.to_owned(), key.to_owned()), deeds);
            }
        }
        model.content.insert(path.to_owned(), keys);
        for name in scope.scopes()? {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            below(state, &scope.scope(&name)?, &path, model)?;
        }
        Ok(())
    }
    let mut model = Model { version: state.version()?, clock_ms, ..Model::default() };
    below(state, state, "", &mut model)?;
    model.check().map_err(Error::invalid)?;
    Ok(model)
}

/// In what two models differ, in few words.
pub(super) fn difference(found: &Model, wanted: &Model) -> String {
    let (there, content) = (&found.content, alive(&wanted.content, found.clock_ms));
    let scopes = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    if scopes(there) != scopes(&content) {
        return format!("scopes {:?} instead of {:?}", scopes(there), scopes(&content));
    }
    let tell = |stored: Option<&Stored>| {
        stored.map_or("nothing".to_owned(), |Stored { text, version, expires_ms }| {
            format!("{} bytes of version {version}, until {expires_ms:?}", text.len())
        })
    };
    let mut all = Vec::new();
    for (path, keys) in &content {
        let mut names: Vec<&String> = keys.keys().chain(there[path].keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (found, wanted) = (there[path].get(name), keys.get(name));
            if found != wanted {
                all.push(format!("'{path}' {name}: {} instead of {}", tell(found), tell(wanted)));
            }
        }
    }
    let mut places: Vec<&Place> = found.past.keys().chain(wanted.past.keys()).collect();
    places.sort();
    places.dedup();
    for (path, key) in places {
        let [now, then] = [found, wanted].map(|model| model.deeds(path, key));
        if now != then {
            let tell = |deeds: &[Deed]| {
                deeds.iter().map(|deed| format!("{} {}", deed.operation, deed.version)).collect::<Vec<_>>().join(", ")
            };
            all.push(format!("'{path}' {key}: the history is [{}] instead of [{}]", tell(now), tell(then)));
        }
    }
    all.join("; ")
}

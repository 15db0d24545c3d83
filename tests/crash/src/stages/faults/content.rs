//! Everything that a store holds, to be compared.

use llmspell_state_persistence::{Result, Scope, State};
use std::collections::BTreeMap;
use std::fmt;

/// All keys and named watches of all scopes with value and version, and the version of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    version: u64,
    keys: BTreeMap<String, (String, u64)>,
}

/// Before the name of a watch; no key of these stores has such a part.
const WATCH: &str = "watch:";

impl Content {
    /// Reads it through every layer.
    pub(super) fn of(state: &State) -> Result<Self> {
        let mut content = Self { version: state.version()?, keys: BTreeMap::new() };
        content.add("", state)?;
        for name in state.scopes()? {
            content.keys.insert(format!("{name}/"), (String::new(), 0));
            content.add(&format!("{name}/"), &state.scope(&name)?)?;
        }
        Ok(content)
    }

    fn add(&mut self, prefix: &str, scope: &Scope) -> Result<()> {
        for item in scope.items("*")? {
            let (key, entry) = item?;
            let ends = entry.expires_ms().map_or_else(String::new, |at| format!(" until {at}"));
            self.keys.insert(format!("{prefix}{key}"), (format!("{}{ends}", entry.document().text()), entry.version()));
        }
        for watch in scope.named_watches()? {
            self.keys.insert(format!("{prefix}{WATCH}{}", watch.name), (String::new(), watch.version));
        }
        Ok(())
    }

    /// The same without how far named watches have come.
    pub(super) fn without_watches(mut self) -> Self {
        self.keys.retain(|key, _| !key.contains(WATCH));
        self
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The same after another commit that sets a key of the root.
    pub(super) fn and(mut self, key: &str, text: &str) -> Self {
        self.version += 1;
        self.keys.insert(key.to_owned(), (text.to_owned(), self.version));
        self
    }

    /// How another content differs, shortly.
    pub(super) fn against<'a>(&'a self, other: &'a Self) -> Difference<'a> {
        Difference { expected: self, found: other }
    }
}

/// What two contents differ in.
pub(super) struct Difference<'a> {
    expected: &'a Content,
    found: &'a Content,
}

/// Differing keys that are told.
const TOLD: usize = 3;

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, found } = self;
        write!(f, "version {} instead of {}", found.version, expected.version)?;
        let all: std::collections::BTreeSet<&String> = expected.keys.keys().chain(found.keys.keys()).collect();
        let differing = all.into_iter().filter(|key| expected.keys.get(*key) != found.keys.get(*key));
        let show = |content: &Content, key: &str| match content.keys.get(key) {
            Some((text, version)) => format!("{}@{version}", text.chars().take(20).collect::<String>()),
            None => "nothing".into(),
        };
        for key in differing.take(TOLD) {
            write!(f, ", {key}: {} instead of {}", show(found, key), show(expected, key))?;
        }
        Ok(())
    }
}

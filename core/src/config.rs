//! How a store is opened: plain settings with safe defaults.

use crate::error::shorten;
use crate::{Error, Result, RetentionPolicy, limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SyncMode {
    /// A commit is on disk when it is acknowledged: it survives a power cut.
    #[default]
    #[serde(alias = "full", alias = "Full")]
    Full,
    /// A commit survives a crash of the process; the last commits may be lost in a power cut.
    #[serde(alias = "normal", alias = "Normal")]
    Normal,
    /// The operating system writes when it likes: a power cut may lose commits and damage the file.
    #[serde(alias = "off", alias = "Off")]
    Off,
}

/// Settings of a store. The same names are keyword arguments in Python and an options table in Lua.
///
/// ```
/// use llmspell_state_persistence::{StateConfig, SyncMode};
/// let config = StateConfig { sync_mode: SyncMode::Normal, ..StateConfig::default() };
/// assert!(config.enable_wal && config.persistence_path.is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // settings that users turn on and off by name
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// The store's file; `None` keeps it in memory.
    pub persistence_path: Option<PathBuf>,
    /// Use SQLite's write-ahead log, which sharing between processes relies on. Without it `exclusive` is required.
    pub enable_wal: bool,
    /// When a commit counts as done.
    pub sync_mode: SyncMode,
    /// Memory for decoded values, in MB (2^20 bytes); 0 keeps none.
    pub cache_size_mb: usize,
    /// Compress values where it saves space, and store large ones as what they changed.
    pub enable_compression: bool,
    /// Only this process may open the store: faster, and a second process gets `Busy`.
    pub exclusive: bool,
    /// Make the file when it is missing; otherwise a missing file is `NotFound`.
    pub create: bool,
    /// Make missing parent directories too.
    pub create_dirs: bool,
    /// Open a store although it holds less than was acknowledged, because an older copy of it was put back on purpose.
    pub accept_rollback: bool,
    /// The longest stored text of one value, in bytes.
    pub max_value_bytes: usize,
    /// How long a write waits for other processes before it fails with `Busy`, in milliseconds.
    pub busy_timeout_ms: u64,
    /// How much of the past is kept, where neither the store nor a scope has a policy that was set. It is that of this process alone:
    /// what all are to keep to is said with [`Scope::set_retention`](crate::Scope::set_retention).
    pub retention: RetentionPolicy,
    /// Who makes the changes, as watches tell: a name of the program's own, such as that of an agent.
    pub actor: Option<String>,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            persistence_path: None,
            enable_wal: true,
            sync_mode: SyncMode::Full,
            cache_size_mb: 64,
            enable_compression: true,
            exclusive: false,
            create: true,
            create_dirs: false,
            accept_rollback: false,
            max_value_bytes: limits::MAX_VALUE_BYTES,
            busy_timeout_ms: 30_000,
            retention: RetentionPolicy::default(),
            actor: None,
        }
    }
}

impl StateConfig {
    /// The defaults, for the file at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { persistence_path: Some(path.into()), ..Self::default() }
    }

    /// Settings by name, as scripts give them: `[("sync_mode", "NORMAL"), …]` as JSON values.
    ///
    /// # Errors
    /// `Invalid` names an unknown setting with the closest known one, or the setting whose value does not fit.
    pub fn from_options(mut options: serde_json::Map<String, Value>) -> Result<Self> {
        let known = serde_json::to_value(Self::default()).map_err(|e| Error::invalid(e.to_string()))?;
        for (name, value) in &mut options {
            let Some(default) = known.get(name) else {
                let names: Vec<&str> = known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                return Err(unknown_setting(name, &names));
            };
            if default.is_u64() {
                *value = whole(value.take());
            }
            if let (true, Value::Object(parts)) = (default.is_object(), &*value) {
                let policy = RetentionPolicy::from_options(parts.clone())?;
                *value = serde_json::to_value(policy).map_err(|e| Error::invalid(e.to_string()))?;
            }
            let alone = serde_json::Map::from_iter([(name.clone(), value.clone())]);
            serde_json::from_value::<Self>(alone.into()).map_err(|_| {
                Error::invalid(format!("setting '{name}' takes {}, not {}", taken(name, default), given(value)))
            })?;
        }
        serde_json::from_value(options.into()).map_err(|e| Error::invalid(format!("settings: {e}")))
    }

    /// Refuses settings that are out of range or contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cache_size_mb > limits::CACHE_MB_CEILING {
            return Err(Error::invalid(format!(
                "setting 'cache_size_mb' is {}; the largest is {} MB",
                self.cache_size_mb,
                limits::CACHE_MB_CEILING
            )));
        }
        if !(1..=limits::MAX_VALUE_BYTES_CEILING).contains(&self.max_value_bytes) {
            return Err(Error::invalid(format!(
                "setting 'max_value_bytes' is {}; it takes 1 to {} bytes",
                self.max_value_bytes,
                limits::MAX_VALUE_BYTES_CEILING
            )));
        }
        if self.busy_timeout_ms > limits::BUSY_TIMEOUT_MS {
            return Err(Error::invalid(format!(
                "setting 'busy_timeout_ms' is {}; the longest is {} ms",
                self.busy_timeout_ms,
                limits::BUSY_TIMEOUT_MS
            )));
        }
        if let Some(actor) = &self.actor
            && !(1..=limits::ACTOR_BYTES).contains(&actor.len())
        {
            return Err(Error::invalid(format!(
                "setting 'actor' has {} bytes; it takes 1 to {}",
                actor.len(),
                limits::ACTOR_BYTES
            )));
        }
        self.retention.check()?;
        if !self.enable_wal && !self.exclusive && self.persistence_path.is_some() {
            return Err(Error::invalid(
                "setting 'enable_wal' is false but 'exclusive' is not true: sharing a store between processes relies on \
                 the write-ahead log; set exclusive = true or leave enable_wal on",
            ));
        }
        Ok(())
    }
}

/// A whole number that arithmetic made a float (`128 / 2` in Lua and Python) is that number; anything else stays what it is.
pub(crate) fn whole(value: Value) -> Value {
    /// Beyond it, floats skip whole numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and in range
        Some(float) if value.is_f64() && float.fract() == 0.0 && (0.0..=EXACT).contains(&float) => {
            (float as u64).into()
        }
        _ => value,
    }
}

/// What the setting takes, in the words of people who write no Rust.
fn taken(name: &str, default: &Value) -> &'static str {
    match default {
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a whole number of at least 0",
        Value::Object(_) => {
            "max_age, max_versions, max_bytes, trim_watched and cleanup_interval by name, times in seconds"
        }
        _ if name == "sync_mode" => "\"FULL\", \"NORMAL\" or \"OFF\"",
        _ => "a text",
    }
}

fn given(value: &Value) -> String {
    match value {
        Value::String(text) => shorten(text),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        _ => value.to_string(),
    }
}

fn unknown_setting(name: &str, known: &[&str]) -> Error {
    let near = known.iter().map(|known| (edit_distance(name, known), known)).min();
    let hint = match near {
        Some((distance, known)) if distance <= 3 => format!("did you mean '{known}'?"),
        _ => format!("the settings are {}", known.join(", ")),
    };
    Error::invalid(format!("unknown setting {}; {hint}", shorten(name)))
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(options: serde_json::Value) -> String {
        let serde_json::Value::Object(options) = options else { panic!("an object") };
        StateConfig::from_options(options).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_setting_is_refused_with_the_name_that_was_meant() {
        assert!(message(json!({"sync_mod": "FULL"})).contains("did you mean 'sync_mode'?"));
        assert!(message(json!({"turbo": true})).contains("cache_size_mb"));
    }

    #[test]
    fn a_setting_of_the_wrong_type_is_named() {
        assert!(message(json!({"cache_size_mb": -1})).contains("'cache_size_mb'"));
        assert!(message(json!({"cache_size_mb": 1e18})).contains("'cache_size_mb'"));
        assert!(message(json!({"sync_mode": "sometimes"})).contains("'sync_mode'"));
    }

    #[test]
    fn what_a_setting_takes_is_told_in_plain_words() {
        for (options, words) in [
            (json!({"cache_size_mb": "64"}), r#"'cache_size_mb' takes a whole number of at least 0, not "64""#),
            (json!({"busy_timeout_ms": 1.5}), "'busy_timeout_ms' takes a whole number of at least 0, not 1.5"),
            (json!({"exclusive": [1]}), "'exclusive' takes true or false, not an array"),
            (json!({"sync_mode": "sometimes"}), r#"'sync_mode' takes "FULL", "NORMAL" or "OFF", not "sometimes""#),
            (json!({"persistence_path": 5}), "'persistence_path' takes a text, not 5"),
        ] {
            let message = message(options);
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        let serde_json::Value::Object(options) = json!({"cache_size_mb": 64.0, "busy_timeout_ms": 0.0}) else {
            panic!()
        };
        let config = StateConfig::from_options(options).unwrap();
        assert_eq!((config.cache_size_mb, config.busy_timeout_ms), (64, 0));
    }

    #[test]
    fn no_wal_needs_exclusive_use_of_a_file() {
        let config = StateConfig { enable_wal: false, ..StateConfig::at("x.db") };
        assert!(config.check().is_err());
        assert!(StateConfig { exclusive: true, ..config }.check().is_ok());
    }
}

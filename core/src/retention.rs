//! `RetentionPolicy`: how much of the past a store keeps. What keys are now is never a matter of retention.

use crate::config::whole;
use crate::error::shorten;
use crate::{Error, Result, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// How much of the past is kept: values that were replaced, and keys that are gone. What goes beyond any of the bounds is
/// trimmed in the background, never what a key is now, nor what a named watch has still to tell.
///
/// The default keeps 100 versions of a key for 30 days. As settings in Python and Lua, times are seconds.
///
/// ```
/// use llmspell_state_persistence::{RetentionPolicy, State, StateConfig};
/// let retention = RetentionPolicy { max_versions: 5, ..RetentionPolicy::default() };
/// let state = State::with_config(StateConfig { retention, ..StateConfig::default() })?;
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionPolicy {
    /// How long what was replaced, deleted or has expired is kept, counted from when it was written; `None` is for ever.
    #[serde(with = "optional_seconds")]
    pub max_age: Option<Duration>,
    /// How many versions of a key are kept, the present one included; at least 1, and all of them with `usize::MAX`, which is null in
    /// settings.
    #[serde(with = "versions")]
    pub max_versions: usize,
    /// How many bytes of stored values of the past a scope keeps; the oldest go first. `None` sets no bound.
    pub max_bytes: Option<u64>,
    /// Trim also what a named watch has still to tell, which then fails with `NotFound`.
    pub trim_watched: bool,
    /// How often the past is trimmed at least; after many changes, of which others may have made most, it is trimmed earlier. It
    /// counts in the settings with which a store is opened, not in what [`set_retention`](crate::Scope::set_retention) keeps.
    #[serde(with = "seconds")]
    pub cleanup_interval: Duration,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            max_age: Some(Duration::from_secs(30 * 86_400)),
            max_versions: 100,
            max_bytes: None,
            trim_watched: false,
            cleanup_interval: Duration::from_secs(60),
        }
    }
}

impl RetentionPolicy {
    /// Keeps everything for ever.
    pub fn keep_all() -> Self {
        Self { max_age: None, max_versions: usize::MAX, max_bytes: None, ..Self::default() }
    }

    /// A policy by the names of its parts, as scripts give them; what is not named is as in the default, and null sets no bound.
    ///
    /// # Errors
    /// `Invalid` names what is unknown or does not fit.
    pub fn from_options(mut options: Map<String, Value>) -> Result<Self> {
        let known = serde_json::to_value(Self::default()).map_err(|e| Error::invalid(e.to_string()))?;
        for (name, value) in &mut options {
            if known.get(name).is_none() {
                let names: Vec<&str> = known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                return Err(Error::invalid(format!(
                    "retention: unknown part {}; the parts are {}",
                    shorten(name),
                    names.join(", ")
                )));
            }
            if name.starts_with("max_") && name != "max_age" {
                *value = whole(value.take());
            }
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            serde_json::from_value::<Self>(alone.into()).map_err(|_| {
                let takes = match name.as_str() {
                    "max_age" => "seconds of at least 0, or nothing for no bound",
                    "cleanup_interval" => "seconds",
                    "trim_watched" => "true or false",
                    _ => "a whole number, or nothing for no bound",
                };
                Error::invalid(format!("retention: {name} takes {takes}"))
            })?;
        }
        let policy: Self =
            serde_json::from_value(options.into()).map_err(|e| Error::invalid(format!("retention: {e}")))?;
        policy.check()?;
        Ok(policy)
    }

    /// Refuses a policy that could not be kept.
    pub(crate) fn check(&self) -> Result<()> {
        if self.max_versions == 0 {
            return Err(Error::invalid(
                "retention: max_versions is 0; the present version counts, so it takes at least 1",
            ));
        }
        if self.cleanup_interval < Duration::from_millis(100) {
            return Err(Error::invalid("retention: cleanup_interval takes at least 0.1 seconds"));
        }
        // As seconds in settings, longer ones could not be read back.
        for (name, time) in [("max_age", self.max_age), ("cleanup_interval", Some(self.cleanup_interval))] {
            if time.is_some_and(|time| time > limits::TTL) {
                return Err(Error::invalid(format!(
                    "retention: {name} takes at most {} years",
                    limits::TTL.as_secs() / (365 * 86_400)
                )));
            }
        }
        Ok(())
    }
}

/// Times as seconds, so that they read the same in every language.
mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Every version is none that is named.
mod versions {
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // what serde asks for
    pub(super) fn serialize<S: Serializer>(versions: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        match *versions {
            usize::MAX => serializer.serialize_none(),
            versions => serializer.serialize_u64(versions as u64),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(usize::MAX))
    }
}

mod optional_seconds {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;

    #[allow(clippy::ref_option)] // what serde asks for
    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::seconds::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)).transpose()
    }
}

//! `Ttl`: how long a key is to live.

use crate::{Error, Result, limits};
use std::time::Duration;

/// How long a key is to live from the commit on. When the time has run out the key is gone for every read; the machine's clock
/// being set does not make that earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// As the scope says, see [`Scope::set_default_ttl`](crate::Scope::set_default_ttl): for ever unless told otherwise.
    #[default]
    Default,
    /// For ever.
    Never,
    /// So long, to the millisecond above.
    After(Duration),
}

impl Ttl {
    /// So many seconds; infinity is for ever.
    ///
    /// # Errors
    /// `Invalid` for what is not above 0, no number, or longer than [`limits::TTL`] and not infinite.
    pub fn seconds(seconds: f64) -> Result<Self> {
        if seconds == f64::INFINITY {
            return Ok(Self::Never);
        }
        // Also no number.
        let fits = seconds > 0.0 && seconds <= limits::TTL.as_secs_f64();
        if !fits {
            return Err(refused(seconds));
        }
        Duration::try_from_secs_f64(seconds).map(Self::After).map_err(|_| refused(seconds))
    }

    /// In milliseconds, if it is a time at all.
    ///
    /// # Errors
    /// As [`Ttl::seconds`].
    pub(crate) fn millis(self) -> Result<Option<i64>> {
        let Self::After(time) = self else { return Ok(None) };
        if time.is_zero() || time > limits::TTL {
            return Err(refused(time.as_secs_f64()));
        }
        let millis = time.as_nanos().div_ceil(1_000_000);
        Ok(Some(i64::try_from(millis).unwrap_or(i64::MAX)))
    }
}

/// `{:?}` tells a huge number by its exponent rather than by all its digits.
fn refused(seconds: f64) -> Error {
    Error::invalid(format!(
        "ttl is {seconds:?} s; it takes more than 0 s and at most {} years, or infinity for a key that never expires",
        limits::TTL.as_secs() / (365 * 86_400)
    ))
}

impl From<Duration> for Ttl {
    fn from(time: Duration) -> Self {
        Self::After(time)
    }
}

/// What a set may be told beside key and value. A [`Ttl`] or a `Duration` alone will do.
///
/// ```
/// use llmspell_state_persistence::{SetOptions, State};
/// use std::time::Duration;
///
/// let state = State::in_memory()?;
/// state.set_with("session", 1, Duration::from_secs(3600))?;
/// assert!(state.entry("session")?.unwrap().expires_ms().is_some());
/// let only_if_missing = SetOptions { if_version: Some(0), ..SetOptions::default() };
/// assert!(state.set_with("session", 2, only_if_missing).is_err());
/// # Ok::<(), llmspell_state_persistence::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetOptions {
    /// How long the key is to live.
    pub ttl: Ttl,
    /// Only if this is the key's version; 0 means that it must not exist.
    pub if_version: Option<u64>,
}

impl<T: Into<Ttl>> From<T> for SetOptions {
    fn from(ttl: T) -> Self {
        Self { ttl: ttl.into(), if_version: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_millisecond_counts_as_one() {
        assert_eq!(Ttl::seconds(0.0001).unwrap().millis().unwrap(), Some(1));
        assert_eq!(Ttl::seconds(1.5).unwrap().millis().unwrap(), Some(1_500));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e12] {
            assert!(Ttl::seconds(bad).unwrap_err().to_string().contains("ttl"), "{bad}");
        }
        assert!(Ttl::seconds(1e300).unwrap_err().to_string().starts_with("ttl is 1e300 s;"));
        assert!(Ttl::After(Duration::ZERO).millis().is_err());
        assert_eq!(Ttl::seconds(f64::INFINITY).unwrap(), Ttl::Never);
    }
}

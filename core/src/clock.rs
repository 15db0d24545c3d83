//! The only place that asks for the time.

use crate::harness;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, UTC; 0 when the clock stands before it.
pub(crate) fn now_ms() -> i64 {
    if let Some(now_ms) = harness::now_ms() {
        return now_ms;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

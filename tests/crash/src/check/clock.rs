//! The one clock of a history.

use serde::{Deserialize, Serialize};

/// From before a call until after it, in nanoseconds of the clock that all processes of the machine share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, Option<u64>)", into = "(u64, Option<u64>)")]
pub struct Span {
    /// Before the call.
    pub start: u64,
    /// After it; [`Span::OPEN`] if it never returned.
    pub end: u64,
}

impl Span {
    /// The end of a call of which nobody knows what became of it.
    pub const OPEN: u64 = u64::MAX;

    /// A call that begins now and may never return.
    pub fn open() -> Self {
        Self { start: now(), end: Self::OPEN }
    }

    /// The same call, which returns now.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { end: now(), ..self }
    }

    /// Whether the call returned.
    pub fn is_closed(self) -> bool {
        self.end != Self::OPEN
    }
}

impl From<(u64, Option<u64>)> for Span {
    fn from((start, end): (u64, Option<u64>)) -> Self {
        Self { start, end: end.unwrap_or(Self::OPEN) }
    }
}

impl From<Span> for (u64, Option<u64>) {
    fn from(span: Span) -> Self {
        (span.start, span.is_closed().then_some(span.end))
    }
}

/// `CLOCK_MONOTONIC`, which Python and Lua read, too.
#[allow(unsafe_code)]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live, writable timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

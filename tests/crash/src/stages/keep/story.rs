//! What the processes do and tell: one line in a journal before each operation and one after it.

use llmspell_state_persistence::Document;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A value, told by what it is made from: a list of so many turns of one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    /// No two conversations have the same.
    pub(super) tag: u64,
    pub(super) turns: u32,
}

impl Spec {
    /// The value itself: one turn more is a small difference of a large value.
    pub(super) fn value(self) -> Value {
        let turn = |number: u32| {
            let mut random = fastrand::Rng::with_seed(self.tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) + u64::from(number));
            let len = random.usize(100..500);
            std::iter::repeat_with(|| random.alphanumeric()).take(len).collect::<String>()
        };
        json!({"tag": self.tag, "turns": (0..self.turns).map(turn).collect::<Vec<_>>()})
    }

    /// From what a value says it was made; nothing if it was not.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let turns = u32::try_from(value["turns"].as_array()?.len()).ok()?;
        let spec = Self { tag: value["tag"].as_u64()?, turns };
        (spec.value() == *value).then_some(spec)
    }

    /// From what a stored value was made.
    pub(super) fn read(document: &Document) -> Result<Self, String> {
        Self::of(&document.to_value())
            .ok_or_else(|| format!("{} of them, which nobody has written", document.text().len()))
    }
}

/// How long a key is to live, in milliseconds; 0 is for ever.
pub(super) type Life = u64;
/// Lives from this on are not over before the test is.
pub(super) const LONG: Life = 3_600_000;

/// One operation. Scopes are told by their names; all of them lie in the root.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    Set {
        scope: String,
        key: String,
        spec: Spec,
        life: Life,
    },
    Touch {
        scope: String,
        key: String,
        life: Life,
    },
    Delete {
        scope: String,
        key: String,
    },
    /// A transaction that has found `read` there, or not, waits, and sets `key`; it tells when it asked for its commit.
    Within {
        scope: String,
        read: String,
        key: String,
        spec: Spec,
    },
    Fork {
        scope: String,
        name: String,
    },
    Merge {
        scope: String,
        fork: String,
    },
    /// Takes changes that the named watch tells, and keeps that.
    Follow {
        scope: String,
        most: usize,
    },
    Cleanup,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Done,
    Version(u64),
    There(bool),
    Within {
        there: bool,
        asked_ms: u64,
        version: Option<u64>,
    },
    Merged {
        version: u64,
        keys: u64,
        conflicts: Vec<String>,
    },
    /// Where the watch stood, what it told, where it stands.
    Followed {
        from: Option<u64>,
        told: Vec<Told>,
        to: u64,
    },
}

/// A change that a watch has told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) key: String,
    pub(super) operation: String,
    pub(super) spec: Option<Spec>,
    pub(super) old: Option<Spec>,
}

/// A line of a journal. Times are those of the machine's boot, in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The store is open.
    Open,
    Begun {
        slot: usize,
        at_ms: u64,
        operation: Operation,
    },
    Done {
        slot: usize,
        at_ms: u64,
        answer: Answer,
    },
    /// Everything was done and the store was closed.
    End,
    Failed(String),
}

/// What is watched, what is forked, and the forks of one slot.
pub(super) fn watched(slot: usize) -> String {
    format!("s{slot}")
}

pub(super) fn trunk(slot: usize) -> String {
    format!("t{slot}")
}

/// The name of the watch of every watched scope.
pub(super) const WATCH: &str = "keeper";

/// Milliseconds since the machine booted: the clock by which keys expire, for all processes.
#[allow(unsafe_code)]
pub(super) fn now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours. This clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    (time.tv_sec * 1_000 + time.tv_nsec / 1_000_000).unsigned_abs()
}

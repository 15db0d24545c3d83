//! Every number that bounds input, in one place.

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES: usize = 1024;
/// Longest name of one scope, in bytes of UTF-8.
pub const SCOPE_NAME_BYTES: usize = 256;
/// Deepest nesting of scopes below a tenant's root.
pub const SCOPE_DEPTH: usize = 32;
/// Longest pattern, in bytes of UTF-8.
pub const PATTERN_BYTES: usize = 4096;
/// Deepest nesting of arrays and objects in a value: `[[]]` is 2 deep.
pub const VALUE_DEPTH: usize = 128;
/// Default of `max_value_bytes`: the longest stored text of one value.
pub const MAX_VALUE_BYTES: usize = 64 << 20;
/// Largest `max_value_bytes` that may be configured (SQLite's own bound on a row is 1 GB).
pub const MAX_VALUE_BYTES_CEILING: usize = 512 << 20;
/// Longest `busy_timeout_ms`: a day.
pub const BUSY_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;
/// Largest cache that may be configured, in MB.
pub const CACHE_MB_CEILING: usize = 1 << 20;
/// Most changes in one transaction or one `set_many`.
pub const TRANSACTION_CHANGES: usize = 100_000;
/// Most bytes of keys and values in one transaction or one `set_many`.
pub const TRANSACTION_BYTES: usize = 256 << 20;
/// How often `transact`, and calls like `modify`, run again on a conflict unless told otherwise.
pub const ATTEMPTS: u32 = 1_000;
/// Transactions of one manager that were begun by id and that nobody works with.
pub const OPEN_TRANSACTIONS: usize = 10_000;
/// Keys or items that an iterator fetches first.
pub const PAGE: usize = 256;
/// Keys or items that it fetches at a time from then on.
pub const LONG_PAGE: usize = 2_048;
/// Bytes of values fetched at a time by an iterator, at least one item.
pub const PAGE_BYTES: usize = 4 << 20;
/// Requests that may wait for the writer; further callers wait for room.
pub const QUEUE_REQUESTS: usize = 4_096;
/// Bytes that may wait for the writer; further callers wait for room.
pub const QUEUE_BYTES: usize = 256 << 20;
/// Most requests in one commit group.
pub const GROUP_REQUESTS: usize = 512;
/// Most bytes in one commit group, at least one request.
pub const GROUP_BYTES: usize = 16 << 20;
/// Groups that one caller commits for others before it hands over.
pub const LEADER_GROUPS: usize = 8;
/// Space on disk that an open store keeps back, so that deleting works when the disk is full, in bytes.
pub const BALLAST_BYTES: u64 = 1 << 20;
/// Changes of other processes that are looked at one by one; after more of them the cache starts anew.
pub const TAIL_ROWS: usize = 10_000;
/// Threads of a store that read for callers which do not wait.
pub const READER_THREADS: usize = 4;
/// Changes that a watch fetches at a time.
pub const WATCH_PAGE: usize = 256;
/// Changes, of whatever keys, that a watch looks at in one snapshot.
pub const WATCH_ROWS: usize = 20_000;
/// Longest name of an actor or of a run, in bytes of UTF-8.
pub const ACTOR_BYTES: usize = 256;
/// Longest reason of a change, in bytes of UTF-8.
pub const REASON_BYTES: usize = 4096;
/// The longest time to live that can be asked for; beyond it a key lives for ever.
pub const TTL: std::time::Duration = std::time::Duration::from_secs(1_000 * 365 * 86_400);
/// Keys whose time has run out that are taken away in one commit.
pub const SWEEP_ROWS: usize = 256;
/// Changes that are trimmed in one commit.
pub const TRIM_ROWS: usize = 1024;
/// Changes that are looked at in one snapshot for what is to be trimmed.
pub const TRIM_LOOK: usize = 65_536;
/// Changes that a key may have got since it was looked at for what is to be trimmed.
pub const TRIM_SINCE: i64 = 64;
/// Rows of keys that are looked at in one snapshot, at least those of one key.
pub const TRIM_WALK: usize = 2_048;
/// Changes after which it is noted how far the log was looked at, though nothing was trimmed.
pub const TRIM_NOTE: i64 = 10_000;
/// Changes that nobody has looked at after which the past is trimmed before its time has come. So many wait between two passes
/// however fast they come, unless more of them come within a second.
pub const TRIM_AFTER: usize = 65_536;
/// Changes that nobody has looked at after which the past is trimmed when a store is opened; of those, nobody knows how large they are.
pub const TRIM_AT_OPENING: i64 = 16_384;
/// Bytes of a value that count as one change more.
pub const TRIM_BYTES: usize = 1024;
/// Changes that `history` answers unless told otherwise.
pub const HISTORY: usize = 100;

//! Every SQL text that reads or writes data, by name.

/// The newest row of the log.
pub(super) const HEAD: &str = "SELECT seq, version, time FROM log ORDER BY seq DESC LIMIT 1";
/// The newest change of a key.
pub(super) const NEWEST: &str =
    "SELECT seq, live, created_at, expires_at, versions FROM entry WHERE scope_id = ?1 AND key = ?2";
/// The newest change of a key with its row. An entry whose row is gone still answers, so that the loss is seen.
pub(super) const CURRENT: &str = "SELECT entry.seq, entry.live, entry.created_at, entry.expires_at, entry.versions, \
     log.seq, log.version, log.time, log.scope_id, log.key, log.operation, log.prev, log.expires_at, log.flags, log.row_check, log.value, log.actor, log.run, log.reason \
     FROM entry LEFT JOIN log ON log.seq = entry.seq WHERE entry.scope_id = ?1 AND entry.key = ?2";
/// One row of the log.
pub(super) const ROW: &str = "SELECT NULL, NULL, NULL, NULL, NULL, \
     seq, version, time, scope_id, key, operation, prev, expires_at, flags, row_check, value, actor, run, reason FROM log WHERE seq = ?1";
/// The same under another name: a statement that is running is no longer at hand, and would be prepared anew.
pub(super) const BASE: &str = "SELECT NULL, NULL, NULL, NULL, NULL, \
     seq, version, time, scope_id, key, operation, prev, expires_at, flags, row_check, value, actor, run, reason FROM log AS base WHERE seq = ?1";
/// Whether a row is there. Its value, which may be large, is not touched.
pub(super) const HAS: &str = "SELECT 1 FROM log WHERE seq = ?1 AND row_check = ?2";
/// Every row of the log.
pub(super) const LOG: &str = "SELECT NULL, NULL, NULL, NULL, NULL, \
     seq, version, time, scope_id, key, operation, prev, expires_at, flags, row_check, value, actor, run, reason FROM log ORDER BY seq";
/// Every entry with its row.
pub(super) const ALL_ENTRIES: &str = "SELECT entry.seq, entry.live, entry.created_at, entry.expires_at, entry.versions, \
     log.seq, log.version, log.time, log.scope_id, log.key, log.operation, log.prev, log.expires_at, log.flags, log.row_check, log.value, log.actor, log.run, log.reason, \
     entry.scope_id, entry.key \
     FROM entry LEFT JOIN log ON log.seq = entry.seq ORDER BY entry.scope_id, entry.key";
/// Keys of a range in byte order. A blob sorts after all text, so an empty blob is the open end.
pub(super) const ENTRIES: &str = "SELECT key, seq, live, created_at, expires_at, versions FROM entry WHERE scope_id = ?1 AND key >= ?2 AND key < ?3 ORDER BY key";
/// The same against byte order.
pub(super) const ENTRIES_REVERSE: &str = "SELECT key, seq, live, created_at, expires_at, versions FROM entry WHERE scope_id = ?1 AND key >= ?2 AND key < ?3 ORDER BY key DESC";
/// Number of keys of a range that are there at a time.
pub(super) const COUNT: &str = "SELECT count(*) FROM entry WHERE scope_id = ?1 AND key >= ?2 AND key < ?3 AND live \
     AND (expires_at IS NULL OR expires_at > ?4)";
/// Keys whose time has run out. Of a key that is gone no time to expire is kept.
pub(super) const OVERDUE: &str = "SELECT scope_id, key, seq, live, created_at, expires_at, versions FROM entry WHERE expires_at <= ?1 ORDER BY expires_at";
/// The earliest time at which one does.
pub(super) const NEXT_EXPIRY: &str = "SELECT min(expires_at) FROM entry WHERE expires_at IS NOT NULL";
/// Rows after another without what they hold.
pub(super) const OUTLINES: &str =
    "SELECT seq, time, scope_id, key, prev, operation FROM log WHERE seq > ?1 ORDER BY seq";
/// Rows of a scope that are not the newest of their keys.
pub(super) const PAST: &str = "SELECT log.seq, log.key, coalesce(octet_length(log.value), 0) FROM log \
     LEFT JOIN entry ON entry.scope_id = log.scope_id AND entry.key = log.key \
     WHERE log.scope_id = ?1 AND entry.seq IS NOT log.seq ORDER BY log.seq";
/// What is not in the log of a scope any more.
pub(super) const TRIMMED: &str = "SELECT changes, seq, gone FROM trimmed WHERE scope_id = ?1";
/// Whether a change after a row is not in the log any more whose key is not known any more.
pub(super) const HAS_GONE: &str = "SELECT 1 FROM trimmed WHERE gone > ?1";
/// Notes more of it.
pub(super) const ADD_TRIMMED: &str = "INSERT INTO trimmed (scope_id, changes, seq, gone) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (scope_id) DO UPDATE SET changes = changes + excluded.changes, seq = max(seq, excluded.seq), \
     gone = max(gone, excluded.gone)";
/// Takes rows out of the log.
pub(super) const TRIM: &str = "DELETE FROM log WHERE seq BETWEEN ?1 AND ?2";
/// How many rows of a key are left.
pub(super) const SET_VERSIONS: &str = "UPDATE entry SET versions = ?3 WHERE scope_id = ?1 AND key = ?2";
/// Of a key that is gone nothing is left.
pub(super) const DROP_ENTRY: &str = "DELETE FROM entry WHERE scope_id = ?1 AND key = ?2 AND NOT live";
/// What the rows of a scope's log take: those that keys have now, and the others.
pub(super) const TAKEN: &str = "SELECT entry.seq IS log.seq AND entry.live AND (entry.expires_at IS NULL OR entry.expires_at > ?2), \
     count(*), coalesce(sum(octet_length(log.value)), 0) FROM log \
     LEFT JOIN entry ON entry.scope_id = log.scope_id AND entry.key = log.key WHERE log.scope_id = ?1 GROUP BY 1";
/// From what a scope was forked.
pub(super) const FORKED: &str = "SELECT forked_from, forked_at FROM scope WHERE id = ?1 AND forked_from IS NOT NULL";
/// What was forked from a scope.
pub(super) const FORKS: &str = "SELECT id, forked_at FROM scope WHERE forked_from = ?1";
/// Adds a child scope that is a fork, with a number from `?5` on.
pub(super) const FORK_SCOPE: &str = "INSERT INTO scope (id, tenant_id, parent_id, name, forked_from, forked_at) \
     SELECT max(?5, (SELECT max(id) + 1 FROM scope)), tenant_id, id, ?2, ?3, ?4 FROM scope WHERE id = ?1";
/// The row at which the fork was made that is the newest. Its number is the highest.
pub(super) const LAST_FORKED: &str = "SELECT forked_at FROM scope WHERE id >= ?1 ORDER BY id DESC LIMIT 1";
/// Gives an entry to the forks that show that of the older scope, which is about to change.
pub(super) const LEAVE_TO_FORKS: &str = "INSERT INTO entry (scope_id, key, seq, live, created_at, expires_at, versions) \
     SELECT id, ?2, ?3, ?4, ?5, ?6, 1 FROM scope WHERE forked_from = ?1 AND forked_at >= ?3 ON CONFLICT (scope_id, key) DO NOTHING";
/// The first change of a key in a fork, or a further one.
pub(super) const PUT_ENTRY: &str = "INSERT INTO entry (scope_id, key, seq, live, created_at, expires_at, versions) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
     ON CONFLICT (scope_id, key) DO UPDATE SET seq = excluded.seq, live = excluded.live, created_at = excluded.created_at, \
     expires_at = excluded.expires_at, versions = excluded.versions";
/// Where a fork hides an entry of the older scope that is about to change, there is nothing to hide any more.
pub(super) const STOP_HIDING: &str = "DELETE FROM entry WHERE key = ?2 AND seq = 0 AND scope_id IN \
     (SELECT id FROM scope WHERE forked_from = ?1 AND forked_at >= ?3)";
/// Makes a key unknown in a fork although what is beneath has it.
pub(super) const HIDE_ENTRY: &str =
    "UPDATE entry SET seq = 0, created_at = NULL, versions = 0 WHERE scope_id = ?1 AND key = ?2 AND NOT live";
/// Something that the store keeps for itself.
pub(super) const NOTE: &str = "SELECT value FROM store WHERE name = ?1";
/// Keeps it.
pub(super) const PUT_NOTE: &str =
    "INSERT INTO store (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// Keys changed after a row.
pub(super) const TAIL: &str = "SELECT scope_id, key FROM log WHERE seq > ?1 ORDER BY seq";
/// Every change after a row.
pub(super) const CHANGES: &str = "SELECT NULL, NULL, NULL, NULL, NULL, \
     seq, version, time, scope_id, key, operation, prev, expires_at, flags, row_check, value, actor, run, reason FROM log \
     WHERE seq > ?1 ORDER BY seq";
/// The newest change up to a row.
pub(super) const AT_OR_BEFORE: &str = "SELECT seq, version FROM log WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1";
/// The named watches of a scope.
pub(super) const CURSORS: &str = "SELECT name, seq, version FROM cursor WHERE scope_id = ?1 ORDER BY name";
/// One of them.
pub(super) const CURSOR: &str = "SELECT seq, version FROM cursor WHERE scope_id = ?1 AND name = ?2";
/// Adds one.
pub(super) const ADD_CURSOR: &str =
    "INSERT INTO cursor (scope_id, name, seq, version) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (scope_id, name) DO NOTHING";
/// Moves one forward.
pub(super) const MOVE_CURSOR: &str =
    "UPDATE cursor SET seq = ?3, version = ?4 WHERE scope_id = ?1 AND name = ?2 AND seq < ?3";
/// Removes one.
pub(super) const DROP_CURSOR: &str = "DELETE FROM cursor WHERE scope_id = ?1 AND name = ?2";
/// Appends a change.
pub(super) const APPEND: &str = "INSERT INTO log (seq, version, time, scope_id, key, operation, prev, expires_at, flags, row_check, value, actor, run, reason) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
/// The first change of a key.
pub(super) const ADD_ENTRY: &str = "INSERT INTO entry (scope_id, key, seq, live, created_at, expires_at, versions) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// A further change of a key.
pub(super) const MOVE_ENTRY: &str = "UPDATE entry SET seq = ?3, live = ?4, created_at = ?5, expires_at = ?6, versions = ?7 WHERE scope_id = ?1 AND key = ?2";
/// A further change of a key, if the one before is the newest and has left a value.
pub(super) const SUPERSEDE: &str = "UPDATE entry SET seq = ?3, created_at = ?4, expires_at = ?5, versions = versions + 1 \
     WHERE scope_id = ?1 AND key = ?2 AND seq = ?6 AND live";
/// Names of child scopes.
pub(super) const SCOPES: &str = "SELECT name FROM scope WHERE parent_id = ?1 ORDER BY name";
/// Every scope.
pub(super) const ALL_SCOPES: &str = "SELECT id, parent_id, name FROM scope";
/// One child scope.
pub(super) const FIND_SCOPE: &str = "SELECT id FROM scope WHERE parent_id = ?1 AND name = ?2";
/// The scope around a scope.
pub(super) const PARENT: &str = "SELECT parent_id FROM scope WHERE id = ?1";
/// Adds a child scope to its parent's tenant, with a number below `?3`.
pub(super) const ADD_SCOPE: &str = "INSERT INTO scope (id, tenant_id, parent_id, name) \
     SELECT (SELECT max(id) + 1 FROM scope WHERE id < ?3), tenant_id, id, ?2 FROM scope WHERE id = ?1";

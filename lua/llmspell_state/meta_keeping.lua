---@meta _

--- For editors (LuaLS) only: how long keys and their past are kept, what they take, and forks of scopes.

---@class llmspell_state.Data
local Data = {}

---Gives a key another time to live from now on, and leaves its value. It is a change: the key gets a new version.
---@param key string
---@param ttl number? seconds; `math.huge` for ever; default: as the scope says
---@return boolean was_there
function Data:touch(key, ttl) end

---@class llmspell_state.Scope
local Scope = {}

---How many seconds keys live that are set here without a time to live, as was set here or for the nearest scope around it;
---nil when they live for ever.
---@return number?
function Scope:default_ttl() end

---Says how long keys live that are set from now on without a time to live, in this scope and those inside it that have no such
---word of their own. It is kept in the store.
---@param ttl number? seconds; `math.huge` for ever; nil takes back what was said here
---@return integer version of the commit
function Scope:set_default_ttl(ttl) end

---How much of the past is kept: values that were replaced, and keys that are gone. What goes beyond any of the bounds is trimmed
---in the background, never what a key is now, nor, unless told so, what a named watch has still to tell.
---`State.null` sets no bound. In what is given, a part that is missing is as in the default; `retention()` answers every part,
---so that what it answers may be given back.
---@class llmspell_state.Retention
---@field max_age number|lightuserdata|nil seconds since it was replaced or has gone (30 days)
---@field max_versions integer|lightuserdata|nil versions of a key, the present one included (100)
---@field max_bytes integer|lightuserdata|nil bytes of stored values of the past in a scope; the oldest go first (no bound)
---@field trim_watched boolean? trim also what a named watch has still to tell, which then fails with `NotFound` (false)
---@field cleanup_interval number? how often, in seconds, the past is trimmed at least (60); it counts in the `retention` with which
---a store is opened, not in what `set_retention` keeps

---The policy in force: as was set here or for the nearest scope around it; where none was set, also not for the store itself, as
---this opening of the store says.
---@return llmspell_state.Retention
function Scope:retention() end

---Says how much of the past is kept of this scope and those inside it that have no policy of their own. It is kept in the
---store, and counts from the next time that the past is trimmed: within the cleanup interval, or at once with `cleanup()`. What
---is set for the store itself (`state:set_retention`) goes before the settings of every process that opens it.
---@param policy llmspell_state.Retention? nil takes back what was said here
---@return integer version of the commit
function Scope:set_retention(policy) end

---@class llmspell_state.Usage
---@field keys integer keys that exist
---@field live_bytes integer bytes in which their values are stored; what a fork has not changed counts where it was forked from
---@field history_bytes integer bytes in which values of the past are stored
---@field changes integer changes in the log; those from before a fork are its origin's

---What this scope takes, with the scopes inside it. It looks at every change in the log: about a second for a million.
---@return llmspell_state.Usage
function Scope:usage() end

---@class llmspell_state.State
local State = {}

---@class llmspell_state.Cleanup
---@field expired integer keys whose time had run out and of which nobody had told yet
---@field trimmed integer changes that were taken out of the log

---Does at once what is done in the background: tells of keys whose time has run out, and takes out of the log what is not to be
---kept. The file does not shrink; its space is used again.
---@return llmspell_state.Cleanup
function State:cleanup() end

---Makes a copy of a scope inside this one under another name, with all scopes inside it, their keys, and their history up to now;
---from then on the two are independent. `NotFound` when there is no such scope, `Conflict` when there is one of the new name.
---@param name string
---@param new_name string
---@return llmspell_state.Scope
function Scope:fork(name, new_name) end

---What a conflict may be answered with, apart from a value: `State.ours`, `State.theirs`, `State.deleted`.
---@class llmspell_state.Marker

---A key that is another in a fork and in what it was forked from, and was neither when they parted.
---@class llmspell_state.MergeConflict
---@field path string[] the names that lead to its scope from the one that is merged into; empty for that one
---@field key string
---@field base llmspell_state.Value? its value when they parted; nil where it was not there, or is not kept any more
---@field ours llmspell_state.Value? its value in the scope that is merged into; nil where it is not there
---@field theirs llmspell_state.Value? its value in the fork

---@class llmspell_state.Merged
---@field version integer version of the commit; of the newest one when there was nothing to change
---@field keys integer how many keys were changed
---@field conflicts { path: string[], key: string }[] keys left alone, since both sides have changed them

---Merges what a fork of this scope has changed since they parted, with the scopes inside it, in one commit. Of a key that both
---have changed, to different values, `resolve` says what becomes of it: a marker, a value that it gets (`State.null` is one), or
---nil, as without `resolve`, to leave it alone and tell it. It may use the store, in a task also wait, and is asked again about
---what others have changed meanwhile. When it raises, nothing is merged. Scopes that only the fork has are made before the
---commit, empty.
---@param fork llmspell_state.Scope
---@param resolve? fun(conflict: llmspell_state.MergeConflict): llmspell_state.Value|llmspell_state.Marker|nil
---@return llmspell_state.Merged
function Scope:merge_from(fork, resolve) end

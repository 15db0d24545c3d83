---@meta llmspell_state

--- For editors (LuaLS) only: what `require "llmspell_state"` answers. Not loaded at run time. Futures and tasks are in
--- `meta_tasks.lua`; how long things are kept, and forks, in `meta_keeping.lua`.

---What can be stored: nil is not among it, `State.null` is. A string that is not valid UTF-8 is binary.
---A table with the keys 1 to n is an array, one with string keys an object; `{}` is an empty object.
---@alias llmspell_state.Value boolean|number|string|table|lightuserdata|llmspell_state.Binary

---@alias llmspell_state.ErrorKind
---| "Invalid"          # an argument breaks a rule that the message names
---| "Conflict"         # another writer changed what this call relied on: read again and retry
---| "PermissionDenied" # the operating system refuses
---| "QuotaExceeded"    # a bound on size or number would be passed
---| "Busy"             # somebody else holds the store for longer than `busy_timeout_ms`
---| "Closed"           # the store or the transaction was finished before
---| "Forked"           # the handle was made before a fork: open the store again in the child
---| "Cancelled"        # cancelled before it had any effect
---| "NotFound"         # what was named does not exist
---| "WrongKey"         # the key does not open this store
---| "Corrupt"          # stored bytes are damaged
---| "DataLoss"         # acknowledged writes are missing from the files
---| "UnknownFormat"    # not a store, or written by a newer version
---| "BackupInvalid"    # a backup cannot be used
---| "MigrationFailed"  # a migration step failed and was undone
---| "DiskFull"         # the disk is full
---| "Io"               # the operating system reported a failure
---| "CommitUnknown"    # the commit may or may not have happened: read the key again
---| "Panic"            # a bug in this library

---What a failed call raises. `tostring(e)` and `..` make text of it; match on `kind`, the message is for people.
---@class llmspell_state.Error
---@field kind llmspell_state.ErrorKind
---@field message string
---@field where string? file and line of the call
---@field traceback string? the stack of the task that it ended
---@operator concat(any): string

---Bytes that are written as binary even where they are valid UTF-8; read back, they are a plain string.
---@class llmspell_state.Binary
---@operator len: integer

---Settings of a store; unknown names are errors.
---@class llmspell_state.Options
---@field persistence_path string? the store's file; without one it is in memory
---@field actor string? who makes the changes of this opening; a watch tells it
---@field enable_wal boolean? SQLite's write-ahead log, which sharing between processes relies on (true)
---@field sync_mode "FULL"|"NORMAL"|"OFF"|nil when a commit counts as done ("FULL": when it is on disk)
---@field cache_size_mb integer? memory for decoded values, in MB of 2^20 bytes; 0 keeps none (64)
---@field enable_compression boolean? compress values where it saves space (true)
---@field exclusive boolean? only this process may open the store: faster; a second one gets `Busy` (false)
---@field create boolean? make the file when it is missing (true)
---@field create_dirs boolean? make missing parent directories too (false)
---@field accept_rollback boolean? open a store that holds less than was acknowledged, as an older copy put back does (false)
---@field max_value_bytes integer? the longest stored text of one value, in bytes (64 MiB)
---@field busy_timeout_ms integer? how long a write waits for other processes, in milliseconds (30000)
---@field retention llmspell_state.Retention? how much of the past is kept, where neither store nor scope have one set

---Which keys, from where, how many, in which direction.
---@class llmspell_state.Select
---@field pattern string? a glob over whole keys: `*` `?` `[a-z]` `[!a-z]` `\`
---@field after string? start behind this key (below it when `reverse`)
---@field limit integer? at most so many
---@field reverse boolean? in descending order

---@class llmspell_state.Entry
---@field value llmspell_state.Value
---@field version integer version of the commit that wrote it; 0 for an own write of a transaction
---@field created number seconds since the epoch, as `os.time` counts
---@field updated number seconds since the epoch
---@field expires number? seconds since the epoch; nil for a key that lives for ever, and for a transaction's own write that is to
---live as the scope's default says

---What can be read of every handle. `#handle` counts the keys; `pairs(handle)` walks over all items (Lua 5.2 and newer).
---@class llmspell_state.Reading
---@operator len: integer
local Reading = {}

---The value, or `default` when the key is missing. A stored null is `State.null`.
---@param key string 1 to 1024 bytes of UTF-8 without control characters, not starting with `__`
---@param default any?
---@return any
function Reading:get(key, default) end

---The value with what is known of it, or nil.
---@param key string
---@return llmspell_state.Entry?
function Reading:entry(key) end

---Several values in one consistent read.
---@param keys string[]
---@return table<string, llmspell_state.Value> found only what is there
function Reading:get_many(keys) end

---Keys in order of their bytes, fetched in pages; no lock is held in between.
---@param select string|llmspell_state.Select|nil
---@return fun(): string?
function Reading:keys(select) end

---Keys and values, as `keys`.
---@param select string|llmspell_state.Select|nil
---@return fun(): string?, llmspell_state.Value
function Reading:items(select) end

---@param pattern string? default: every key
---@return integer
function Reading:count(pattern) end

---@param key string
---@return boolean
function Reading:exists(key) end

---A space of keys of its own, isolated from this one and from every other scope.
---@param name string
---@return self
function Reading:scope(name) end

---The data operations of every handle but a view.
---@class llmspell_state.Data: llmspell_state.Reading
local Data = {}

---Stores a value.
---@param key string
---@param value llmspell_state.Value
---@param options? { ttl: number?, if_version: integer? } `ttl`: how many seconds the key lives from the commit on, `math.huge` for
---ever, default as the scope says; `if_version`: compare-and-set, 0 = the key must not exist, otherwise `Conflict`
---@return integer? version of the commit; nothing inside a transaction
function Data:set(key, value, options) end

---Stores every pair of a table, in one commit.
---@param values table<string, llmspell_state.Value>
---@param options? { ttl: number } how many seconds they live, as in `set`
---@return integer? version of the commit; nothing inside a transaction
function Data:set_many(values, options) end

---@param key string
---@param options? { if_version: integer }
---@return boolean was_there
function Data:delete(key, options) end

---Deletes every key that fits, in one commit.
---@param pattern string? default: every key
---@return integer deleted
function Data:clear(pattern) end

---Replaces a value by what `change` makes of it, exactly: it runs again when another writer was faster.
---@param key string
---@param change fun(value: any): llmspell_state.Value
---@param default llmspell_state.Value? what `change` gets for a missing key; without it, nil
---@return llmspell_state.Value new
function Data:modify(key, change, default) end

---Adds to a number; a missing one is 0.
---@param key string
---@param by number? default: 1
---@return number new
function Data:increment(key, by) end

---Adds an item to the end of an array; a missing one is empty.
---@param key string
---@param item llmspell_state.Value
---@return integer length
function Data:append(key, item) end

---JSON Merge Patch (RFC 7386): `State.null` in the patch removes a member.
---@param key string
---@param patch llmspell_state.Value
---@return llmspell_state.Value merged
function Data:merge(key, patch) end

---A space of keys.
---@class llmspell_state.Scope: llmspell_state.Data
local Scope = {}

---@param name string
---@return llmspell_state.Scope
function Scope:scope(name) end

---The names of the scopes below this one.
---@return string[]
function Scope:scopes() end

---With a function: as `transact`. Without: begins a transaction that `commit` or `rollback` ends.
---@generic T
---@param run fun(tx: llmspell_state.Transaction): T...
---@return T...
---@overload fun(self): llmspell_state.Transaction
function Scope:transaction(run) end

---Commits when `run` returns and answers what it returned; rolls back when it raises, and raises the same.
---Runs it again when another writer changed what it read.
---@generic T
---@param run fun(tx: llmspell_state.Transaction): T...
---@param options? { attempts: integer }
---@return T...
function Scope:transact(run, options) end

---Every change of the keys that match, once, in the order of commits, from now on or from a version of the past.
---`for change in state:watch("user:*") do … end` waits for the next as long as it takes, until the watch is closed.
---@param options string|llmspell_state.WatchOptions|nil a pattern, or a table; default: every key of this scope
---@return llmspell_state.Watch
function Scope:watch(options) end

---The named watches of this scope, and the versions that they are done with.
---@return table<string, integer>
function Scope:named_watches() end

---Forgets how far a named watch has come.
---@param name string
---@return boolean was_there
function Scope:forget_watch(name) end

---@class llmspell_state.WatchOptions
---@field pattern string? a glob over whole keys
---@field since integer? only commits after this version
---@field name string? keeps in the store how far the watch has come; opened again, it goes on there, whatever `since` is

---A change of a key.
---@class llmspell_state.Change
---@field key string
---@field operation "set"|"delete"|"expire"|"touch"
---@field value llmspell_state.Value? what it got, or has kept; nil where it is gone, `State.null` for a stored null
---@field old llmspell_state.Value? what it had; nil when it was not there
---@field version integer version of the commit; all changes of one commit share it
---@field time number seconds since the epoch, as `os.time` counts
---@field actor string? who wrote: of `as_run`, or the setting `actor`
---@field run string? in the course of what, as `as_run` was told
---@field reason string? and why
---@field ends_commit boolean whether it is the last one of its commit: keep a version to go on from then

---A stream of changes. With `<close>` (Lua 5.4) it is closed at the end of the block.
---@class llmspell_state.Watch
---@overload fun(): llmspell_state.Change?
local Watch = {}

---The next change; nil when none came in time, or when the watch is closed.
---@param timeout number? seconds, parts of one, too; default: as long as it takes
---@return llmspell_state.Change?
function Watch:next(timeout) end

---Counts what was taken as done and, for a named watch, keeps that in the store.
function Watch:save() end

---Ends the stream, for those who wait, too. A named watch keeps how far it has come. Closing the state alone ends it as well,
---but keeps nothing: what came since the last `save` comes again.
function Watch:close() end

---The last version that the script is done with.
---@return integer
function Watch:version() end

---@return string?
function Watch:name() end

---The same scope, whose changes, and those of handles made from it, carry who made them, in the course of what, and why.
---What is left out stays as it was.
---@param origin { actor: string?, run: string?, reason: string? } 1 to 256 bytes of UTF-8, the reason up to 4096
---@return llmspell_state.Scope
function Scope:as_run(origin) end

---A moment of the past: a version, or as the store was at a time in seconds since the epoch, as `os.time` counts and
---entries, revisions and changes tell.
---@alias llmspell_state.Moment integer|{ version: integer }|{ time: number }

---What has happened to a key at one moment.
---@class llmspell_state.Revision
---@field operation "set"|"delete"|"expire"|"touch"
---@field value llmspell_state.Value? what the key got, or has kept; nil where it is gone
---@field version integer version of the commit
---@field time number seconds since the epoch
---@field actor string?
---@field run string?
---@field reason string?

---What has happened to a key, the newest first.
---@param key string
---@param options? { limit: integer } at most so many (100)
---@return llmspell_state.Revision[]
function Scope:history(key, options) end

---The scope as it was at a moment; `Invalid` for a version that is still to come.
---@param when llmspell_state.Moment
---@return llmspell_state.View
function Scope:at(when) end

---A key that is not the same at two moments.
---@class llmspell_state.Difference
---@field key string
---@field old llmspell_state.Value? its value at the first moment; nil where it was not there
---@field new llmspell_state.Value? its value at the second

---The keys whose values differ between two moments, in order of their bytes.
---@param from llmspell_state.Moment
---@param to llmspell_state.Moment? default: now
---@param pattern string? default: every key
---@return fun(): llmspell_state.Difference?
function Scope:diff(from, to, pattern) end

---Gives a key the value that it had at a moment, or deletes it where it was not there; a commit like any other.
---@param key string
---@param when llmspell_state.Moment
---@return integer version of the commit
function Scope:revert(key, when) end

---Makes every key that fits as it was at a moment, in one commit, which can itself be reverted.
---@param when llmspell_state.Moment
---@param pattern string? default: every key
---@return integer changed how many keys were not as they had been
function Scope:revert_to(when, pattern) end

---What came of `undo`.
---@class llmspell_state.Undone
---@field version integer version of the commit; of the newest one when there was nothing to take back
---@field keys integer how many keys are as they were
---@field refused llmspell_state.Refused[] keys left alone, since somebody else has changed them later

---@class llmspell_state.Refused
---@field scope string[] the names that lead to its scope from the one that `undo` was called on; empty for that one
---@field key string

---Takes back, in one commit, what an actor or a run has changed in this scope and those inside it.
---@param what { actor: string?, run: string?, since: integer? } an actor, a run or both; only what came after a version
---@return llmspell_state.Undone
function Scope:undo(what) end

---A scope as it was at a moment, whatever is written meanwhile.
---@class llmspell_state.View: llmspell_state.Reading
local View = {}

---A scope inside this one, as it was at the same moment; `NotFound` where there is none of this name.
---@param name string
---@return llmspell_state.View
function View:scope(name) end

---The version of the newest commit that it shows.
---@return integer
function View:version() end

---An open store. In Lua 5.4 `local state <close> = State.open(…)` closes it at the end of the block.
---@class llmspell_state.State: llmspell_state.Scope
local State = {}

---Closes the store for this handle and for every scope and transaction of it. May be called again.
function State:close() end

---The version of the newest commit.
---@return integer
function State:version() end

---The store's own identity, a UUID.
---@return string
function State:store_id() end

---What `verify` found.
---@class llmspell_state.Verification
---@field ok boolean whether nothing is wrong
---@field version integer the newest commit that was looked at
---@field changes integer changes in the log, each compared with its check and with the one before it of the same key
---@field keys integer keys that exist, in all scopes
---@field scopes integer scopes, the root included
---@field problems string[] one text for each thing that is wrong, at most 100

---Reads the whole store and compares everything with its checks; changes nothing.
---@return llmspell_state.Verification
function State:verify() end

---Reads see the store as it was at the beginning, plus own writes; `commit` raises `Conflict` when what was read has changed.
---With `<close>` (Lua 5.4) it is rolled back unless committed. It is for one task at a time: where several tasks share one, and
---the function of a `modify` waits, what another one wrote under that key meanwhile is replaced.
---@class llmspell_state.Transaction: llmspell_state.Data
local Transaction = {}

---@return integer version
function Transaction:commit() end

function Transaction:rollback() end

---@class llmspell_state
---@field null lightuserdata a stored null; true where Lua asks for a condition
---@field ours llmspell_state.Marker a conflict's answer: it stays as it is in the scope that is merged into
---@field theirs llmspell_state.Marker a conflict's answer: it becomes as it is in the fork
---@field deleted llmspell_state.Marker a conflict's answer: the key is deleted
---@field version string the version of this library
local module = {}

---Opens a store: a file, or without a path one in memory. In a task, others run meanwhile.
---@param path string?
---@param options llmspell_state.Options?
---@return llmspell_state.State
---@overload fun(options: llmspell_state.Options): llmspell_state.State
function module.open(path, options) end

---Marks a table as an array, so that an empty one is stored as one. Arrays read from a store keep the mark.
---@generic T
---@param items T[]?
---@return T[]
function module.array(items) end

---@param bytes string
---@return llmspell_state.Binary
function module.binary(bytes) end

return module

-- The Lua watcher of the stage `watch`: `tell STORE JOURNAL SCOPE PATTERN SINCE NAME SAVE_EVERY`.
-- src/stages/watch/work.rs tells what it writes into its journal.
local State = require "llmspell_state"

local END = -1
--- The whole log is looked at afterwards.
local KEEP_ALL = { max_versions = State.null, max_age = State.null }
local _, path, journal_path, inner, pattern, since, name, save_every = (table.unpack or unpack)(arg)

local function given(word) return word ~= "-" and word or nil end

local journal = assert(io.open(journal_path, "ab"))
journal:setvbuf("full", 65536)

--- One write a line, before the next change is asked for: what was told before the process dies is told whole.
local function say(...)
  journal:write(table.concat({ ... }, " "), "\n")
  journal:flush()
end

--- Whole numbers below 2^53, and strings without anything to escape.
local function text(value)
  if value == nil then return "-" end
  return type(value) == "number" and ("%.0f"):format(value) or '"' .. value .. '"'
end

local state = State.open(path, { retention = KEEP_ALL })
local scope = given(inner) and state:scope(inner) or state
local watch = scope:watch { pattern = pattern, since = tonumber(given(since)), name = given(name) }
save_every = tonumber(save_every)
say("o", text(watch:version()))
local count = 0
for change in watch do
  count = count + 1
  say("c", text(change.version), change.key, change.operation, text(change.value), text(change.old),
    change.actor or "-", change.ends_commit and 1 or 0)
  local over = change.ends_commit and change.value == END
  if save_every > 0 and (over or count % save_every == 0) then
    watch:save()
    say("s", text(watch:version()))
  end
  if over then
    say("e")
    watch:close()
  end
end
state:close()

--- Durable, shared, transactional state for Lua.
---
---     local State = require "llmspell_state"
---     local state = State.open("agent.db")           -- State.open() keeps it in memory
---     state:set("user:123", { name = "Alice", score = 100 })
---     print(state:get("user:123").name)
---
--- Everything public is described in `meta.lua` and the files beside it, which editors read.
local native = require "llmspell_state.native"
-- Loaded again, it is the same.
if native.kept.module then return native.kept.module end

local tasks = require "llmspell_state.tasks"
local methods = require "llmspell_state.methods"

local State = {
  open = native.open,
  null = native.null,
  ours = native.ours,
  theirs = native.theirs,
  deleted = native.deleted,
  array = native.array,
  binary = native.binary,
  version = native.version,
}
for name, f in pairs(tasks.public) do State[name] = f end

native.kept.module, methods.module = State, State
methods.add_futures()

return State

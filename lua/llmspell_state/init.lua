--- Durable, shared, transactional state for Lua.
---
---     local State = require "llmspell_state"
---     local state = State.open("agent.db")           -- State.open() keeps it in memory
---     state:set("user:123", { name = "Alice", score = 100 })
---     print(state:get("user:123").name)
---
--- Everything public is described in `meta.lua`, which editors read.
local native = require "llmspell_state.native"

return {
  open = native.open,
  null = native.null,
  array = native.array,
  binary = native.binary,
  version = native.version,
}

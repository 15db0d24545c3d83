-- The same small program as quickstart.py: run it with lua5.4, lua5.3, lua5.1 or luajit.
local State = require "llmspell_state"

local path = os.tmpname()
os.remove(path)

local state = State.open(path) -- State.open() alone is in memory; in Lua 5.4: local state <close> = …

state:set("user:123", { name = "Alice", score = 100 })
state:set("user:124", { name = "Bob", score = 70 })
for key, user in state:items("user:*") do print(key, user.name, user.score) end

state:transaction(function(tx) -- commits at the end, rolls back on an error, runs again on a conflict
  local alice, bob = tx:get("user:123"), tx:get("user:124")
  alice.score, bob.score = alice.score - 10, bob.score + 10
  tx:set("user:123", alice)
  tx:set("user:124", bob)
end)
assert(state:get("user:123").score == 90 and state:get("user:124").score == 80)

assert(state:increment("visits") == 1) -- exact, however many processes do it at once
assert(state:append("log", "started") == 1)
assert(state:merge("user:123", { city = "Paris" }).name == "Alice")

local tenant = state:scope("tenant:a") -- isolated from state and from every other scope
tenant:set("config", { theme = "dark" })
assert(state:get("config") == nil)

local ok, e = pcall(state.set, state, "user:123", {}, { if_version = 0 }) -- 0: it must not exist
assert(not ok and e.kind == "Conflict")
print("refused:", tostring(e))

state:close()
state = State.open(path)
assert(tenant ~= nil and state:scope("tenant:a"):get("config").theme == "dark")
state:close()
for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(path .. suffix) end
print("quickstart: ok")

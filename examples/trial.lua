-- An agent tries a plan in a fork of its memory, while the original goes on, and keeps what has come of it.
-- Run it with lua5.4, lua5.3, lua5.1 or luajit.
local State = require "llmspell_state"

local state = State.open { retention = { max_versions = 20 } }
local agent = state:scope("agent")
agent:set_many { plan = { "search", "answer" }, budget = 10, mood = "calm" }
agent:set("draft", "short-lived", { ttl = 3600 })

local trial = state:fork("agent", "trial")
trial:set("plan", { "search", "buy", "answer" })
trial:increment("budget", -6)
trial:set("mood", "bold")

agent:increment("budget", -1) -- meanwhile, in the original
agent:set("mood", "hurried")
assert(#agent:get("plan") == 2)

local asked = {}
local merged = agent:merge_from(trial, function(conflict) -- only for what both have changed
  asked[#asked + 1] = conflict.key
  if conflict.key == "budget" then return conflict.ours + conflict.theirs - conflict.base end
  return State.ours -- or State.theirs, State.deleted; nil leaves it alone and tells it
end)
assert(merged.keys == 2 and #merged.conflicts == 0 and table.concat(asked, " ") == "budget mood")
assert(#agent:get("plan") == 3 and agent:get("budget") == 3 and agent:get("mood") == "hurried")

-- In a task, the function may wait, for a language model for example.
trial:set("mood", "curious")
State.run(function()
  agent:merge_from(trial, function(conflict)
    State.sleep(0.01)
    return conflict.ours .. ", then " .. conflict.theirs
  end)
end)
assert(agent:get("mood") == "hurried, then curious")

local usage = agent:usage()
print(("%d keys; %d bytes now, %d of the past, in %d changes"):format(
  usage.keys, usage.live_bytes, usage.history_bytes, usage.changes))
state:close()
print("trial: ok")

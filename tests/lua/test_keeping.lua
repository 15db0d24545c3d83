local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

--- In how many seconds a key expires.
local function left(handle, key)
  local entry = handle:entry(key)
  return entry.expires and entry.expires - entry.updated
end

tests["set takes a time to live and a version, together as well"] = function()
  local state = support.state()
  local version = state:set("k", 1, { ttl = 3600, if_version = 0 })
  equal(math.floor(left(state, "k") + 0.5), 3600)
  fails("Conflict", {}, state.set, state, "k", 2, { ttl = 5, if_version = 0 })
  state:set("k", 2, { if_version = version, ttl = math.huge })
  equal(left(state, "k"), nil)
  state:set("k", 3, { ttl = 0.5 })
  assert(math.abs(left(state, "k") - 0.5) < 0.01)
  state:set_many({ a = 1, b = 2 }, { ttl = 60 })
  equal(math.floor(left(state, "a") + 0.5), 60)
  state:set_many({ a = 1 }, {})
  equal(left(state, "a"), nil)
end

tests["what is no time to live is told as Lua tells it"] = function()
  local state = support.state { k = 1 }
  local tx = state:transaction()
  for _, wrong in ipairs { "60", true, {}, State.null } do
    local given = "number of seconds expected, got " .. type(wrong)
    for _, handle in ipairs { state, tx } do
      for _, verb in ipairs { "set", "set_async" } do
        fails("Invalid", "#3 to 'set' (option 'ttl': " .. given, handle[verb], handle, "k", 2, { ttl = wrong })
      end
      for _, verb in ipairs { "set_many", "set_many_async" } do
        fails("Invalid", "#2 to 'set_many' (option 'ttl': " .. given, handle[verb], handle, { k = 2 }, { ttl = wrong })
      end
      for _, verb in ipairs { "touch", "touch_async" } do
        fails("Invalid", "#2 to 'touch' (" .. given, handle[verb], handle, "k", wrong)
      end
    end
    fails("Invalid", "#1 to 'set_default_ttl' (" .. given, state.set_default_ttl, state, wrong)
  end
  for _, wrong in ipairs { 0, -1, 0 / 0, -math.huge, 1e15 } do
    fails("Invalid", "ttl is", state.set, state, "k", 2, { ttl = wrong })
    fails("Invalid", "ttl is", tx.set, tx, "k", 2, { ttl = wrong })
    fails("Invalid", "ttl is", state.touch, state, "k", wrong)
    fails("Invalid", "ttl is", state.set_default_ttl, state, wrong)
  end
  fails("Invalid", "unknown option 'tll'; it takes ttl, if_version", state.set, state, "k", 2, { tll = 5 })
  fails("Invalid", "unknown option 'if_version'; it takes ttl", state.set_many, state, { k = 2 }, { if_version = 0 })
  fails("Invalid", "#2 to 'set_many' (table expected, got number)", state.set_many, state, { k = 2 }, 60)
  fails("Invalid", "#1 to 'touch' (string expected, got no value)", state.touch, state)
  equal(state:get("k"), 1)
end

tests["touch says whether the key was there, and tells watches and history"] = function()
  local state = support.state { k = 1 }
  local watch = state:watch()
  equal(state:touch("k", 60), true)
  equal(state:touch("nobody", 60), false)
  local change = watch:next(5)
  equal({ change.operation, change.value, change.old }, { "touch", 1, 1 })
  equal(state:history("k", { limit = 1 })[1].operation, "touch")
  state:transaction(function(tx)
    equal(tx:touch("k"), true)
    equal(tx:touch("nobody", 5), false)
    equal(select("#", tx:set("t", 1, { ttl = 60 })), 0)
    equal(select("#", tx:set_many({ u = 1 }, { ttl = 60 })), 0)
  end)
  equal(left(state, "k"), nil)
  equal({ math.floor(left(state, "t") + 0.5), math.floor(left(state, "u") + 0.5) }, { 60, 60 })
end

tests["a scope's default is a float of seconds, or nil"] = function()
  local state = support.state()
  local agent = state:scope("agent")
  equal(agent:default_ttl(), nil)
  equal(agent:set_default_ttl(60), state:version())
  equal({ agent:default_ttl(), agent:scope("inner"):default_ttl() }, { 60 + 0.0, 60 + 0.0 })
  agent:scope("inner"):set_default_ttl(math.huge)
  equal(agent:scope("inner"):default_ttl(), nil)
  agent:set("k", 1)
  equal(math.floor(left(agent, "k") + 0.5), 60)
  agent:set_default_ttl(nil)
  agent:set_default_ttl()
  equal(agent:default_ttl(), nil)
end

tests["a policy is a table, in which null sets no bound"] = function()
  local state = State.open { retention = { max_versions = 5 } }
  local default = { max_versions = 5, max_age = 2592000.0, max_bytes = State.null, trim_watched = false, cleanup_interval = 60.0 }
  equal(state:retention(), default)
  local agent = state:scope("agent")
  local policy = { max_age = State.null, max_versions = State.null, max_bytes = 1000, trim_watched = true }
  equal(agent:set_retention(policy), state:version())
  policy.cleanup_interval = 60.0
  equal(agent:retention(), policy)
  agent:set_retention(agent:retention())
  equal(agent:retention(), policy)
  equal(State.open({ retention = policy }):retention(), policy)
  agent:set_retention(nil)
  equal(agent:retention().max_versions, 5)
  agent:set_retention {}
  equal(agent:retention().max_versions, 100)
  -- Whatever arithmetic has made of a whole number.
  agent:set_retention { max_versions = 10 / 2, max_age = 1 / 4 }
  equal({ agent:retention().max_versions, agent:retention().max_age }, { 5, 0.25 })
  agent:set_retention { max_bytes = 2 ^ 52 }
  equal(agent:retention().max_bytes, math.type and math.tointeger(2 ^ 52) or 2 ^ 52)
end

tests["a policy that is none is refused"] = function()
  local state = support.state()
  for _, wrong in ipairs {
    { 5, "#1 to 'set_retention' (table expected, got number)" }, { State.null, "table expected, got userdata" },
    { State.array {}, "named" }, { { 1 }, "named" }, { { max_versoins = 5 }, "max_versions" },
    { { max_versions = 1.5 }, "max_versions" }, { { max_age = "1" }, "max_age" }, { { trim_watched = State.null }, "trim_watched" },
    { { max_age = print }, "function" }, { { max_age = math.huge }, "max_age" },
  } do
    fails("Invalid", wrong[2], state.set_retention, state, wrong[1])
    fails("Invalid", wrong[2], state.set_retention_async, state, wrong[1])
  end
  fails("Invalid", "max_versions", State.open, { retention = { max_versoins = 5 } })
  fails("Invalid", "retention", State.open, { retention = 5 })
  equal(state:version(), 0)
end

tests["usage and cleanup answer counts"] = function()
  local state = State.open { retention = { max_versions = 1 } }
  for n = 1, 3 do state:set("k", n) end
  state:scope("inner"):set("gone", 1, { ttl = 0.001 })
  State.sleep(0.01)
  local before = state:usage()
  equal({ before.live_bytes, before.history_bytes > 0 }, { 1, true })
  local done = state:cleanup()
  equal(done.trimmed >= 2, true)
  equal(state:usage().keys, 1)
  equal(state:scope("inner"):usage().keys, 0)
  equal(state:scope("inner").cleanup, nil)
  equal(state:cleanup(), { expired = 0, trimmed = 0 })
end

tests["verbs of what is kept have their futures"] = function()
  local state = support.state()
  state:scope("agent")
  equal(state:set_async("k", 1, { ttl = 60, if_version = 0 }):await(), state:version())
  equal(state:set_many_async({ l = 1 }, { ttl = 60 }):await(), state:version())
  equal(math.floor(left(state, "l") + 0.5), 60)
  equal({ state:touch_async("k"):await(), state:touch_async("x"):await() }, { true, false })
  equal(state:set_default_ttl_async(60):await(), state:version())
  equal(state:default_ttl_async():await(), 60 + 0.0)
  equal(state:set_default_ttl_async():await(), state:version())
  equal(state:default_ttl_async():await(), nil)
  equal(state:set_retention_async({ max_versions = 7 }):await(), state:version())
  equal(state:retention_async():await().max_versions, 7)
  equal(state:usage_async():await().keys, 2)
  equal(state:cleanup_async():await().expired, 0)
  equal(state:fork_async("agent", "trial"):await():count(), 0)
  local tx = state:transaction()
  equal(select("#", tx:set_async("t", 1, { ttl = 60 }):await()), 0)
  equal(select("#", tx:set_async("v", 1, { ttl = 60, if_version = 0 }):await()), 0)
  equal(select("#", tx:set_many_async({ u = 1 }, { ttl = 60 }):await()), 0)
  equal({ tx:touch_async("k", 60):await(), tx:touch_async("x"):await() }, { true, false })
  tx:commit()
  for _, key in ipairs { "t", "u", "v", "k" } do equal(math.floor(left(state, key) + 0.5), 60) end
end

tests["views have none of the verbs that change, and what is kept ends with the store"] = function()
  local state = support.state { k = 1 }
  local past, agent = state:at(1), state:scope("agent")
  for _, verb in ipairs {
    "touch", "default_ttl", "set_default_ttl", "retention", "set_retention", "usage", "cleanup", "fork", "merge_from",
  } do
    equal({ past[verb] or false, past[verb .. "_async"] or false }, { false, false })
    fails("Invalid", "bad self", state[verb], past, "k", "l")
  end
  for _, verb in ipairs { "default_ttl", "set_default_ttl", "retention", "set_retention", "usage", "fork", "merge_from" } do
    local tx = state:transaction()
    equal(tx[verb], nil)
    fails("Invalid", "bad self (State or Scope expected", state[verb], tx, "k", "l")
  end
  state:close()
  for _, call in ipairs {
    { "touch", "k" }, { "default_ttl" }, { "set_default_ttl", 5 }, { "retention" }, { "set_retention", {} }, { "usage" },
    { "fork", "agent", "trial" }, { "merge_from", agent }, { "merge_from", agent, print },
  } do
    for _, handle in ipairs { state, agent } do fails("Closed", {}, handle[call[1]], handle, call[2], call[3]) end
  end
  fails("Closed", {}, state.cleanup, state)
end

return tests

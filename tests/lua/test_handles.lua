local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

tests["after close every call on the store, its scopes and iterators is an error"] = function()
  local state = support.state { k = 1 }
  local scope = state:scope("a")
  state:close()
  for _, handle in ipairs { state, scope } do
    for _, call in ipairs {
      { "get", "k" }, { "set", "k", 1 }, { "delete", "k" }, { "exists", "k" }, { "entry", "k" }, { "keys" }, { "items" },
      { "count" }, { "clear" }, { "get_many", { "k" } }, { "set_many", { k = 1 } }, { "increment", "k" }, { "append", "k", 1 },
      { "merge", "k", {} }, { "modify", "k", function() return 1 end }, { "transaction" }, { "transact", print }, { "scopes" },
    } do
      fails("Closed", {}, handle[call[1]], handle, call[2], call[3])
    end
  end
end

tests["verify says what it looked at, and finds nothing wrong"] = function()
  local state = support.state { a = 1, b = { 2 } }
  state:scope("s"):set("c", 3)
  state:delete("a")
  equal(state:verify(), { ok = true, version = 3, changes = 4, keys = 2, scopes = 2, problems = State.array() })
  equal(state:scope("s").verify, nil)
  state:close()
  fails("Closed", {}, state.verify, state)
end

tests["verify finds a flipped byte of a value"] = function()
  support.with_folder(function(folder)
    local path = folder .. "/a.db"
    local state = State.open(path)
    state:set("key", ("find me "):rep(8))
    state:close()
    local bytes = support.read_file(path)
    local at = assert(bytes:find("find me find", 1, true))
    support.write_file(path, support.without_check(bytes:sub(1, at - 1) .. "F" .. bytes:sub(at + 1), at))
    state = State.open(path)
    local found = state:verify()
    equal(found.ok, false)
    assert(#found.problems > 0 and found.problems[1]:find("log row 1", 1, true), found.problems[1])
    state:close()
  end)
end

tests["closing twice is fine"] = function()
  local state = State.open()
  state:close()
  state:close()
  equal(tostring(state), "State (in memory, closed)")
end

tests["tostring says what it is and shows no path in a scope"] = function()
  support.with_folder(function(folder)
    local state = State.open(folder .. "/a.db")
    assert(tostring(state):find(folder .. "/a.db", 1, true))
    assert(not tostring(state:scope("s")):find(folder, 1, true))
    state:close()
  end)
end

tests["<close> closes the store at the end of the block, also after an error"] = function()
  if _VERSION ~= "Lua 5.4" then return end
  local kept
  local run = assert(load([[
    local State, keep = ...
    local state <close> = State.open()
    keep(state)
    error("x")
  ]]))
  pcall(run, State, function(state) kept = state end)
  fails("Closed", {}, kept.get, kept, "k")
end

tests["a scope outlives its forgotten store handle"] = function()
  local scope = State.open():scope("a")
  collectgarbage()
  collectgarbage()
  scope:set("k", 1)
  equal(scope:get("k"), 1)
end

tests["iterators and transactions outlive forgotten handles"] = function()
  local iterator = support.state({ a = 1, b = 2 }):keys()
  local tx = support.state({ a = 1 }):transaction()
  collectgarbage()
  collectgarbage()
  equal(iterator(), "a")
  equal(tx:get("a"), 1)
end

tests["a forgotten store is closed by the collector: its file can be opened with other settings"] = function()
  support.with_folder(function(folder)
    local path = folder .. "/a.db"
    State.open(path):set("k", 1)
    collectgarbage()
    collectgarbage()
    local state = State.open(path, { exclusive = true })
    equal(state:get("k"), 1)
    state:close()
  end)
end

tests["thousands of handles are collected"] = function()
  local state = State.open()
  collectgarbage()
  local before = collectgarbage("count")
  for n = 1, 20000 do
    state:scope("s" .. n % 7):get("k")
    state:transaction()
    state:keys()
  end
  collectgarbage()
  collectgarbage()
  assert(collectgarbage("count") < before + 500, "memory grew")
end

tests["reading does not grow Lua's memory"] = function()
  local state = support.state { k = { list = { 1, 2, 3 }, text = ("x"):rep(1000) } }
  collectgarbage()
  local before = collectgarbage("count")
  for _ = 1, 20000 do state:get("k") end
  collectgarbage()
  assert(collectgarbage("count") < before + 500, "memory grew")
end

tests["handles work in coroutines"] = function()
  local state = support.state { a = 1, b = 2 }
  local walk = coroutine.wrap(function()
    for key, value in state:items() do coroutine.yield(key, value) end
  end)
  equal({ walk() }, { "a", 1 })
  equal({ walk() }, { "b", 2 })
end

tests["indexing a handle by an unknown name is nil, assigning is an error"] = function()
  local state = State.open()
  equal(state.unknown, nil)
  assert(not pcall(function() state.key = 1 end))
  assert(not pcall(function() state:unknown() end))
end

tests["the quickstart does what it says"] = function()
  local here = arg[0]:match("^(.*)/[^/]*$") or "."
  local said = {}
  local environment = setmetatable({ print = function(...) said[#said + 1] = table.concat({ ... }, " ") end }, { __index = _G })
  local path = here .. "/../../examples/quickstart.lua"
  local run = setfenv and setfenv(assert(loadfile(path)), environment) or assert(loadfile(path, "t", environment))
  run()
  assert(said[#said]:find("ok", 1, true), said[#said])
end

return tests

-- Scripts that mean harm, also with the debug library: a Lua error, never a crash, never a way around the rules.
local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

local function class_of(handle) return debug.getmetatable(handle) end

-- Something that a method is called on instead of a handle.
local function imposters()
  local state = State.open()
  local list = {
    nil_value = false, 1, "text", {}, print, coroutine.create(function() end), io.stdout, State.null, State.binary("x"),
    setmetatable({}, class_of(state)), state:keys(), State.binary(("\0"):rep(200)),
  }
  if newproxy then list[#list + 1] = newproxy(true) end
  return list
end

tests["69 a method of a handle on anything else is an error"] = function()
  local state = State.open()
  local tx = state:transaction()
  for name, method in pairs(class_of(state).__index) do
    for _, imposter in pairs(imposters()) do
      local ok, e = pcall(method, imposter, "k", 1)
      assert(not ok and e.kind == "Invalid", name)
    end
  end
  for _, name in ipairs { "commit", "rollback" } do
    for _, imposter in pairs(imposters()) do fails("Invalid", "bad self", tx[name], imposter) end
    fails("Invalid", "bad self", tx[name], state)
  end
end

tests["69 a metatable of ours on somebody else's userdata gives it no power"] = function()
  local state = State.open()
  local proxies = { State.binary("x"), State.binary(("A"):rep(64)) }
  local file = io.tmpfile()
  local own = debug.getmetatable(file)
  for _, proxy in ipairs(proxies) do
    debug.setmetatable(proxy, class_of(state))
    fails("Invalid", "bad self", function() return proxy:get("k") end)
    fails("Invalid", "bad self", function() return proxy:close() end)
    assert(not pcall(function() return #proxy end))
    assert(not pcall(tostring, proxy))
  end
  debug.setmetatable(file, class_of(state))
  fails("Invalid", "bad self", function() return file:get("k") end)
  debug.setmetatable(file, own)
  file:close()
  collectgarbage()
end

tests["69 a handle with another of our metatables is still what it is"] = function()
  local state = support.state { k = 1 }
  local tx = state:transaction()
  local own = class_of(tx)
  debug.setmetatable(tx, class_of(state))
  fails("Invalid", "bad self", function() return tx:close() end)
  fails("Invalid", "bad self", function() return tx:scopes() end)
  equal(tx:get("k"), 1)
  debug.setmetatable(tx, own)
  tx:commit()
end

tests["69 setmetatable and getmetatable do not reach the class"] = function()
  local state = State.open()
  assert(not pcall(setmetatable, state, {}))
  equal(type(getmetatable(state)), "string")
end

tests["69 a finalizer called by hand leaves an empty handle, twice as well"] = function()
  local state = support.state { k = 1 }
  local collect = class_of(state).__gc
  local scope = state:scope("a")
  collect(state)
  collect(state)
  fails("Invalid", "bad self", state.get, state, "k")
  fails("Invalid", "bad self", state.close, state)
  equal(scope:get("k"), nil)
  for _, imposter in pairs(imposters()) do collect(imposter) end
end

tests["69 upvalues lead nowhere"] = function()
  local state = support.state { a = 1, b = 2 }
  for _, f in pairs(class_of(state).__index) do
    -- The others are made of these.
    if debug.getinfo(f, "S").what == "C" then equal(debug.getupvalue(f, 1), nil) end
  end
  local iterator = state:items()
  for _, imposter in pairs(imposters()) do
    debug.setupvalue(iterator, 1, imposter)
    local ok, e = pcall(iterator)
    assert(ok or e.kind, "not an error of ours")
  end
end

tests["69 the registry can be spoiled without a crash"] = function()
  -- In Lua 5.1 a finalizer that another test left would raise in our loop, and what is spoiled would stay so.
  collectgarbage()
  collectgarbage()
  local registry = debug.getregistry()
  local function each(f)
    for key, value in pairs(registry) do
      if type(key) == "userdata" then f(key, value) end
    end
  end
  local state = support.state { k = { list = { 1, "x" } } }
  local kept = {}
  each(function(key, value) kept[key] = value end)
  for _, junk in ipairs { 5, {}, math.abs, "x" } do
    for key in pairs(kept) do registry[key] = junk end
    pcall(state.get, state, "k")
    pcall(state.set, state, "other", {})
    pcall(state.get, state, 5)
    pcall(state.scope, state, "a")
    pcall(state.items, state)
    for key, value in pairs(kept) do registry[key] = value end
  end
  for _, value in pairs(kept) do
    if type(value) == "function" then pcall(value, 1, 2, 3) end
  end
  equal(state:get("k").list, State.array { 1, "x" })
end

tests["69 a closed store in the middle of its own callback is an error"] = function()
  local state = support.state { k = 1 }
  local ok, e = pcall(state.modify, state, "k", function()
    state:close()
    return 2
  end)
  assert(not ok and e.kind == "Closed", tostring(e))
  state = support.state { k = 1 }
  ok, e = pcall(state.transaction, state, function(tx)
    state:close()
    tx:set("k", 2)
  end)
  assert(not ok and e.kind == "Closed", tostring(e))
end

tests["69 a callback that finalizes its handle and collects garbage does no harm"] = function()
  local state = support.state { key = 1 }
  local collect = class_of(state).__gc
  pcall(state.modify, state, "k" .. "ey", function()
    collect(state)
    collectgarbage()
    return { ("x"):rep(10) }
  end)
  state = State.open()
  pcall(state.transaction, state, function(tx)
    collect(tx)
    collect(state)
    collectgarbage()
    return tx
  end)
end

tests["69 a callback that changes our stack does no harm"] = function()
  local state = support.state { key = 1 }
  pcall(state.modify, state, "key", function(n)
    -- Level 3 from inside pcall is `modify`: self, the key, the callback.
    for slot = 1, 8 do pcall(debug.setlocal, 3, slot, slot % 2 == 0 and "x" or {}) end
    collectgarbage()
    return n
  end)
  pcall(state.transaction, state, function()
    for slot = 1, 8 do pcall(debug.setlocal, 3, slot, 5) end
    collectgarbage()
    error("x")
  end)
  assert(type(state:get("key")) == "number")
end

tests["69 an error in __gc of other objects while a value is made does no harm"] = function()
  local state = support.state { k = { list = {}, text = ("x"):rep(100) } }
  local function trap()
    if newproxy then
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function() state:get("k") end
    else
      setmetatable({}, { __gc = function() state:get("k") end })
    end
  end
  for _ = 1, 5000 do
    trap()
    equal(state:get("k").text, ("x"):rep(100))
  end
end

local function on_collection(f)
  if newproxy then
    getmetatable(newproxy(true)).__gc = f
  else
    setmetatable({}, { __gc = f })
  end
end

tests["69 a finalizer that empties the list of keys while get_many answers does no harm"] = function()
  local state, count = State.open(), 1000
  local function key(n) return ("%06d"):format(n) .. ("k"):rep(60) end
  local values = {}
  for n = 1, count do values[key(n)] = { n, ("x"):rep(50), { a = n } } end
  state:set_many(values)
  for _ = 1, 10 do
    local keys = {}
    for n = 1, count do keys[n] = key(n) end
    on_collection(function()
      for n = 1, count do keys[n] = nil end
      collectgarbage()
    end)
    local found = 0
    for k, value in pairs(state:get_many(keys)) do
      equal(k, key(value[1]))
      found = found + 1
    end
    equal(found, count)
    collectgarbage()
  end
end

tests["69 a finalizer that takes our arguments away while binary is made or read does no harm"] = function()
  if _G.jit then _G.jit.off() end
  local text = ("y"):rep(10000)
  for _, target in ipairs { State.binary, class_of(State.binary("x")).__tostring } do
    local given = target == State.binary and text or State.binary(text)
    for round = 1, 1500 do
      on_collection(function()
        for level = 2, 8 do
          local info = debug.getinfo(level, "f")
          if not info then break end
          if info.func == target then
            debug.setlocal(level, 1, false)
            collectgarbage()
            local _ = ("z"):rep(10000 + round)
          end
        end
      end)
      local bytes = tostring((target(target == State.binary and given .. round or given)))
      -- What a finalizer replaced is gone; what is there otherwise is what was given.
      assert(bytes:sub(1, #text) == text or bytes == "false" or not bytes:find("[^%z]"), bytes:sub(1, 40))
    end
  end
  if _G.jit then _G.jit.on() end
end

tests["loading the module again changes nothing for what is there"] = function()
  local state, empty = support.state { k = 1 }, State.array()
  package.loaded["llmspell_state.native"] = nil
  local again = require "llmspell_state.native"
  state:set("empty", empty)
  equal(getmetatable(again.array()), getmetatable(empty))
  equal(getmetatable(state:get("empty")), getmetatable(empty))
  equal(again.open():set("k", empty), 1)
  equal(state:get("k"), 1)
end

tests["69 a hook that calls the store, or raises, does no harm"] = function()
  local state, calls = support.state { k = { 1, 2, { a = "b" } } }, 0
  local own = { [pcall] = true, [debug.sethook] = true, [error] = true }
  if _G.jit then _G.jit.off() end
  debug.sethook(function()
    local called = debug.getinfo(2, "Sf")
    if called.what ~= "C" or own[called.func] then return end
    calls = calls + 1
    if calls % 3 == 0 then state:get("k") end
    if calls % 7 == 0 then error("hook") end
  end, "cr")
  for _ = 1, 200 do
    pcall(state.get, state, "k")
    pcall(state.set, state, "other", { 1 })
    pcall(state.scope, state, "a")
    pcall(state.get, state, 5)
  end
  debug.sethook()
  if _G.jit then _G.jit.on() end
  assert(calls > 200)
  equal(state:get("k")[3].a, "b")
end

tests["69 an error of a hook amid spawning and cancelling leaves later runs whole"] = function()
  if _G.jit then _G.jit.off() end
  for budget = 20, 400 do
    pcall(State.run, function()
      debug.sethook(function()
        debug.sethook()
        error("budget")
      end, "", budget)
      pcall(function()
        for _ = 1, 3 do State.spawn(function() end) end
        State.spawn(function() end):cancel()
      end)
      debug.sethook()
    end)
    equal(State.run(function() return budget end), budget)
  end
  if _G.jit then _G.jit.on() end
end

tests["69 a dumped chunk works like the chunk"] = function()
  local state = support.state { k = 1 }
  local load = loadstring or load
  equal(load(string.dump(function(s) return s:get("k") end))(state), 1)
end

tests["deep recursion through callbacks ends in an error"] = function()
  local state = State.open()
  local function deeper() return state:modify("k", deeper) end
  local ok = pcall(deeper)
  equal(ok, false)
  state:set("k", 1)
  equal(state:get("k"), 1)
end

tests["deep stacks of coroutines still read and write nested values"] = function()
  local state, value = State.open(), { 1 }
  for _ = 1, 120 do value = { value } end
  local function nested(level)
    if level == 0 then
      state:set("k", value)
      return state:get("k")[1][1] ~= nil
    end
    return coroutine.wrap(nested)(level - 1)
  end
  equal(nested(50), true)
end

tests["changing the shared mark of arrays harms nobody"] = function()
  local state, mark = State.open(), getmetatable(State.array())
  mark.__index = function() error("index") end
  mark.__newindex = mark.__index
  mark.__len = mark.__index
  state:set("k", { State.array { 1 } })
  equal(rawget(rawget(state:get("k"), 1), 1), 1)
  mark.__index, mark.__newindex, mark.__len = nil, nil, nil
end

return tests

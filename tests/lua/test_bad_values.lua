local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

-- Refused by every verb that takes a value, with the path; nothing is written.
local function refused(value, words)
  local state = support.state()
  local tx = state:transaction()
  for _, handle in ipairs { state, state:scope("s"), tx } do
    fails("Invalid", words, handle.set, handle, "k", value)
    fails("Invalid", words, handle.append, handle, "k", value)
    fails("Invalid", words, handle.merge, handle, "k", value)
    fails("Invalid", words, handle.modify, handle, "k", function() return value end)
    fails("Invalid", {}, handle.set_many, handle, { k = value })
    equal(handle:count(), 0)
  end
end

local tests = {}

tests["15 NaN and infinities"] = function()
  refused(0 / 0, { "$:", "finite" })
  refused({ a = { 1, 1 / 0 } }, { "$.a[2]", "finite" })
  refused({ -1 / 0 }, { "$[1]", "finite" })
end

tests["18 nested 10,000 levels"] = function()
  local value = {}
  for _ = 1, 10000 do value = { value } end
  refused(value, "128")
end

tests["19 a table that contains itself"] = function()
  local value = { a = {} }
  value.a.b = value
  refused(value, "cycle")
  local list = {}
  list[1] = list
  refused(list, "cycle")
end

tests["20 a value over the limit"] = function()
  local state = State.open { max_value_bytes = 100 }
  fails("QuotaExceeded", { "100", "max_value_bytes" }, state.set, state, "k", ("x"):rep(200))
  fails("QuotaExceeded", {}, state.set, state, "k", ("\255"):rep(90))
  local many = {}
  for n = 1, 100 do many[n] = n end
  fails("QuotaExceeded", {}, state.set, state, "k", many)
  equal(state:count(), 0)
  state:set("k", ("x"):rep(98))
  fails("QuotaExceeded", {}, state.append, state, "list", ("x"):rep(200))
end

tests["21 keys of members that are not strings"] = function()
  refused({ a = { [true] = 1 } }, { "$.a:", "boolean" })
  refused({ [1.5] = 1 }, { "$:", "1.5" })
  refused({ [0] = 1 }, { "$:", "0" })
  refused({ [-1] = 1 }, { "$:", "-1" })
  refused({ [{}] = 1 }, { "$:", "table" })
  refused({ x = { [print] = 1 } }, { "$.x:", "function" })
  refused({ ["\255"] = 1 }, { "UTF-8" })
  refused({ [1e300] = 1 }, { "number" })
end

tests["22 what is not data, with its path"] = function()
  refused(print, { "$:", "function" })
  refused({ a = { 1, 2, { b = print } } }, { "$.a[3].b", "function" })
  refused({ coroutine.create(function() end) }, { "$[1]", "thread" })
  refused({ file = io.stdout }, { "$.file", "userdata" })
  refused({ s = support.state() }, { "$.s", "userdata" })
  refused({ ["a key"] = print }, { '$["a key"]' })
  if _G.jit then refused({ require("ffi").new("int64_t", 1) }, { "$[1]", "cdata" }) end
end

tests["23 holes and mixed tables"] = function()
  refused({ [1] = 1, [3] = 3 }, { "$:", "item 2", "State.null" })
  refused({ a = { 1, nil, 3 } }, { "$.a:", "item 2" })
  refused({ [5] = 1 }, { "item 1" })
  refused({ 1, 2, x = 3 }, { "x", "one or the other" })
  refused({ list = { x = 3, 1 } }, { "$.list" })
  refused(State.array { x = 1 }, { "x", "array" })
  local sparse = { 1 }
  sparse[2 ^ 40] = 1
  refused(sparse, { "$" })
  local far = { 1 }
  far[2 ^ 31 - 1] = 1
  refused(far, { "item 2" })
end

tests["24 null is stored and is not missing"] = function()
  local state = support.state { k = State.null }
  equal(state:exists("k"), true)
  equal(state:get("k", "missing"), State.null)
end

tests["26 metamethods that raise or call back into the store do not run"] = function()
  local state = support.state()
  local hostile = setmetatable({}, { __index = function() state:close() end, __pairs = function() state:close() end })
  state:set("k", { hostile, a = nil })
  equal(next(state:get("k")[1]), nil)
end

tests["28 text and binary are kept distinct"] = function()
  local state = support.state { text = "AAE=", bytes = State.binary("AAE=") }
  assert(state:entry("text") and state:entry("bytes"))
  equal(state:get("bytes"), "AAE=")
  state:set("nested", { State.binary("x"), "\255" })
  equal(state:get("nested"), { "x", "\255" })
end

tests["35 increment on what is no number, or beyond the range, changes nothing"] = function()
  local state = support.state { text = "x", list = {}, null = State.null }
  for _, key in ipairs { "text", "list", "null" } do fails("Invalid", "number", state.increment, state, key) end
  fails("Invalid", "finite", state.increment, state, "n", 0 / 0)
  fails("Invalid", {}, state.append, state, "text", 1)
  if support.has_integers then
    state:set("max", math.maxinteger)
    fails("Invalid", "64-bit", state.increment, state, "max")
    equal(state:get("max"), math.maxinteger)
  end
  state:set("big", 1.7e308)
  fails("Invalid", "finite", state.increment, state, "big", 1.7e308)
  equal(state:get("big"), 1.7e308)
end

tests["34 compare-and-set with a wrong version tells the current one"] = function()
  local state = support.state()
  local version = state:set("k", 1)
  fails("Conflict", tostring(version), state.set, state, "k", 2, { if_version = version + 1 })
  equal(state:get("k"), 1)
end

return tests

local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

local function conflict()
  local state = support.state { k = 1 }
  return fails("Conflict", {}, state.set, state, "k", 2, { if_version = 0 })
end

tests["an error has a kind and a message"] = function()
  local e = conflict()
  equal(e.kind, "Conflict")
  equal(type(e.message), "string")
  assert(e.message:find("k", 1, true))
end

tests["tostring and .. make text of it"] = function()
  local e = conflict()
  equal(tostring(e):sub(1, #("Conflict: " .. e.message)), "Conflict: " .. e.message)
  equal("x " .. e, "x " .. tostring(e))
  equal(e .. " x", tostring(e) .. " x")
  equal(e .. e, tostring(e) .. tostring(e))
  equal(1 .. e, "1" .. tostring(e))
end

tests["it tells where the call was"] = function()
  local ok, e = pcall(function() State.open():get(5) end)
  equal(ok, false)
  assert(e.where:find("test_errors.lua:%d+$"), e.where)
  assert(tostring(e):find(e.where, 1, true))
end

--- Where methods block, and in a task, where they yield.
local PLACES = { function(f) f() end, State.run }

local function wrong_arguments()
  local state = State.open()
  local function message(...) return fails("Invalid", {}, ...).message end
  equal(message(state.get, state, 1), "bad argument #1 to 'get' (string expected, got number)")
  equal(message(state.get, state), "bad argument #1 to 'get' (string expected, got no value)")
  equal(message(state.get, state, nil), "bad argument #1 to 'get' (string expected, got nil)")
  equal(message(state.modify, state, "k", 5), "bad argument #2 to 'modify' (function expected, got number)")
  equal(message(state.modify, state, "k"), "bad argument #2 to 'modify' (function expected, got no value)")
  equal(message(state.increment, state, "k", "5"), "bad argument #2 to 'increment' (number expected, got string)")
  equal(message(state.set_many, state, "k"), "bad argument #1 to 'set_many' (table expected, got string)")
  equal(message(state.set, state, "k", 1, 5), "bad argument #3 to 'set' (table expected, got number)")
  equal(message(state.transact, state), "bad argument #1 to 'transact' (function expected, got no value)")
  equal(message(state.get_many, state, { "a", 2 }),
    "bad argument #1 to 'get_many' (item 2 is not a key: UTF-8 string expected, got number)")
  equal(message(State.array, 1), "bad argument #1 to 'array' (table expected, got number)")
  equal(message(State.binary, 1), "bad argument #1 to 'binary' (string expected, got number)")
end

tests["wrong arguments read like Lua's own"] = function()
  for _, run in ipairs(PLACES) do run(wrong_arguments) end
end

tests["a nil value names State.null and delete"] = function()
  local state = State.open()
  fails("Invalid", { "bad argument #2 to 'set'", "State.null", "delete" }, state.set, state, "k", nil)
  fails("Invalid", { "bad argument #2 to 'set'", "State.null", "delete" }, state.set, state, "k")
  fails("Invalid", { "State.null" }, state.append, state, "k", nil)
end

local function called_with_a_dot()
  local state = State.open()
  fails("Invalid", { "calling 'get' on bad self", "got string", "':'" }, state.get, "k")
  for _, verb in ipairs { "get", "set", "modify", "transact", "transaction", "keys", "diff", "merge_from" } do
    fails("Invalid", { ("calling '%s' on bad self"):format(verb), "no value" }, state[verb])
  end
  fails("Invalid", { "calling 'close' on bad self" }, state.close, state:scope("a"))
  fails("Invalid", { "calling 'commit' on bad self" }, state:transaction().commit, state)
end

tests["a method called with a dot is told so"] = function()
  for _, run in ipairs(PLACES) do run(called_with_a_dot) end
end

tests["options with wrong names or types are named"] = function()
  local state = State.open()
  fails("Invalid", { "'if_versio'", "if_version" }, state.set, state, "k", 1, { if_versio = 1 })
  fails("Invalid", { "'if_version'", "string" }, state.set, state, "k", 1, { if_version = "1" })
  fails("Invalid", { "'if_version'" }, state.set, state, "k", 1, { if_version = -1 })
  fails("Invalid", { "'if_version'" }, state.delete, state, "k", { if_version = 0 / 0 })
  fails("Invalid", { "unknown option of type number" }, state.set, state, "k", 1, { 1 })
end

tests["error objects are plain data: they can be changed without harm"] = function()
  local e = conflict()
  e.kind, e.message, e.where = nil, {}, nil
  assert(pcall(tostring, e))
  e.message = nil
  assert(type(tostring(e)) == "string")
end

tests["an error of a callback is the same object, whatever it is"] = function()
  local state = State.open()
  local object = setmetatable({}, { __tostring = function() return "x" end })
  for _, thrown in ipairs { "text", 5, true, {}, object, print, State.null } do
    local ok, e = pcall(state.modify, state, "k", function() error(thrown, 0) end)
    equal(ok, false)
    assert(rawequal(e, thrown))
  end
end

tests["an error is raised through nested calls once"] = function()
  local state = State.open()
  local ok, e = pcall(state.transaction, state, function(tx)
    tx:modify("k", function()
      return state:transaction(function() state:get("") end)
    end)
  end)
  equal(ok, false)
  equal(e.kind, "Invalid")
end

return tests

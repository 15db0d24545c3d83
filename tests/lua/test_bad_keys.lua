local support = require "support"
local equal, fails = support.equal, support.fails

-- Every verb that takes a key must refuse a bad one alike.
local function refused(key, kind, words)
  local state = support.state()
  local scope, tx = state:scope("s"), state:transaction()
  for _, handle in ipairs { state, scope, tx } do
    fails(kind, words, handle.get, handle, key)
    fails(kind, words, handle.set, handle, key, 1)
    fails(kind, words, handle.delete, handle, key)
    fails(kind, words, handle.entry, handle, key)
    fails(kind, words, handle.exists, handle, key)
    fails(kind, words, handle.increment, handle, key)
    fails(kind, words, handle.append, handle, key, 1)
    fails(kind, words, handle.merge, handle, key, {})
    fails(kind, words, handle.modify, handle, key, function() return 1 end)
    if key ~= nil then
      fails(kind, {}, handle.get_many, handle, { key })
      fails(kind, {}, handle.set_many, handle, { [key] = 1 })
    end
  end
  equal(state:count(), 0)
end

local tests = {}

tests["1 an empty key"] = function() refused("", "Invalid", "empty") end

tests["2 a key of 1025 bytes names both numbers, one of 1024 is fine"] = function()
  refused(("k"):rep(1025), "Invalid", { "1025", "1024" })
  local state = support.state()
  state:set(("k"):rep(1024), 1)
  equal(state:get(("k"):rep(1024)), 1)
  fails("Invalid", "1026", state.get, state, ("é"):rep(513))
end

tests["3 NUL and control bytes"] = function()
  refused("a\0b", "Invalid", "\\x00")
  refused("a\nb", "Invalid", "\\x0a")
  refused("\127", "Invalid", "\\x7f")
end

tests["5 a key that is not UTF-8"] = function()
  refused("a\255", "Invalid", "UTF-8")
  refused("\237\160\128", "Invalid", "UTF-8") -- an encoded surrogate
end

tests["6 composed and decomposed letters are two keys"] = function()
  local state = support.state { ["\195\169"] = 1, ["e\204\129"] = 2 }
  equal(state:count(), 2)
  equal(state:get("\195\169"), 1)
end

tests["7 and 8 paths, separators, wildcards and SQL are plain data"] = function()
  local state = support.state()
  for _, key in ipairs {
    "../../etc/passwd", "a//b", "/", ".", "a::b", "*", "%", "_", "[", "'", '"', "'; DROP TABLE entry", "\\",
    "a b", " ", "$", "null",
  } do
    state:set(key, key)
    equal(state:get(key), key)
    equal(state:scope("x"):get(key), nil)
  end
  equal(state:count(), 17)
  equal(state:count("\\*"), 1)
end

tests["9 keys that are not strings, 1 and 1.0 among them"] = function()
  for _, key in ipairs { 1, 1.0, true, print, { "a" } } do refused(key, "Invalid", { "expected, got" }) end
  refused(nil, "Invalid", "expected, got nil")
end

tests["10 hostile patterns are refused or answered at once"] = function()
  local state = support.state { [("a"):rep(1000)] = 1 }
  fails("Invalid", "10000", state.keys, state, ("*"):rep(10000))
  equal(state:count(("*a"):rep(2000) .. "b"), 0)
  fails("Invalid", "not closed", state.keys, state, "[")
  fails("Invalid", "backwards", state.count, state, "[z-a]")
  fails("Invalid", "ends with", state.clear, state, "a\\")
  fails("Invalid", "empty", state.items, state, "")
  fails("Invalid", "UTF-8", state.count, state, "\255*")
  equal(state:count("{a,b"), 0)
end

tests["12 a pattern sees only keys of its own scope"] = function()
  local state = support.state { k = 1 }
  state:scope("a"):set("secret", 1)
  state:scope("b"):set("own", 1)
  for _, pattern in ipairs { "../*", "*::*", "*secret*", "a*" } do
    equal(state:scope("b"):count(pattern), 0)
    equal(state:count(pattern), 0)
  end
end

tests["13 the reserved beginning"] = function() refused("__x", "Invalid", "reserved") end

tests["14 keys that differ by case are two"] = function()
  equal(support.state({ a = 1, A = 2 }):count(), 2)
end

tests["names of scopes follow the same rules"] = function()
  local state = support.state()
  fails("Invalid", "empty", state.scope, state, "")
  fails("Invalid", { "257", "256" }, state.scope, state, ("s"):rep(257))
  fails("Invalid", "reserved", state.scope, state, "__s")
  fails("Invalid", "\\x00", state.scope, state, "a\0")
  fails("Invalid", "number", state.scope, state, 5)
  local tx = state:transaction()
  fails("Invalid", "empty", tx.scope, tx, "")
end

tests["get_many refuses tables that are no arrays, and names the place"] = function()
  local state = support.state { a = 1, b = 2 }
  local tx = state:transaction()
  for _, handle in ipairs { state, state:scope("s"), tx } do
    fails("Invalid", { "bad argument #1 to 'get_many'", "item 2", "missing" }, handle.get_many, handle, { "a", nil, "b" })
    fails("Invalid", { "array items and the key \"x\"" }, handle.get_many, handle, { "a", x = "b" })
    fails("Invalid", { "the key \"a\"" }, handle.get_many, handle, { a = "b" })
    fails("Invalid", { "the key 0 is a number" }, handle.get_many, handle, { [0] = "a", "b" })
    fails("Invalid", { "the key 1.5 is a number" }, handle.get_many, handle, { [1.5] = "a" })
    fails("Invalid", { "a key is a boolean" }, handle.get_many, handle, { [true] = "a" })
  end
  equal(state:get_many({}), {})
  equal(state:get_many(setmetatable({ "b", "a" }, { __index = error, __len = error })), { a = 1, b = 2 })
end

return tests

local support = require "support"
local equal, fails, collect = support.equal, support.fails, support.collect

local function letters() return support.state { a = 1, b = 2, c = 3, d = 4, e = 5 } end
local function listed(iterator) return table.concat(collect(iterator), " ") end

local tests = {}

tests["keys come sorted by bytes"] = function()
  local state = support.state { b = 1, a = 1, ["é"] = 1, Z = 1, ["a/1"] = 1 }
  equal(listed(state:keys()), "Z a a/1 b é")
end

tests["a pattern is a string or a field"] = function()
  local state = letters()
  equal(listed(state:keys("[b-d]")), "b c d")
  equal(listed(state:keys { pattern = "[!b-d]" }), "a e")
  equal(listed(state:keys {}), "a b c d e")
end

tests["after, limit and reverse page in both directions"] = function()
  local state = letters()
  equal(listed(state:keys { after = "b" }), "c d e")
  equal(listed(state:keys { after = "b", limit = 2 }), "c d")
  equal(listed(state:keys { reverse = true, after = "d", limit = 2 }), "c b")
  equal(listed(state:keys { limit = 0 }), "")
  equal(listed(state:items { reverse = true, limit = 1 }), "e")
end

tests["items give keys and values"] = function()
  local keys, values = collect(letters():items("[ab]"))
  equal(keys, { "a", "b" })
  equal(values, { 1, 2 })
end

tests["an iterator is a function that can be called by hand, and stays at its end"] = function()
  local next_key = support.state { a = 1 }:keys()
  equal(type(next_key), "function")
  equal(next_key(), "a")
  equal(next_key(), nil)
  equal(next_key(), nil)
end

tests["writing while iterating neither hangs nor shows in the listing"] = function()
  local state, seen = letters(), 0
  for key, value in state:items() do
    seen = seen + 1
    state:set(key .. "x", value)
    state:delete(key)
  end
  equal(seen, 5)
  equal(listed(state:keys()), "ax bx cx dx ex")
end

tests["a listing longer than a page is whole"] = function()
  local state, many = support.state(), {}
  for n = 1, 3000 do many[("k%05d"):format(n)] = n end
  state:set_many(many)
  local count = 0
  for key, n in state:items() do
    count = count + 1
    equal(n, count)
    if count % 500 == 0 then state:delete(key) end
  end
  equal(count, 3000)
end

tests["many iterators at once hold nothing against each other or a writer"] = function()
  local state, iterators = letters(), {}
  for n = 1, 200 do
    iterators[n] = state:keys()
    equal(iterators[n](), "a")
  end
  state:set("f", 6)
  for n = 1, 200 do equal(iterators[n](), "b") end
end

tests["pairs walks over all items where the language allows"] = function()
  if _VERSION == "Lua 5.1" then return end
  local seen = {}
  for key, value in pairs(letters()) do seen[#seen + 1] = key .. value end
  equal(table.concat(seen, " "), "a1 b2 c3 d4 e5")
  local tx = letters():transaction()
  tx:set("x", 9)
  local last
  for key in pairs(tx) do last = key end
  equal(last, "x")
end

tests["an abandoned iterator costs nobody anything"] = function()
  local state = letters()
  for _ = 1, 1000 do state:items()() end
  collectgarbage()
  state:set("z", 1)
  equal(#state, 6)
end

tests["wrong selections are named"] = function()
  local state = letters()
  fails("Invalid", { "bad argument #1 to 'keys'", "number" }, state.keys, state, 5)
  fails("Invalid", { "'prefix'", "pattern, after, limit, reverse" }, state.keys, state, { prefix = "a" })
  fails("Invalid", { "'limit'", "whole number" }, state.items, state, { limit = -1 })
  fails("Invalid", { "'limit'", "whole number" }, state.items, state, { limit = 1.5 })
  fails("Invalid", { "'limit'", "string" }, state.items, state, { limit = "5" })
  fails("Invalid", { "'reverse'", "boolean" }, state.items, state, { reverse = 1 })
  fails("Invalid", { "'after'", "string" }, state.items, state, { after = 1 })
  fails("Invalid", "unknown option", state.keys, state, { "a*" })
end

tests["closing the store ends an iterator with an error, not a crash"] = function()
  local state, many = support.state(), {}
  for n = 1, 1000 do many[("k%05d"):format(n)] = n end
  state:set_many(many)
  local iterator = state:keys()
  iterator()
  state:close()
  local ok, e = pcall(function() for _ in iterator do end end)
  assert(ok or e.kind == "Closed", tostring(e))
end

return tests

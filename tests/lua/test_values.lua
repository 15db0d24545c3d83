local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local function round_trip(value)
  local state = State.open()
  state:set("k", value)
  return state:get("k")
end

local function is_array(value) return getmetatable(value) == getmetatable(State.array()) end

local tests = {}

tests["plain values come back as they were"] = function()
  for _, value in ipairs { true, false, 0, 1, -1, 2 ^ 31, 1.5, -1e300, 5e-324, 0.1, "", "text", "é\0\n\"\\", "日本" } do
    equal(round_trip(value), value)
  end
end

tests["null is a value of its own, true as a condition"] = function()
  equal(round_trip(State.null), State.null)
  equal(round_trip({ a = State.null }).a, State.null)
  equal(round_trip({ 1, State.null, 3 })[2], State.null)
  assert(State.null)
  equal(type(State.null), "userdata")
end

tests["1 and 1.0 stay different where the language tells them apart"] = function()
  equal(round_trip(1), 1)
  equal(round_trip(1.0), 1.0)
  if support.has_integers then
    equal(math.type(round_trip(1)), "integer")
    equal(math.type(round_trip(1.0)), "float")
    equal(math.type(round_trip(2 ^ 53)), "float")
  end
end

tests["every integer of 64 bits is kept exactly"] = function()
  if not support.has_integers then return end
  for _, n in ipairs { math.mininteger, math.maxinteger, 9007199254740993, -9007199254740993 } do equal(round_trip(n), n) end
end

tests["an integer beyond 2^53 is an error where it would be rounded"] = function()
  local state = State.open()
  state:set("n", 2 ^ 53)
  if support.has_integers then
    state:set("n", math.maxinteger)
    equal(state:get("n"), math.maxinteger)
    return
  end
  equal(state:get("n"), 2 ^ 53)
  fails("Invalid", { "9007199254740993", "2^53" }, state.modify, state, "n", function(n)
    state:increment("n", 1)
    return n
  end)
  fails("Invalid", "2^53", state.get, state, "n")
  fails("Invalid", "2^53", state.entry, state, "n")
  fails("Invalid", "2^53", state.get_many, state, { "n" })
  fails("Invalid", "2^53", state.increment, state, "n", 1)
  fails("Invalid", "2^53", state:items())
end

tests["minus zero is kept"] = function()
  equal(1 / round_trip(tonumber("-0.0")), -1 / 0)
end

tests["text and binary are told apart by what they are, or as State.binary says"] = function()
  equal(round_trip("\255\254"), "\255\254")
  equal(round_trip({ "\128" })[1], "\128")
  equal(round_trip(State.binary("plain")), "plain")
  equal(round_trip(State.binary("")), "")
  equal(tostring(State.binary("a\0b")), "a\0b")
  equal(#State.binary("a\0b"), 3)
  local all = {}
  for byte = 0, 255 do all[#all + 1] = string.char(byte) end
  equal(round_trip(table.concat(all)), table.concat(all))
end

tests["binary shows on no surface: members named $binary are members"] = function()
  local value = { ["$binary"] = "AAE=", ["$$binary"] = { ["$binary"] = 1 } }
  equal(round_trip(value), value)
end

tests["arrays and objects nest and keep their kind"] = function()
  local value = { list = State.array { 1, "two", State.array { true }, { deep = State.array { 3 } } }, name = "x" }
  equal(round_trip(value), value)
end

tests["an empty table is an object unless it is marked"] = function()
  assert(not is_array(round_trip({})))
  assert(is_array(round_trip(State.array {})))
  assert(is_array(round_trip(State.array())))
  assert(not is_array(round_trip({ a = {} }).a))
end

tests["arrays that were read keep the mark, also when they are emptied and written again"] = function()
  local state = State.open()
  state:set("k", { 1, 2 })
  local list = state:get("k")
  assert(is_array(list))
  list[1], list[2] = nil, nil
  state:set("k", list)
  assert(is_array(state:get("k")))
  equal(#state:get("k"), 0)
end

tests["items in the hash part of a table keep their order"] = function()
  local list = {}
  for n = 100, 1, -1 do list[n] = n end
  local got = round_trip(list)
  equal(#got, 100)
  for n = 1, 100 do equal(got[n], n) end
end

tests["large values come back whole"] = function()
  local list = {}
  for n = 1, 20000 do list[n] = { n = n, text = ("x"):rep(n % 50) } end
  local got = round_trip(list)
  equal(#got, 20000)
  equal(got[19999].text, ("x"):rep(19999 % 50))
  local text = ("0123456789abcdef"):rep(65536)
  equal(round_trip(text), text)
end

tests["a table in two places is stored twice"] = function()
  local shared = { 1 }
  local got = round_trip({ a = shared, b = shared })
  equal(got.a[1], 1)
  assert(got.a ~= got.b)
end

tests["what was read is the reader's own"] = function()
  local state = support.state { k = { list = { 1 } } }
  local first = state:get("k")
  first.list[1] = 2
  first.more = true
  equal(state:get("k").list[1], 1)
  equal(state:get("k").more, nil)
end

tests["metamethods of a stored table do not run"] = function()
  local value = setmetatable({ real = 1 }, {
    __index = function() error("index") end,
    __pairs = function() error("pairs") end,
    __len = function() error("len") end,
  })
  equal(round_trip(value).real, 1)
  equal(round_trip({ value })[1].real, 1)
end

tests["values survive in a file"] = function()
  support.with_folder(function(folder)
    local value = { text = "é", list = State.array { 1, 2.5, State.null }, bytes = "\255", empty = State.array {} }
    local state = State.open(folder .. "/a.db")
    state:set("k", value)
    state:close()
    state = State.open(folder .. "/a.db")
    equal(state:get("k"), value)
    state:close()
  end)
end

local function nested(levels)
  local value = State.array {}
  for _ = 2, levels do value = { value } end
  return value
end

tests["depth is bounded, and 128 levels are fine"] = function()
  local got = round_trip(nested(128))
  for _ = 1, 127 do got = got[1] end
  assert(is_array(got))
  fails("Invalid", "128", round_trip, nested(129))
end

tests["values of every depth are read in coroutines, whose stacks are small"] = function()
  local state = State.open()
  local list = {}
  local function write(levels)
    local value = nested(levels)
    state:set("set", value)
    state:set_many { many = value, other = 1 }
    state:merge("merged", { value })
    state:append("list", value)
    state:modify("modified", function() return value end)
    state:modify("from default", function(old) return old end, value)
    state:transaction(function(tx) tx:set("in transaction", value) end)
    list[levels] = value
    for _, key in ipairs { "set", "many", "modified", "from default", "in transaction" } do equal(state:get(key), value) end
    equal(state:get("merged"), { value })
    equal(state:get("list"), list)
    state:delete("from default")
  end
  local function too_deep()
    for _, verb in ipairs { state.set, state.append, state.merge } do
      fails("Invalid", "128", verb, state, "k", nested(129))
    end
    fails("Invalid", "128", state.modify, state, "k", function() return nested(129) end)
    equal(state:exists("k"), false)
  end
  -- One that blocks, before anything has made the methods yield, and one that yields.
  for _, run in ipairs { function(f, ...) return assert(coroutine.resume(coroutine.create(f), ...)) end, State.run } do
    for levels = 1, 127 do run(write, levels) end
    run(too_deep)
    list = {}
    state:clear()
  end
end

return tests

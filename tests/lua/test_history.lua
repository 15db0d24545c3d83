local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

local function differences(...)
  local found = {}
  for difference in ... do found[#found + 1] = difference end
  return found
end

tests["a revision says what, when, who and why, in the units of an entry"] = function()
  local state = support.state()
  local first = state:set("k", State.null)
  local run = state:as_run { actor = "planner", run = "r1", reason = "as asked" }
  run:set("k", { 1, 2 })
  local updated = state:entry("k").updated
  run:delete("k")
  local told = state:history("k")
  equal(getmetatable(told), getmetatable(State.array()))
  equal(told[2].time, updated)
  assert(told[1].time >= updated and told[3].time <= updated, "the newest is first")
  for _, revision in ipairs(told) do revision.time = nil end
  equal(told, State.array {
    { operation = "delete", version = first + 2, actor = "planner", run = "r1", reason = "as asked" },
    { operation = "set", value = State.array { 1, 2 }, version = first + 1, actor = "planner", run = "r1", reason = "as asked" },
    { operation = "set", value = State.null, version = first },
  })
  equal(state:history("nobody"), State.array())
  state:set("told", told)
  equal(#state:get("told"), 3)
end

tests["history takes a limit and no more than that"] = function()
  local state = support.state { k = 1 }
  for n = 1, 150 do state:set("k", n) end
  equal(#state:history("k"), 100)
  equal(#state:history("k", { limit = 1000 }), 151)
  equal(#state:history("k", {}), 100)
  for _, wrong in ipairs {
    { 5, "#2 to 'history' (table expected, got number)" }, { { most = 1 }, "unknown option 'most'; it takes limit" },
    { { limit = -1 }, "'limit'" }, { { limit = 1.5 }, "'limit'" }, { { limit = "1" }, "'limit'" },
  } do
    fails("Invalid", wrong[2], state.history, state, "k", wrong[1])
  end
  fails("Invalid", "#1 to 'history' (string expected, got no value)", state.history, state)
  fails("Invalid", {}, state.history, state, "__x")
end

tests["a watch tells the run and the reason of a change"] = function()
  local state = support.state()
  local watch = state:watch()
  state:as_run({ run = "r1", reason = "why not" }):set("k", 1)
  local change = watch:next(5)
  equal({ change.actor or "nobody", change.run, change.reason }, { "nobody", "r1", "why not" })
end

tests["as_run answers a scope, and tells its mistakes"] = function()
  local state = support.state()
  equal(tostring(state:scope("a"):as_run { run = "r" }), tostring(state:scope("a")))
  for _, wrong in ipairs {
    { nil, "#1 to 'as_run' (table expected, got no value)" }, { "r1", "table expected, got string" },
    { { user = "x" }, "unknown option 'user'; it takes actor, run, reason" }, { { run = 5 }, "option 'run': string expected" },
    { { actor = "\255" }, "option 'actor' is not valid UTF-8" }, { { reason = "" }, "reason" }, { { "r1" }, "unknown option" },
  } do
    fails("Invalid", wrong[2], state.as_run, state, support.unpack(wrong, 1, wrong[1] ~= nil and 1 or 0))
  end
  equal(state:transaction().as_run, nil)
end

tests["a view has the reading verbs with the options of a scope, and no other"] = function()
  local state = support.state { a = 1, b = 2, c = 3 }
  state:scope("inner"):set("x", 1)
  local past = state:at(state:version())
  state:set_many { a = 10, d = 4 }
  state:scope("inner"):clear()
  equal(past:get("a"), 1)
  equal(past:get("d", "none"), "none")
  equal(past:entry("b").version, 1)
  equal(past:entry("d"), nil)
  equal(past:get_many { "a", "d" }, { a = 1 })
  equal({ past:exists("a"), past:exists("d") }, { true, false })
  equal({ past:count(), past:count("[ab]") }, { 3, 2 })
  equal(support.collect(past:keys { reverse = true, after = "c" }), { "b", "a" })
  equal({ support.collect(past:items("[bc]")) }, { { "b", "c" }, { 2, 3 } })
  equal(past:scope("inner"):get("x"), 1)
  equal(past:version(), 2)
  equal(tostring(past), "View (at version 2)")
  fails("NotFound", "nobody", past.scope, past, "nobody")
  for _, verb in ipairs { "set", "delete", "clear", "modify", "increment", "transaction", "watch", "history", "at", "close" } do
    equal(past[verb], nil)
  end
  if _VERSION ~= "Lua 5.1" then equal({ support.collect(pairs(past)) }, { { "a", "b", "c" }, { 1, 2, 3 } }) end
  equal(debug.getmetatable(past).__len(past), 3)
end

tests["a moment is a version or a time, told in one of the two ways"] = function()
  local state = support.state { k = 1 }
  local before = state:entry("k").updated
  os.execute("sleep 0.01")
  state:set("k", 2)
  local after = state:entry("k").updated
  equal(state:at(1):get("k"), 1)
  equal(state:at({ version = 1 }):get("k"), 1)
  equal(state:at({ time = before }):get("k"), 1)
  equal(state:at({ time = after }):get("k"), 2)
  equal(state:at({ time = (before + after) / 2 }):get("k"), 1)
  equal(state:at({ time = before - 0.001 }):get("k"), nil)
  equal(state:at({ time = os.time() + 60 }):get("k"), 2)
  equal(state:at({ time = math.huge }):get("k"), 2)
  equal(state:at({ time = -math.huge }):version(), 0)
  for _, wrong in ipairs {
    { {}, "by one of the two" }, { { version = 1, time = before }, "by one of the two" },
    { { version = -1 }, "'version'" }, { { version = "1" }, "option 'version': whole number expected, got string" },
    { { time = "now" }, "option 'time': number of seconds expected, got string" }, { { time = 0 / 0 }, "'time'" },
    { { when = 1 }, "unknown option 'when'; it takes version, time" }, { "1", "version or table expected, got string" },
    { 1.5, "whole number" }, { -1, "whole number" }, { 0 / 0, "whole number" }, { math.huge, "whole number" },
    { 99, "newest commit" }, { true, "version or table expected, got boolean" },
  } do
    fails("Invalid", wrong[2], state.at, state, wrong[1])
  end
  fails("Invalid", "#1 to 'at' (version or table expected, got no value)", state.at, state)
end

tests["every verb of the past takes a time as well"] = function()
  local state = support.state { a = 1, b = 1 }
  local time = state:entry("a").updated
  os.execute("sleep 0.01")
  state:set_many { a = 2, b = 2 }
  local after = state:entry("a").updated
  equal(differences(state:diff { time = time }), { { key = "a", old = 1, new = 2 }, { key = "b", old = 1, new = 2 } })
  equal(differences(state:diff({ time = after }, { time = time }, "b")), { { key = "b", old = 2, new = 1 } })
  equal(state:revert("a", { time = time }), 3)
  equal(state:get("a"), 1)
  equal(state:revert_to({ time = time }), 1)
  equal(state:get("b"), 1)
end

tests["a difference tells nothing there from a stored null"] = function()
  local state = support.state { gone = 1, null = 1 }
  state:delete("gone")
  state:set("null", State.null)
  state:set("came", { deep = { true } })
  equal(differences(state:diff(1)), {
    { key = "came", new = { deep = { true } } }, { key = "gone", old = 1 }, { key = "null", old = 1, new = State.null },
  })
  equal(differences(state:diff(1, nil, "n*")), { { key = "null", old = 1, new = State.null } })
  equal(differences(state:diff(1, 1)), {})
end

tests["verbs of the past name the argument that is wrong"] = function()
  local state = support.state { k = 1 }
  for _, wrong in ipairs {
    { "#1 to 'diff' (version or table expected, got no value)", "diff" },
    { "#2 to 'diff' (version or table expected, got string)", "diff", 0, "k*" },
    { "#3 to 'diff' (string expected, got table)", "diff", 0, 1, {} }, { "pattern", "diff", 0, 1, "[" },
    { "#1 to 'revert' (string expected, got no value)", "revert" }, { "#2 to 'revert'", "revert", "k" },
    { "#2 to 'revert'", "revert", "k", "1" }, { "#1 to 'revert_to'", "revert_to" },
    { "#2 to 'revert_to' (string expected, got number)", "revert_to", 1, 5 }, { "actor or a run", "undo" },
    { "#1 to 'undo' (table expected, got string)", "undo", "r1" }, { "it takes actor, run, since", "undo", { reason = "x" } },
    { "'since'", "undo", { run = "r", since = { time = 5 } } }, { "'run'", "undo", { run = true } },
  } do
    fails("Invalid", wrong[1], state[wrong[2]], state, support.unpack(wrong, 3))
  end
  equal(state:version(), 1)
end

tests["undo tells where each key lies that it left alone"] = function()
  local state = support.state { a = 1 }
  local run = state:as_run { run = "bad" }
  run:set_many { a = 2, b = 2 }
  run:scope("x"):scope("y"):set("k", 2)
  state:scope("x"):scope("y"):set("k", "somebody's")
  state:set("b", "somebody's")
  local version = state:version()
  local undone = state:undo { run = "bad" }
  equal(undone, { version = version + 1, keys = 1, refused = State.array {
    { scope = State.array(), key = "b" }, { scope = State.array { "x", "y" }, key = "k" } } })
  equal(state:get("a"), 1)
  equal(state:undo { run = "bad", since = version }, { version = version + 1, keys = 0, refused = State.array() })
end

tests["views and differences outlive what they were made from, and end with the store"] = function()
  local past = support.state({ a = 1 }):at(1)
  local iterator = support.state({ a = 1, b = 2 }):diff(0)
  local inner = support.state({ a = 1 }):as_run { run = "r" }
  collectgarbage()
  collectgarbage()
  equal(past:get("a"), 1)
  equal(iterator().key, "a")
  equal(inner:get("a"), 1)
  local state = support.state { a = 1, b = 2 }
  past, iterator, inner = state:at(1), state:diff(0), state:as_run { run = "r" }
  local keys, items = past:keys(), past:items()
  equal(iterator().key, "a")
  state:close()
  for _, call in ipairs {
    { past.get, past, "a" }, { past.entry, past, "a" }, { past.exists, past, "a" }, { past.get_many, past, { "a" } },
    { past.count, past }, { past.keys, past }, { past.items, past }, { past.scope, past, "x" }, { iterator }, { keys }, { items },
    { inner.set, inner, "k", 1 }, { state.history, state, "k" }, { state.at, state, 0 }, { state.diff, state, 0 },
    { state.revert, state, "k", 0 }, { state.revert_to, state, 0 }, { state.undo, state, { run = "r" } },
    { state.as_run, state, { run = "r" } },
  } do
    fails("Closed", {}, support.unpack(call))
  end
  equal(past:version(), 1)
end

tests["a view or an iterator that was collected, or something else, is an error"] = function()
  local state = support.state { k = 1 }
  local past, iterator = state:at(1), state:diff(0)
  local class = debug.getmetatable(past)
  fails("Invalid", "bad self (View expected, got userdata)", past.version, state)
  fails("Invalid", "bad self (State or Scope expected", state.history, past, "k")
  fails("Invalid", "bad self (State, Scope or Transaction expected", state.set, past, "k", 2)
  for _, verb in ipairs { "as_run", "history", "at", "diff", "revert", "revert_to", "undo" } do
    for _, imposter in ipairs { past, state:transaction(), State.null, "text", 5, {} } do
      fails("Invalid", "bad self", state[verb], imposter, "k", 1)
    end
  end
  debug.setmetatable(past, debug.getmetatable(state))
  fails("Invalid", "bad self", function() return past:close() end)
  equal(past:get("k"), 1)
  class.__gc(past)
  class.__gc(past)
  for _, verb in ipairs { "get", "entry", "exists", "keys", "items", "count", "scope", "version" } do
    fails("Invalid", "bad self", class.__index[verb], past, "k")
  end
  local _, held = debug.getupvalue(iterator, 1)
  debug.getmetatable(held or past).__gc(held)
  if held then fails("Invalid", "collected", iterator) end
end

tests["a finalizer that takes a view or an iterator away in the middle does no harm"] = function()
  local state = State.open()
  local values = {}
  for n = 1, 300 do values[("%03d"):format(n)] = { n, ("x"):rep(50) } end
  state:set_many(values)
  for _ = 1, 20 do
    local past, iterator = state:at(1), state:diff(0)
    local collect = debug.getmetatable(past).__gc
    local _, held = debug.getupvalue(iterator, 1)
    local function take_away()
      collect(past)
      collect(held)
    end
    if newproxy then getmetatable(newproxy(true)).__gc = take_away else setmetatable({}, { __gc = take_away }) end
    for key, value in past:items() do assert(tonumber(key) == value[1]) end
    for difference in function()
      local ok, found = pcall(iterator)
      return ok and found or nil
    end do
      assert(tonumber(difference.key) == difference.new[1])
    end
    collectgarbage()
  end
  equal(state:count(), 300)
end

--- Runs `f` in a task, again and again until other tasks have run meanwhile; says whether they ever did.
local function lets_others_run(f)
  local turns, before, tries = 0, nil, 0
  State.run(function()
    local clock = State.spawn(function()
      while true do
        turns = turns + 1
        State.sleep(0)
      end
    end)
    State.sleep(0.001)
    before = turns
    -- An answer that is there at once is taken before others have their turn.
    repeat
      f()
      tries = tries + 1
    until turns > before or tries == 500
    clock:cancel()
  end)
  return turns > before
end

tests["in a task, verbs of the past and of views let others run"] = function()
  local state = support.state { a = 1, b = 2 }
  state:scope("inner"):set("x", 1)
  state:set("a", 3)
  local past = state:at(1)
  for name, f in pairs {
    history = function() equal(#state:history("a", { limit = 5 }), 2) end,
    at = function() equal(state:at({ version = 1 }):version(), 1) end,
    diff = function() equal(differences(state:diff(1)), { { key = "a", old = 1, new = 3 } }) end,
    revert = function() state:revert("b", 1) end,
    revert_to = function() equal(state:revert_to(1, "nobody"), 0) end,
    undo = function() equal(state:undo({ run = "nobody" }).keys, 0) end,
    get = function() equal({ past:get("a"), past:get("c", 7) }, { 1, 7 }) end,
    entry = function() equal(past:entry("a").version, 1) end,
    exists = function() equal(past:exists("c"), false) end,
    get_many = function() equal(past:get_many { "a", "c" }, { a = 1 }) end,
    count = function() equal(past:count("a"), 1) end,
    -- Not in a for loop, where Lua 5.1 cannot yield.
    keys = function() equal(past:keys({ reverse = true })(), "b") end,
    items = function() equal({ past:items("a")() }, { "a", 1 }) end,
    scope = function() equal(past:scope("inner"):get("x"), nil) end,
  } do
    assert(lets_others_run(f), name .. " blocks")
  end
  if _VERSION ~= "Lua 5.1" then
    assert(lets_others_run(function() equal({ support.collect(pairs(past)) }, { { "a", "b" }, { 1, 2 } }) end), "pairs blocks")
  end
end

tests["verbs of the past and of views have their futures"] = function()
  local state = support.state { a = 1, b = 2 }
  state:as_run({ run = "r" }):set("a", 3)
  local past = state:at_async(1):await()
  equal(past:version(), 1)
  equal({ past:get_async("a"):await(), past:get_async("c", 7):await() }, { 1, 7 })
  equal(past:entry_async("a"):await().version, 1)
  equal(past:exists_async("c"):await(), false)
  equal(past:get_many_async({ "a", "c" }):await(), { a = 1 })
  equal(past:count_async():await(), 2)
  equal(past:keys_async("a"):await(), { "a" })
  equal(past:items_async({ limit = 1 }):await(), { { "a", 1 } })
  fails("NotFound", "nobody", function() past:scope_async("nobody"):await() end)
  equal(past.set_async, nil)
  equal(past.modify_async, nil)
  equal(#state:history_async("a"):await(), 2)
  equal(state:diff_async(1):await(), { { key = "a", old = 1, new = 3 } })
  equal(state:undo_async({ run = "r" }):await().keys, 1)
  equal(state:revert_async("a", 2):await(), 4)
  equal(state:revert_to_async({ version = 1 }):await(), 1)
  fails("Invalid", "#1 to 'at' (version or table expected, got string)", state.at_async, state, "1")
  fails("Invalid", "actor or a run", function() state:undo_async():await() end)
end

tests["a task that is walking through differences or a view ends with the store"] = function()
  local values = {}
  for n = 1, 300 do values[("%03d"):format(n)] = n end
  local state = support.state(values)
  State.run(function()
    local iterator, items = state:diff(0), state:at(1):items()
    equal(iterator().key, "001")
    equal(items(), "001")
    collectgarbage()
    state:close()
    -- Where pcall is no place to yield from, they block.
    fails("Closed", {}, iterator)
    fails("Closed", {}, function() for _ in items do end end)
  end)
end

tests["thousands of views and differences are collected"] = function()
  local state = support.state { k = 1 }
  collectgarbage()
  local before = collectgarbage("count")
  for _ = 1, 5000 do
    state:at(1):keys()
    state:diff(0)
    state:as_run { run = "r" }
  end
  collectgarbage()
  collectgarbage()
  assert(collectgarbage("count") < before + 500, "memory grew")
end

tests["without integers, what would be rounded is an error in the past as well"] = function()
  if support.has_integers then return end
  -- An integer that this Lua cannot read is made by adding up what it can.
  local state = support.state { k = 2 ^ 53 }
  for _ = 1, 3 do pcall(state.increment, state, "k", 2 ^ 53) end
  for _, read in ipairs {
    function() return state:history("k") end, function() return state:at(state:version()):get("k") end, state:diff(0),
  } do
    fails("Invalid", "2^53", read)
  end
  state:set("k", 1)
  equal(#state:history("k", { limit = 1 }), 1)
end

return tests

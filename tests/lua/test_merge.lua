local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

--- A scope and a fork of it that disagree about a and b, with what each has before, here and there.
local function apart(state, base, ours, theirs)
  local agent = state:scope("agent")
  agent:set_many(base or { a = 1, b = 1 })
  local trial = state:fork("agent", "trial")
  agent:set_many(ours or { a = 2, b = 2 })
  trial:set_many(theirs or { a = 3, b = 3 })
  return agent, trial
end

--- The ways in which a merge can be asked for; each gives what came of it or raises.
local SURFACES = {
  blocking = function(agent, ...) return agent:merge_from(...) end,
  future = function(agent, ...) return agent:merge_from_async(...):await() end,
  task = function(...)
    local given = { n = select("#", ...), ... }
    return State.run(function() return given[1].merge_from(support.unpack(given, 1, given.n)) end)
  end,
}

local function in_every_surface(test)
  for name, merge in pairs(SURFACES) do
    local ok, e = xpcall(function() test(merge) end, function(e) return debug.traceback(tostring(e)) end)
    if not ok then error(name .. ": " .. e, 0) end
  end
end

tests["a merge tells what it did in the shape of undo"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    trial:set("new", 1)
    trial:scope("x"):scope("y"):set("k", 1)
    agent:scope("x"):scope("y"):set("k", 2)
    local merged = merge(agent, trial)
    table.sort(merged.conflicts, function(one, other) return one.key < other.key end)
    equal(merged, { version = state:version(), keys = 1, conflicts = State.array {
      { path = State.array(), key = "a" }, { path = State.array(), key = "b" }, { path = State.array { "x", "y" }, key = "k" } } })
    equal(agent:get("new"), 1)
    equal(merge(agent, trial, function() end).keys, 0)
  end)
end

tests["a resolver sees three sides, of which those that are not there are nil"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state, { a = 1, b = { 1 } }, { b = State.null, c = 2 }, { b = false, c = 3 })
    agent:delete("a")
    trial:set("a", 5)
    local seen = {}
    local merged = merge(agent, trial, function(conflict)
      seen[#seen + 1] = conflict
      return State.theirs
    end)
    equal(seen, {
      { path = State.array(), key = "a", base = 1, theirs = 5 },
      { path = State.array(), key = "b", base = State.array { 1 }, ours = State.null, theirs = false },
      { path = State.array(), key = "c", ours = 2, theirs = 3 },
    })
    equal({ merged.keys, #merged.conflicts }, { 3, 0 })
    equal({ agent:get("a"), agent:get("b"), agent:get("c") }, { 5, false, 3 })
  end)
end

tests["an answer is a marker, a value, or nil for leaving it alone"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local base, ours, theirs, answers = {}, {}, {}, {
      deleted = State.deleted, empty = {}, falsehood = false, null = State.null, ours = State.ours, text = "ours",
      theirs = State.theirs, binary = State.binary("x"), list = { 1, 2 },
    }
    for key in pairs(answers) do base[key], ours[key], theirs[key] = 1, 2, 3 end
    base.left, ours.left, theirs.left = 1, 2, 3
    local agent, trial = apart(state, base, ours, theirs)
    -- Only the first result counts.
    local merged = merge(agent, trial, function(conflict) return answers[conflict.key], State.deleted end)
    equal({ merged.keys, #merged.conflicts, merged.conflicts[1].key }, { 8, 1, "left" })
    equal(agent:get_many { "deleted", "empty", "falsehood", "null", "ours", "text", "theirs", "binary", "list", "left" }, {
      empty = {}, falsehood = false, null = State.null, ours = 2, text = "ours", theirs = 3, binary = "x",
      list = State.array { 1, 2 }, left = 2,
    })
  end)
end

tests["the markers are themselves, and no values"] = function()
  local state = support.state()
  for _, name in ipairs { "ours", "theirs", "deleted" } do equal(tostring(State[name]), "State." .. name) end
  assert(State.ours ~= State.theirs and State.ours ~= State.deleted and State.ours == State.ours)
  fails("Invalid", "a userdata cannot be stored", state.set, state, "k", State.ours)
  fails("Invalid", "a userdata cannot be stored", state.set, state, "k", { State.deleted })
  equal(type(getmetatable(State.ours)), "string")
  fails("Invalid", "bad self", state.get, State.ours, "k")
end

tests["a marker with another metatable is still what it is, and one that was collected is no answer"] = function()
  local state = support.state()
  local agent, trial = apart(state)
  local loaded, native = package.loaded, "llmspell_state.native"
  local own = loaded[native]
  loaded[native] = nil
  local marker = require(native).theirs
  loaded[native] = own
  local class = debug.getmetatable(marker)
  debug.setmetatable(marker, debug.getmetatable(state))
  fails("Invalid", "bad self", function() return marker:get("k") end)
  equal(agent:merge_from(trial, function() return marker end).keys, 2)
  trial:set("a", 4)
  class.__gc(marker)
  fails("Invalid", "a userdata cannot be stored", agent.merge_from, agent, trial, function() return marker end)
  fails("Invalid", "bad self", class.__tostring, marker)
  equal(agent:get("a"), 3)
end

tests["what is no answer ends the merge, and nothing is merged"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    trial:set("new", 1)
    local version = state:version()
    for _, wrong in ipairs { print, 0 / 0, { [1.5] = 1 }, { print }, agent, coroutine.create(function() end), io.stdout } do
      fails("Invalid", {}, merge, agent, trial, function(conflict) return conflict.key == "b" and wrong or State.theirs end)
    end
    equal(state:version(), version)
    equal(agent:exists("new"), false)
  end)
end

tests["an error of the resolver ends the merge unchanged, and nothing is merged"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    trial:set("new", 1)
    local own, version, calls = { "my own" }, state:version(), 0
    local ok, e = pcall(merge, agent, trial, function(conflict)
      calls = calls + 1
      if conflict.key == "b" then error(own) end
      return State.theirs
    end)
    equal({ ok, calls }, { false, 2 })
    assert(e == own, tostring(e))
    ok, e = pcall(merge, agent, trial, function() error("text") end)
    assert(not ok and tostring(e):find("test_merge.lua:%d+: text"), tostring(e))
    -- Not a conflict of the merge, which would be tried again.
    calls = 0
    fails("Conflict", {}, merge, agent, trial, function()
      calls = calls + 1
      state:set("k", 1, { if_version = 99 })
    end)
    equal({ calls, state:version() }, { 1, version })
    equal(agent:get_many { "a", "b", "new" }, { a = 2, b = 2 })
  end)
end

tests["a resolver may use the store, also what it merges"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    trial:scope("inner"):set("k", 1)
    local asked = {}
    local merged = merge(agent, trial, function(conflict)
      asked[#asked + 1] = conflict.key .. tostring(conflict.ours)
      -- The first time, another writer is faster: the question is put again.
      if #asked == 1 then agent:set("a", 20) end
      state:transaction(function(tx) tx:set("seen", #asked) end)
      state:append("log", conflict.key)
      equal(agent:get("b"), 2)
      return conflict.ours + conflict.theirs
    end)
    equal(asked, { "a2", "b2", "a20" })
    equal({ merged.keys, agent:get("a"), agent:get("b"), state:get("seen"), #state:get("log") }, { 3, 23, 5, 3, 3 })
  end)
end

tests["a resolver that always changes what it is asked for is stopped"] = function()
  -- In one surface, since the pauses between so many attempts take seconds; the attempts of all are counted in the same place.
  local state = support.state()
  local agent, trial = apart(state)
  local calls = 0
  fails("Conflict", "faster than they were answered", SURFACES.task, agent, trial, function()
    calls = calls + 1
    agent:increment("a")
    return State.theirs
  end)
  assert(calls > 2, calls)
  equal(agent:get("b"), 2)
end

tests["merges nest in resolvers"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    state:scope("other"):set("k", 1)
    local second = state:fork("other", "second")
    second:set("k", 2)
    state:scope("other"):set("k", 3)
    local inner
    local merged = merge(agent, trial, function(conflict)
      inner = conflict.key == "a" and merge(state:scope("other"), second, function() return "inner" end) or inner
      return "outer"
    end)
    equal({ merged.keys, inner.keys, agent:get("a"), state:scope("other"):get("k") }, { 2, 1, "outer", "inner" })
  end)
end

tests["in a task the resolver may wait, and others run meanwhile"] = function()
  local state = support.state()
  local agent, trial = apart(state)
  local trace = {}
  State.run(function()
    local answer = State.future()
    local merging = State.spawn(function()
      return agent:merge_from(trial, function(conflict)
        trace[#trace + 1] = "asked " .. conflict.key
        State.sleep(0.001)
        return conflict.key == "a" and answer:await() or State.theirs
      end)
    end)
    repeat State.sleep(0.001) until trace[1]
    trace[#trace + 1] = "meanwhile"
    agent:set("other", 1)
    answer:resolve("waited for")
    equal(merging:join().keys, 2)
  end)
  equal(trace, { "asked a", "meanwhile", "asked b" })
  equal({ agent:get("a"), agent:get("b") }, { "waited for", 3 })
  -- By a future, too, from outside of all tasks.
  trial:set("a", "again")
  equal(agent:merge_from_async(trial, function(conflict)
    State.sleep(0.001)
    return conflict.key .. "!"
  end):await().keys, 1)
  equal({ agent:get("a"), agent:get("b") }, { "a!", 3 })
end

tests["a task that is cancelled while its resolver waits has merged nothing"] = function()
  local state = support.state()
  local agent, trial = apart(state)
  trial:set("new", 1)
  local version = state:version()
  State.run(function()
    local merging = State.spawn(function()
      return agent:merge_from(trial, function() State.sleep(60) end)
    end)
    State.sleep(0.01)
    equal(merging:cancel(), true)
    local joined = State.future()
    merging:on_done(function(...) joined:resolve(...) end)
    local ok, e = joined:await()
    equal({ ok, e.kind }, { false, "Cancelled" })
  end)
  equal({ state:version(), agent:exists("new") }, { version, false })
end

tests["where a task cannot yield the resolver blocks, and is right"] = function()
  local state = support.state()
  local agent, trial = apart(state)
  State.run(function()
    table.sort({ 2, 1 }, function(one, other)
      if agent:get("a") == 2 then
        equal(agent:merge_from(trial, function()
          State.sleep(0.001)
          return State.theirs
        end).keys, 2)
      end
      return one < other
    end)
  end)
  equal(agent:get("a"), 3)
end

tests["what is merged must be a scope of the same opening, forked from here"] = function()
  local state, other = support.state(), support.state()
  local agent, trial = apart(state)
  for _, resolve in ipairs { false, function() end } do
    resolve = resolve or nil
    in_every_surface(function(merge)
      fails("Invalid", "another opening", merge, agent, other:scope("trial"), resolve)
      fails("Invalid", "another opening", merge, agent, other, resolve)
      fails("Invalid", "no fork of this one", merge, agent, state:scope("other"), resolve)
      fails("Invalid", "no fork of this one", merge, agent, state, resolve)
      fails("Invalid", "no fork of this one", merge, trial, agent, resolve)
      fails("Invalid", "no fork of this one", merge, agent, agent, resolve)
      for _, wrong in ipairs { "trial", 5, {}, State.null, State.ours, state:transaction(), state:at(0), state:watch() } do
        fails("Invalid", "#1 to 'merge_from' (Scope expected, got " .. type(wrong), merge, agent, wrong, resolve)
      end
      fails("Invalid", "#1 to 'merge_from' (Scope expected, got n", merge, agent)
    end)
  end
  in_every_surface(function(merge)
    for _, wrong in ipairs { "ours", 5, {}, true, State.ours } do
      fails("Invalid", "#2 to 'merge_from' (function expected, got " .. type(wrong), merge, agent, trial, wrong)
    end
  end)
  fails("Invalid", "#1 to 'fork' (string expected", state.fork, state)
  fails("Invalid", "#2 to 'fork' (string expected, got no value)", state.fork, state, "agent")
  fails("NotFound", "nobody", state.fork, state, "nobody", "x")
  fails("Conflict", "trial", state.fork, state, "agent", "trial")
end

tests["finalizers in the middle of a merge do no harm"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local base, ours, theirs = {}, {}, {}
    for n = 1, 200 do
      local key = ("k%03d"):format(n)
      base[key], ours[key], theirs[key] = n, { n, ("x"):rep(50) }, { -n, ("y"):rep(50) }
    end
    local agent, trial = apart(state, base, ours, theirs)
    local collect = debug.getmetatable(agent).__gc
    local function take_away()
      collect(agent)
      collect(trial)
    end
    local calls = 0
    local merged = merge(agent, trial, function(conflict)
      calls = calls + 1
      if calls == 3 then
        if newproxy then getmetatable(newproxy(true)).__gc = take_away else setmetatable({}, { __gc = take_away }) end
      end
      collectgarbage()
      return { conflict.ours[1] + conflict.theirs[1], conflict.key }
    end)
    equal({ merged.keys, calls }, { 200, 200 })
    fails("Invalid", "bad self", agent.get, agent, "k")
    equal(state:scope("agent"):get("k007"), State.array { 0, "k007" })
  end)
end

tests["a store that a resolver closes ends the merge"] = function()
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state)
    fails("Closed", {}, merge, agent, trial, function()
      state:close()
      return State.theirs
    end)
  end)
end

tests["thousands of merges are collected, and forks outlive what they were made from"] = function()
  local agent, trial = apart(support.state())
  local function resolve() end
  local function many()
    for _ = 1, 500 do
      agent:merge_from(trial, resolve)
      agent:merge_from_async(trial, resolve)
      agent:merge_from_async(trial):await()
    end
    State.poll(0.01)
    State.run(function() end)
    collectgarbage()
    collectgarbage()
  end
  many()
  local before = collectgarbage("count")
  many()
  assert(collectgarbage("count") < before + 200, "memory grew")
  equal(trial:get("a"), 3)
end

tests["without integers, a side that would be rounded is an error"] = function()
  if support.has_integers then return end
  in_every_surface(function(merge)
    local state = support.state()
    local agent, trial = apart(state, { a = 2 ^ 53 })
    for _ = 1, 3 do pcall(trial.increment, trial, "b", 2 ^ 53) end
    fails("Invalid", "2^53", merge, agent, trial, function() return State.ours end)
    equal(merge(agent, trial).keys, 0)
  end)
end

return tests

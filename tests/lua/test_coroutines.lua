local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

--- What a task came to, in a way that may yield everywhere.
local function outcome(task)
  local future = State.future()
  task:on_done(function(ok, e) future:resolve(ok, e) end)
  return future:await()
end

--- The kind of the error that a task ends with.
local function kind_of(task)
  local ok, e = outcome(task)
  return not ok and e.kind or nil
end

local has_pcall_yield = _VERSION ~= "Lua 5.1" or rawget(_G, "jit") ~= nil

tests["run answers what its function returns and takes its arguments"] = function()
  equal({ State.run(function(a, b) return b, nil, a end, 1, 2) }, { 2, nil, 1 })
  equal(select("#", State.run(function() end)), 0)
  fails("Invalid", "function expected, got nil", State.run)
  fails("Invalid", "function expected, got table", State.spawn, {})
end

tests["calls of tasks overlap and share commits"] = function()
  support.with_folder(function(folder)
    local state = State.open(folder .. "/a.db")
    local finished = State.run(function()
      local list = {}
      for n = 1, 200 do
        list[n] = State.spawn(function()
          state:set("k" .. n, n)
          return state:get("k" .. n)
        end)
      end
      return State.gather(list)
    end)
    for n = 1, 200 do equal(finished[n], n) end
    equal(state:count(), 200)
    state:close()
  end)
end

tests["a task that waits lets others run"] = function()
  local order = {}
  State.run(function()
    local slow = State.spawn(function() State.sleep(0.05) order[#order + 1] = "slow" end)
    local quick = State.spawn(function() State.sleep(0.001) order[#order + 1] = "quick" end)
    State.join(slow, quick)
  end)
  equal(order, { "quick", "slow" })
end

tests["every verb works in a task"] = function()
  local state = support.state { n = 1, list = { 1 }, object = { a = 1 }, x1 = 1, x2 = 1 }
  State.run(function()
    equal(state:increment("n", 4), 5)
    equal(state:append("list", 2), 2)
    equal(state:merge("object", { b = 2 }), { a = 1, b = 2 })
    equal(state:clear("x*"), 2)
    equal(state:exists("x1"), false)
    equal(state:get_many({ "n", "x1" }), { n = 5 })
    equal(state:get("missing", 7), 7)
    equal(state:modify("m", function(m) State.sleep(0.001) return m .. "!" end, "hello"), "hello!")
    equal(state:entry("n").value, 5)
    local scope = state:scope("inner")
    scope:set_many { k = 1 }
    equal(scope:delete("k"), true)
    equal(state:scopes(), State.array { "inner" })
    equal(state:verify().ok, true)
    local version = scope:set("k", 2)
    equal(state:version(), version)
    equal((support.collect(state:keys("n*"))), { "n" })
    local tx = state:transaction()
    tx:set("t", 1)
    equal(tx:get("t"), 1)
    equal(tx:increment("t"), 2)
    assert(tx:commit() > 0)
    local other = State.open()
    other:set("k", 1)
    other:close()
    fails("Closed", {}, other.get, other, "k")
  end)
end

tests["an error has the line of the task that called, and its traceback"] = function()
  local state = support.state { a = 1 }
  local e
  State.run(function()
    local task = State.spawn(function()
      local function deep() return (state:set("a", 1, { if_version = 9 })) end
      deep()
    end)
    local _
    _, e = pcall(State.join, task)
    assert(task:traceback():find("deep", 1, true), task:traceback())
  end)
  equal(e.kind, "Conflict")
  assert(e.where:find("test_coroutines.lua:", 1, true), tostring(e.where))
  assert(e.traceback:find("deep", 1, true), e.traceback)
  local ok, text = pcall(State.run, function()
    local function deeper() error("text") end
    deeper()
  end)
  equal(ok, false)
  assert(text:find("test_coroutines.lua:%d+: text") and text:find("deeper", 1, true), text)
  local object = {}
  ok, e = pcall(State.run, function() error(object) end)
  assert(not ok and e == object)
end

tests["an error of a task that nobody joins comes out of run"] = function()
  local state = support.state()
  local ok, e = pcall(State.run, function()
    State.spawn(function() error("nobody joins", 0) end)
    state:set("k", 1)
    return "fine"
  end)
  equal(ok, false)
  assert(e:find("nobody joins", 1, true), e)
  equal(State.run(function()
    local task = State.spawn(function() error("joined", 0) end)
    return (pcall(task.join, task))
  end), false)
end

tests["run waits for all tasks, and cancels them when its function fails"] = function()
  local state = support.state()
  State.run(function() State.spawn(function() State.sleep(0.02) state:set("late", 1) end) end)
  equal(state:get("late"), 1)
  local cleaned
  fails("Invalid", "bad argument", State.run, function()
    State.spawn(State.sleep, 60):on_done(function(_, e) cleaned = e.kind end)
    State.sleep(0.001)
    state:get(5)
  end)
  equal(cleaned, "Cancelled")
end

tests["run within a task waits for its function"] = function()
  equal(State.run(function() return State.run(function(a) State.sleep(0.001) return a end, 5) end), 5)
end

tests["a task is cancelled where it waits, and only once"] = function()
  local state = support.state()
  State.run(function()
    local seen
    local sleeper = State.spawn(function()
      local ok, e = pcall(State.sleep, 60)
      seen = not ok and e.kind
      state:set("cleaned up", 1)
      error(e, 0)
    end)
    State.sleep(0.001)
    equal(sleeper:done(), false)
    equal(sleeper:cancel(), true)
    equal(kind_of(sleeper), "Cancelled")
    equal(seen, "Cancelled")
    equal(sleeper:cancel(), false)
    local unstarted = State.spawn(function() state:set("never", 1) end)
    equal(unstarted:cancel(), true)
    equal(kind_of(unstarted), "Cancelled")
    -- In the middle of a call.
    local writer = State.spawn(function() for n = 1, 1000 do state:set("w", n) end end)
    while not state:get("w") do State.sleep(0) end
    writer:cancel()
    equal(kind_of(writer), "Cancelled")
  end)
  equal(state:exists("never"), false)
  equal(state:exists("cleaned up"), true)
end

tests["what takes too long gets an error of kind Cancelled"] = function()
  local state = support.state()
  local e = fails("Cancelled", "longer than 0.01 seconds", State.timeout, 0.01, function() State.sleep(60) end)
  assert(e.traceback, "it has a traceback")
  equal({ State.timeout(60, function(a) state:set("k", a) return state:get("k"), 2 end, 1) }, { 1, 2 })
  State.run(function()
    fails("Cancelled", "longer", State.timeout, 0.01, function() state:watch():next() end)
    equal(State.timeout(60, function() return "in time" end), "in time")
    fails("Invalid", "string expected", State.timeout, 60, function() state:get(5) end)
  end)
end

tests["sleep takes parts of seconds, everywhere"] = function()
  State.sleep(0)
  State.sleep(0.001)
  State.run(State.sleep, 0.001)
  for _, wrong in ipairs { -1, 0 / 0, "1", {} } do fails("Invalid", "'sleep'", State.sleep, wrong) end
  fails("Invalid", "'sleep'", State.sleep)
end

tests["a transaction of a task holds nothing while it waits, and runs again on a conflict"] = function()
  local state = support.state { n = 0 }
  local runs = 0
  State.run(function()
    local list = {}
    for index = 1, 10 do
      list[index] = function()
        return state:transaction(function(tx)
          runs = runs + 1
          local n = tx:get("n")
          State.sleep(0.002)
          tx:set("n", n + 1)
          return "done", nil
        end)
      end
    end
    local answers = State.gather(list)
    for index = 1, 10 do equal(answers[index], "done") end
  end)
  equal(state:get("n"), 10)
  assert(runs > 10, "nobody met a conflict")
end

tests["a transaction of a task passes errors through unchanged and rolls back"] = function()
  local state = support.state { n = 0 }
  State.run(function()
    local mine, kept = {}, nil
    local ok, e = pcall(state.transact, state, function(tx)
      kept = tx
      tx:set("n", 1)
      State.sleep(0.001)
      error(mine)
    end)
    assert(not ok and e == mine)
    fails("Closed", {}, kept.set, kept, "n", 1)
    equal({ pcall(state.transact, state, function() error("text", 0) end) }, { false, "text" })
    fails("Conflict", {}, state.transact, state, function(tx)
      tx:get("n")
      state:increment("n")
      tx:set("n", 0)
    end, { attempts = 2 })
    fails("Invalid", "1 or more", state.transact, state, print, { attempts = 0 })
    fails("Invalid", "function expected", state.transact, state)
    local function own(tx) tx:set("own", 1) tx:commit() return "its own way" end
    equal(state:transact(own), "its own way")
  end)
  equal(state:get("n"), 2)
end

tests["modify of a task is exact, and its function may wait"] = function()
  local state = support.state { n = 0 }
  State.run(function()
    local list = {}
    for index = 1, 10 do
      list[index] = function()
        state:modify("n", function(n) State.sleep(0.001) return n + 1 end)
      end
    end
    State.gather(list)
    fails("Invalid", "nil is not a value", state.modify, state, "n", function() end)
    local kept = { 1 }
    equal(state:modify("list", function(list_of) list_of[2] = 2 return list_of end, kept), State.array { 1, 2 })
    equal(kept, { 1 })
  end)
  equal(state:get("n"), 10)
end

tests["where a task must not yield, calls block and are right"] = function()
  local state = support.state { a = 1, b = 2 }
  State.run(function()
    local other = State.spawn(function() for n = 1, 5 do state:set("other", n) end end)
    equal({ pcall(state.get, state, "a") }, { true, 1 })
    equal(select(2, pcall(function() state:set("c", 3) return state:get("c") end)), 3)
    local list = { 3, 1, 2 }
    table.sort(list, function(x, y) state:set("sorted", x) return x < y end)
    equal(list, { 1, 2, 3 })
    equal((("ab"):gsub(".", function(key) return tostring(state:get(key)) end)), "12")
    local indexed = setmetatable({}, { __index = function(_, key) State.sleep(0.001) return state:get(key) end })
    equal(indexed.b, 2)
    local added = setmetatable({}, { __add = function() state:set("added", 1) return state:get("added") end })
    equal(added + 1, 1)
    local function each() return function(_, last) return state:get("a") ~= last and 1 or nil end end
    for value in each() do equal(value, 1) end
    local walk = coroutine.wrap(function()
      for key, value in state:items("?") do coroutine.yield(key .. value) end
    end)
    equal({ walk(), walk() }, { "a1", "b2" })
    table.sort({ 2, 1 }, function(x, y)
      State.sleep(0.001)
      equal(State.spawn(function() State.sleep(0.001) return state:get("a") end):join(), 1)
      return x < y
    end)
    local watch = state:watch("w*")
    State.spawn(function() State.sleep(0.01) state:set("w", 1) end)
    local keys = {}
    for change in watch do
      keys[#keys + 1] = change.key
      watch:close()
    end
    equal(keys, { "w" })
    other:join()
  end)
  equal(state:get("other"), 5)
end

tests["yields pass through pcall in a task where this Lua can"] = function()
  local state, overlapped = support.state(), false
  State.run(function()
    local waiting = State.spawn(function() pcall(State.sleep, 0.05) end)
    State.spawn(function() state:set("k", 1) overlapped = not waiting:done() end)
  end)
  if has_pcall_yield then equal(overlapped, true) end
  equal(state:get("k"), 1)
end

tests["blocking inside of each other ends with an error, not with a crash"] = function()
  local function deeper(depth)
    local answer
    table.sort({ 2, 1 }, function(x, y)
      answer = depth == 0 and "the bottom" or State.spawn(deeper, depth - 1):join()
      return x < y
    end)
    return answer
  end
  equal(State.run(deeper, 3), "the bottom")
  fails("Invalid", "deeper than", State.run, deeper, 100)
end

tests["a plain yield in a task lets others run"] = function()
  local order = {}
  State.run(function()
    local one = State.spawn(function() for n = 1, 2 do order[#order + 1] = "a" .. n coroutine.yield() end end)
    local two = State.spawn(function() for n = 1, 2 do order[#order + 1] = "b" .. n coroutine.yield("ignored") end end)
    State.join(one, two)
  end)
  equal(order, { "a1", "b1", "a2", "b2" })
end

tests["tasks that wait for each other are told so"] = function()
  local ok, e = pcall(State.run, function()
    local one
    local two = State.spawn(function() return one:join() end)
    one = State.spawn(function() return two:join() end)
    one:join()
  end)
  equal(ok, false)
  equal(e.kind, "Cancelled")
  assert(e.message:find("nothing is left", 1, true), e.message)
end

tests["tasks started outside of run are run by join, by gather and by poll"] = function()
  local state = support.state()
  local task = State.spawn(function() state:set("a", 1) return "one", "two" end)
  equal(task:done(), false)
  equal({ task:join() }, { "one", "two" })
  equal({ State.join(task, State.spawn(function() return 2 end)) }, { "one", 2 })
  task = State.spawn(function() State.sleep(0.001) state:set("b", 1) end)
  while State.poll(1) do equal(task:done(), false) end
  equal(state:get("b"), 1)
  State.spawn(function() error("in poll", 0) end)
  local ok, e = pcall(State.poll)
  assert(not ok and e:find("in poll", 1, true), e)
  State.run(function() fails("Invalid", "not for a task", State.poll) end)
end

tests["a task waits for what a callback of the program finishes"] = function()
  local state = support.state()
  State.run(function()
    local future = State.future()
    state:set_async("k", 1):on_done(function(_, version) future:resolve(version) end)
    equal(future:await(), 1)
  end)
end

tests["a watch in a task sees what other tasks write"] = function()
  local state = support.state()
  local told = {}
  State.run(function()
    local watch = state:watch("k*")
    State.spawn(function()
      for n = 1, 20 do state:set("k" .. n, n) end
    end)
    while #told < 20 do told[#told + 1] = watch:next().value end
    equal(watch:next(0.001), nil)
    State.spawn(function() State.sleep(0.005) watch:close() end)
    equal(watch:next(), nil)
  end)
  for n = 1, 20 do equal(told[n], n) end
end

tests["tasks and futures that nobody keeps are no leak"] = function()
  local state = support.state()
  local function churn()
    State.run(function()
      for n = 1, 300 do State.spawn(function() state:set("k" .. n % 10, n) end) end
      for n = 1, 100 do state:set_async("k" .. n % 10, n) end
      for _ = 1, 50 do State.spawn(State.sleep, 60):cancel() end
    end)
  end
  churn()
  collectgarbage()
  collectgarbage()
  local before = collectgarbage("count")
  for _ = 1, 10 do churn() end
  collectgarbage()
  collectgarbage()
  assert(collectgarbage("count") < before + 300, "memory grew")
end

tests["Ctrl-C ends a program whose tasks wait"] = function()
  local status, said = support.child([[
    local State = require "llmspell_state"
    os.execute("(sleep 0.3; kill -INT $PPID) &")
    State.run(function() State.spawn(State.sleep, 50) State.sleep(50) end)
    print("went on")
  ]])
  equal(status, 1)
  assert(said:find("interrupted", 1, true) and not said:find("went on", 1, true), said)
end

return tests

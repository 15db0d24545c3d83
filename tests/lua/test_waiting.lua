-- Waiting that ends otherwise than it was meant to, and waiting where nothing can yield.
local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

local has_pcall_yield = _VERSION ~= "Lua 5.1" or rawget(_G, "jit") ~= nil

--- Runs a program in a process of its own, which must end, and print "fine" in the end.
local function ends(program)
  local status, said = support.child([[
    local State = require "llmspell_state"
    local state = State.open()
  ]] .. program .. ' print "fine"')
  assert(status == 0 and said:find("fine\n$"), tostring(status) .. ": " .. said)
end

tests["a watch that nobody waits for any more is nothing to wait for"] = function()
  ends [[
    local watch = state:watch("k*")
    State.run(function()
      assert(watch:next(0.001) == nil)
      local given_up = State.spawn(function() watch:next() end)
      State.sleep(0.001)
      given_up:cancel()
    end)
    local ok, e = pcall(State.run, function() State.future():await() end)
    assert(not ok and e.kind == "Cancelled" and e.message:find("nothing is left"), tostring(e))
    watch:next_async(0.001)
    while State.poll(1) do end
    state:set("k", 1)
    assert(watch:next(5).value == 1)
  ]]
end

tests["nothing that a script can call leaves a task neither done nor waiting"] = function()
  ends [[
    for _, f in pairs(getmetatable(state:set_async("k", 1))) do
      if type(f) == "function" then pcall(f, State.spawn(function() end), true) end
    end
    local watch = state:watch()
    State.spawn(function() watch:next(0.001) end)
    State.run(function() State.sleep(0.01) end)
    while State.poll(1) do end
  ]]
end

tests["the answer of a call does not come to where a cancelled task waits next"] = function()
  if not has_pcall_yield then return end
  local state = support.state { a = 1 }
  local counted, got
  State.run(function()
    local task
    task = State.spawn(function()
      task:cancel()
      counted = pcall(state.count, state)
      got = state:get_many { "a" }
    end)
    task:join()
  end)
  equal(counted, false)
  equal(got, { a = 1 })
end

tests["calls, sleeps and futures may block inside of each other as deep as they like"] = function()
  local state = support.state()
  local watch = state:watch("none")
  local numbers = State.run(function()
    local list = {}
    for n = 1, 60 do
      list[n] = function()
        local change
        table.sort({ 2, 1 }, function(x, y)
          State.sleep(0.0005)
          state:set_async("k" .. n, n):await()
          change = watch:next(0.0005)
          return x < y
        end)
        return change == nil and state:get("k" .. n)
      end
    end
    return State.gather(list)
  end)
  for n = 1, 60 do equal(numbers[n], n) end
end

tests["in coroutines of a task's own a watch and run wait, and other tasks go on"] = function()
  ends [[
    local change, inner
    State.run(function()
      local watch = state:watch("k*")
      State.spawn(function()
        State.sleep(0.001)
        state:set("k", 1)
      end)
      coroutine.wrap(function()
        change = watch:next()
        inner = State.run(function()
          State.sleep(0.001)
          return state:get("k")
        end)
        coroutine.yield()
      end)()
      state:set("after", State.timeout(5, function() return 2 end))
    end)
    assert(change.key == "k" and inner == 1 and state:get("after") == 2)
  ]]
end

tests["a task that waits in a coroutine of its own can be cancelled"] = function()
  local seen
  State.run(function()
    local task = State.spawn(function()
      coroutine.wrap(function()
        local ok, e = pcall(State.sleep, 60)
        seen = not ok and e.kind
      end)()
    end)
    State.spawn(function() task:cancel() end)
  end)
  equal(seen, "Cancelled")
end

tests["a callback waits, also for a watch and by run, while tasks go on"] = function()
  ends [[
    local change, inner
    State.run(function()
      local watch = state:watch("b")
      State.spawn(function()
        State.sleep(0.001)
        state:set("b", 1)
      end)
      state:set_async("a", 1):on_done(function()
        change = watch:next()
        inner = State.run(function() return state:get("a") end)
      end)
      State.sleep(0.001)
    end)
    assert(change.value == 1 and inner == 1)
  ]]
end

tests["gather takes ten thousand futures and functions"] = function()
  local state = support.state()
  local list = {}
  for n = 1, 10000 do list[n] = n % 2 == 0 and state:increment_async("n") or function() return n end end
  local results = State.gather(list)
  equal(results.n, 10000)
  equal(results[9999], 9999)
  equal(state:get("n"), 5000)
end

tests["a task that was cancelled in its sleep is not kept until it would have woken"] = function()
  local kept = setmetatable({}, { __mode = "k" })
  State.run(function()
    local first = State.spawn(State.sleep, 50)
    for n = 1, 50 do kept[State.spawn(State.sleep, 1000 + n * 7 % 50)] = true end
    State.sleep(0)
    for task in pairs(kept) do task:cancel() end
    State.sleep(0.001)
    collectgarbage()
    collectgarbage()
    equal(next(kept), nil)
    first:cancel()
  end)
end

--- Times in the order in which their sleepers woke, two thirds of sixty.
local function woken()
  local order, sleepers = {}, {}
  State.run(function()
    for n = 1, 60 do
      local time = n * 37 % 61
      sleepers[time] = State.spawn(function()
        State.sleep(0.005 + time * 0.003)
        order[#order + 1] = time
      end)
    end
    State.sleep(0)
    for time = 1, 60 do
      if time % 3 == 0 then sleepers[time]:cancel() end
    end
  end)
  return order
end

tests["sleepers wake in the order of their times, whoever is cancelled in between"] = function()
  -- On a busy machine some may begin later than the others, by more than what lies between their times; not again and again.
  local is_ordered = false
  for _ = 1, 5 do
    local order = woken()
    equal(#order, 40)
    is_ordered = true
    for index = 2, #order do is_ordered = is_ordered and order[index - 1] < order[index] end
    if is_ordered then break end
  end
  assert(is_ordered, "not in order, five times in a row")
end

tests["an argument that is no function is told of by the name of the verb"] = function()
  local state = support.state()
  fails("Invalid", "#1 to 'transact'", state.transact, state, "a", print)
  State.run(function()
    fails("Invalid", "#1 to 'transact'", state.transact, state, "a", print)
    fails("Invalid", "#1 to 'transaction'", state.transaction, state, "a")
  end)
end

tests["a named watch that is not closed before its state goes on from where it was saved"] = function()
  support.with_folder(function(folder)
    local state = State.open(folder .. "/a.db")
    local watch = state:watch { name = "n" }
    state:set("a", 1)
    watch:next(5)
    watch:save()
    state:set("b", 1)
    watch:next(5)
    state:close()
    state = State.open(folder .. "/a.db")
    equal(state:watch({ name = "n" }):next(5).key, "b")
    state:close()
  end)
end

return tests

local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

tests["a future gives in the main program what the method would"] = function()
  local state = support.state { a = 1, list = { 1 }, object = { x = 1 } }
  local version = state:set_async("b", 2):await()
  equal(version, state:version())
  equal(state:get_async("b"):await(), 2)
  equal(state:get_async("missing", "default"):await(), "default")
  equal(state:get_async("missing"):await(), nil)
  equal(state:entry_async("b"):await().version, version)
  equal(state:get_many_async({ "a", "b" }):await(), { a = 1, b = 2 })
  equal(state:exists_async("a"):await(), true)
  equal(state:count_async():await(), 4)
  equal(state:increment_async("a", 4):await(), 5)
  equal(state:append_async("list", 2):await(), 2)
  equal(state:merge_async("object", { y = 2 }):await(), { x = 1, y = 2 })
  equal(state:modify_async("a", function(a) return a * 2 end):await(), 10)
  equal(state:set_many_async({ c = 1, d = 1 }):await(), state:version_async():await())
  equal(state:delete_async("c"):await(), true)
  equal(state:clear_async("d"):await(), 1)
  equal(state:keys_async("?"):await(), { "a", "b" })
  equal(state:items_async("?"):await(), { { "a", 10 }, { "b", 2 } })
  local scope = state:scope_async("inner"):await()
  scope:set_async("k", 1):await()
  equal(state:scopes_async():await(), State.array { "inner" })
  equal(state:verify_async():await().ok, true)
  equal(state:transact_async(function(tx)
    equal(select("#", tx:set_async("t", 1):await()), 0)
    return tx:get_async("t"):await(), "and more"
  end):await(), 1)
end

tests["a cached get is done at once, also when it is not there"] = function()
  local state = support.state { a = 1 }
  equal(state:get("a"), 1)
  equal(state:get_async("a"):done(), true)
  equal(state:get_async("a", 2):await(), 1)
end

tests["many futures are under way together, and gather gives their results in order"] = function()
  support.with_folder(function(folder)
    local state = State.open(folder .. "/a.db")
    local futures = {}
    for n = 1, 300 do futures[n] = state:increment_async("n", 1) end
    local sums = State.gather(futures)
    equal(sums.n, 300)
    local seen = {}
    for _, sum in ipairs(sums) do seen[sum] = true end
    for n = 1, 300 do assert(seen[n], n) end
    equal(state:get("n"), 300)
    local before = state:version()
    assert(before <= 300)
    state:close()
  end)
end

tests["an error comes out where it is awaited, with that place"] = function()
  local state = support.state { a = 1 }
  local future = state:set_async("a", 2, { if_version = 99 })
  local ok, e = pcall(function() future:await() end)
  equal(ok, false)
  equal(e.kind, "Conflict")
  assert(e.where and e.where:find("test_futures.lua:", 1, true), tostring(e.where))
  equal(tostring(future), "Future (failed)")
  fails("Conflict", {}, future.await, future)
  fails("Invalid", "bad argument #1 to 'set'", state.set_async, state, 5, 1)
  ok, e = pcall(function() state:set_async(5, 1) end)
  equal(ok, false)
  assert(e.where:find("test_futures.lua:", 1, true), tostring(e.where))
end

tests["gather waits for all and raises the first error in order"] = function()
  local state = support.state { a = 1 }
  state:set("text", "x")
  local last = state:set_async("late", 1)
  fails("Invalid", "works on a number", State.gather, {
    state:set_async("b", 1), state:increment_async("text"), state:set_async("a", 1, { if_version = 99 }), last,
  })
  equal(last:done(), true)
  fails("Invalid", "item 2 to 'gather' is a number", State.gather, { last, 5 })
  fails("Invalid", "table of futures expected", State.gather, 5)
  equal(State.gather({}), { n = 0 })
end

tests["on_done is called with what the future came to, now or later"] = function()
  local state = support.state { a = 1 }
  local told = {}
  local future = state:set_async("b", 1)
  equal(future:on_done(function(ok, version) told[#told + 1] = { ok, version } end), future)
  future:await()
  future:on_done(function(ok) told[#told + 1] = ok end)
  equal(told, { { true, 2 }, true })
  local failing = state:set_async("a", 1, { if_version = 99 })
  failing:on_done(function(ok, e) told[#told + 1] = { ok, e.kind } end)
  pcall(failing.await, failing)
  equal(told[3], { false, "Conflict" })
  fails("Invalid", "function expected", future.on_done, future, 5)
end

tests["poll dispatches what is done and says whether there is more"] = function()
  local state = support.state()
  local told = 0
  for n = 1, 10 do state:set_async("k" .. n, n):on_done(function() told = told + 1 end) end
  while State.poll(1) do assert(told < 10) end
  equal(told, 10)
  equal(State.poll(), false)
  fails("Invalid", "#1 to 'poll'", State.poll, -1)
end

tests["an error of a callback comes out of poll, and the others are called"] = function()
  local state = support.state()
  local told = 0
  state:set_async("a", 1):on_done(function() error("of the callback") end)
  state:set_async("b", 1):on_done(function() told = told + 1 end)
  local raised
  repeat
    local ok, more = pcall(State.poll, 1)
    if not ok then raised, more = more, true end
  until not more
  assert(raised:find("of the callback", 1, true), raised)
  equal(told, 1)
end

tests["a future that the program finishes itself"] = function()
  local future = State.future()
  equal(future:done(), false)
  equal(future:resolve(1, nil, 3), true)
  equal(future:resolve(2), false)
  equal({ future:await() }, { 1, nil, 3 })
  local failing = State.future()
  failing:fail("no answer")
  equal({ pcall(failing.await, failing) }, { false, "no answer" })
  fails("Cancelled", "nothing is left", (State.future()).await, State.future())
end

tests["fd is readable while something is to be dispatched"] = function()
  local fd = State.fd()
  equal(State.fd(), fd)
  assert(fd > 2)
end

tests["futures that nobody keeps do their work"] = function()
  local state = support.state()
  for n = 1, 500 do state:set_async("k" .. n, n) end
  collectgarbage()
  collectgarbage()
  while State.poll(1) do collectgarbage("step") end
  equal(state:count(), 500)
end

tests["the state may be closed, or collected, with calls in flight"] = function()
  local state = State.open()
  local futures = {}
  for n = 1, 50 do futures[n] = state:set_async("k" .. n, n) end
  state:close()
  for _, future in ipairs(futures) do future:await() end
  fails("Closed", {}, state.set_async, state, "k", 1)
  futures = {}
  do
    local other = State.open()
    for n = 1, 50 do futures[n] = other:set_async("k" .. n, n) end
  end
  collectgarbage()
  collectgarbage()
  State.gather(futures)
end

tests["a watch has futures, too"] = function()
  local state = support.state()
  local watch = state:watch_async("a*"):await()
  local future = watch:next_async()
  equal(future:done(), false)
  state:set("a", 1)
  equal(future:await().key, "a")
  equal(watch:next_async(0.01):await(), nil)
  watch:save_async():await()
  watch:close_async():await()
  equal(watch:next(), nil)
end

for _, ending in ipairs { "os.exit(3)", "os.exit(3, true)", "error('the end')", "" } do
  tests["a process that ends with work in flight ends: " .. (ending == "" and "at its end" or ending)] = function()
    local status, said = support.child(([[
      local State = require "llmspell_state"
      local state = State.open(arg[0] .. ".db")
      for n = 1, 300 do state:set_async("k" .. n, n):on_done(print) end
      State.spawn(function() state:set("t", 1) State.sleep(60) end)
      State.poll(0)
      local watch = state:watch()
      watch:next_async()
      %s
    ]]):format(ending))
    local expected = ending:find("exit", 1, true) and 3 or ending == "" and 0 or 1
    assert(status == expected, tostring(status) .. ": " .. said:sub(1, 400))
  end
end

return tests

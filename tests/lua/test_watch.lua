local State = require "llmspell_state"
local support = require "support"
local equal, fails = support.equal, support.fails

local tests = {}

tests["a for loop gets every change and ends when the watch is closed"] = function()
  local state = support.state()
  local watch = state:watch("user:*")
  state:set("user:1", { name = "Alice" })
  state:set("other", 1)
  state:delete("user:1")
  local told = {}
  for change in watch do
    told[#told + 1] = change.operation .. " " .. change.key
    if change.operation == "delete" then watch:close() end
  end
  equal(told, { "set user:1", "delete user:1" })
  equal(watch:next(), nil)
end

tests["a change says what, when and who"] = function()
  support.with_folder(function(folder)
    local state = State.open(folder .. "/a.db", { actor = "planner" })
    local watch = state:watch()
    local before = os.time()
    local version = state:set("k", State.null)
    state:set("k", { 1, 2 })
    local first, second = watch:next(5), watch:next(5)
    assert(first.time >= before and first.time <= os.time() + 1, "time is seconds, as os.time counts")
    first.time, second.time = nil, nil
    equal(first, { key = "k", operation = "set", value = State.null, version = version, actor = "planner", ends_commit = true })
    equal(second, { key = "k", operation = "set", value = State.array { 1, 2 }, old = State.null, version = version + 1,
      actor = "planner", ends_commit = true })
    state:close()
  end)
end

tests["a watch takes a pattern or a table of options, like keys and items"] = function()
  local state = support.state { a = 1 }
  local version = state:version()
  state:set("a", 2)
  state:set("b", 3)
  equal(state:watch({ pattern = "b", since = version }):next(5).value, 3)
  equal(state:watch({ since = 0 }):next(5).value, 1)
  for _, wrong in ipairs {
    { 5, "string or table expected, got number" }, { { after = "a" }, "it takes pattern, since, name" },
    { { since = -1 }, "'since'" }, { { since = "1" }, "'since'" }, { { name = 5 }, "'name'" }, { { pattern = true }, "'pattern'" },
  } do
    fails("Invalid", wrong[2], state.watch, state, wrong[1])
  end
  equal(state:transaction().watch, nil)
end

tests["next waits for seconds, also parts of one, and takes nothing else"] = function()
  local watch = State.open():watch()
  equal(watch:next(0), nil)
  equal(watch:next(0.01), nil)
  for _, wrong in ipairs { -1, 0 / 0, "1", {} } do fails("Invalid", "#1 to 'next'", watch.next, watch, wrong) end
end

tests["a named watch goes on where it was and can be forgotten"] = function()
  local state = support.state()
  local watch = state:watch { name = "indexer" }
  equal(watch:name(), "indexer")
  equal(state:watch():name(), nil)
  local version = state:set("a", 1)
  equal(state:named_watches(), { indexer = 0 })
  watch:next(5)
  watch:save()
  equal(watch:version(), version)
  equal(state:named_watches(), { indexer = version })
  equal(state:forget_watch("indexer"), true)
  equal(state:forget_watch("indexer"), false)
  equal(next(state:named_watches()), nil)
  fails("Invalid", "string expected", state.forget_watch, state)
end

tests["tostring says what it is"] = function()
  local state = support.state { a = 1 }
  local watch = state:watch()
  equal(tostring(watch), "Watch (at version 1)")
  watch:close()
  watch:close()
  equal(tostring(watch), "Watch (at version 1, closed)")
  equal(tostring(state:watch { name = "n" }), "Watch (n, at version 1)")
end

tests["a watch keeps working when nobody else has the state, and ends with it"] = function()
  local watch = support.state({ a = 1 }):watch { since = 0 }
  collectgarbage()
  collectgarbage()
  equal(watch:next(5).key, "a")
  local state = State.open()
  watch = state:watch()
  state:close()
  fails("Closed", {}, watch.next, watch, 0)
end

tests["a watch that was collected, or something else, is an error"] = function()
  local state = support.state()
  local watch = state:watch()
  local class = debug.getmetatable(watch)
  fails("Invalid", "bad self (Watch expected", watch.next, state)
  class.__gc(watch)
  for _, verb in ipairs { "next", "save", "close", "version", "name" } do fails("Invalid", "bad self", watch[verb], watch) end
  fails("Invalid", "bad self", watch)
  class.__gc(watch)
end

tests["watches that nobody keeps are collected"] = function()
  local state = support.state()
  for n = 1, 2000 do
    local watch = state:watch()
    if n % 100 == 0 then watch:next(0) end
  end
  collectgarbage()
  state:set("k", 1)
  equal(state:get("k"), 1)
end

tests["<close> ends a watch"] = function()
  if _VERSION ~= "Lua 5.4" then return end
  local kept = assert(load([[
    local state = ...
    local watch <close> = state:watch()
    return { watch }
  ]]))(support.state())
  equal(kept[1]:next(), nil)
end

tests["Ctrl-C ends a process that waits for a change, and at once"] = function()
  for _, wait in ipairs { "watch:next()", "coroutine.wrap(function() watch:next() end)()", "for _ in watch do end" } do
    local status, said = support.child(([[
      local State = require "llmspell_state"
      local watch = State.open():watch()
      os.execute("(sleep 0.3; kill -INT $PPID) &")
      %s
      print("went on")
    ]]):format(wait))
    equal(status, 1)
    assert(said:find("interrupted", 1, true) and not said:find("went on", 1, true), wait .. ": " .. said)
  end
end

return tests

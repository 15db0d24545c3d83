-- Errors of every kind in every callback, yields where they are not allowed, hooks that raise, and calls of the store from
-- inside its own callbacks. An error passes through unchanged, what it interrupted left nothing, and the store goes on.
local State = require "llmspell_state"
local kit = require "lua_host_kit"

local ERRORS, HOOKED, DEPTH = 150, 100, 5000

--- Something that raises, or yields where that is not allowed.
local function thrown(random)
  return random.one {
    function() error("plain text", 0) end,
    function() error({ code = 5 }, 0) end,
    function() error(nil) end,
    function() error(false) end,
    function() error(io.stdout) end,
    function() error(State.null) end,
    function() error(setmetatable({}, { __tostring = function() error("no text") end }), 0) end,
    function() error(setmetatable({ kind = "Conflict" }, { __index = error, __eq = error, __tostring = error }), 0) end,
    function() local _ = nil + 1 end,
    function() return ("x"):rep(-1):bad() end,
    function() coroutine.yield(1) end,
    function() coroutine.wrap(function() error({ "in a coroutine" }) end)() end,
    function()
      -- Lua takes its time to fill a stack.
      local function deeper(n) return n > 0 and 1 + deeper(n - 1) or error("deep enough", 0) end
      deeper(random.chance(8) and math.huge or 100)
    end,
    function() State.open("/nowhere/at/all") end,
    function() State.open():get(5) end,
    function() collectgarbage() error(coroutine.create(print)) end,
    function()
      local tx = State.open():transaction()
      tx:rollback()
      tx:set("k", 1)
    end,
    function() assert(false, debug.traceback("a trace")) end,
    function() xpcall(error, function() error("in a handler") end) error("after a handler", 0) end,
  }
end

--- Calls that run `f` in a callback of the store; none of them may leave anything when `f` raises.
local function callbacks(scope)
  return {
    function(f) scope:modify("never", f) end,
    function(f) scope:modify("never", f, { "a default" }) end,
    function(f) scope:transact(function(tx) tx:set("never", 1) f() end) end,
    function(f) scope:transaction(function(tx) tx:modify("never", f) end) end,
    function(f)
      scope:transact(function(tx)
        tx:set("never", 1)
        for _ in tx:keys() do f() end
      end)
    end,
    function(f)
      scope:modify("never", function()
        scope:transact(function(tx) tx:scope("inner"):modify("never", f) end)
      end)
    end,
    function(f)
      scope:transact(function(tx)
        tx:set("never", 1)
        local run = coroutine.wrap(function() tx:modify("never", f) end)
        run()
        error("yielded", 0)
      end)
    end,
    function(f) scope:transact(function(tx) tx:set_many { never = 1, never2 = 2 } f() end, { attempts = 2 }) end,
    function(f)
      local fork, origin = kit.apart(State.open())
      fork:set("never", 1)
      local ok, e = pcall(origin.merge_from, origin, fork, f)
      assert(ok or not origin:exists("never"), "a merge whose function raised has merged")
      if not ok then error(e, 0) end
    end,
  }
end

--- Ways to catch: the error that came out, or nothing.
local CATCHES = {
  function(call, f) return pcall(call, f) end,
  function(call, f) return xpcall(function() call(f) end, function(e) return e end) end,
  function(call, f)
    local ok, e
    xpcall(function() call(f) end, function(raised)
      debug.traceback("in a handler")
      ok, e = false, raised
    end)
    return ok, e
  end,
  function(call, f) return coroutine.resume(coroutine.create(call), f) end,
}

local function raise_everywhere(ledger, random, count)
  for n = 1, ERRORS do
    local call, raise, catch = random.one(callbacks(ledger.scope)), thrown(random), random.one(CATCHES)
    local raised, again
    local ok, e = catch(call, function()
      if random.chance(2) then kit.collect(random) end
      local _
      _, raised = pcall(raise)
      if random.chance(2) then return raise() end
      again = true
      error(raised, 0)
    end)
    if ok then error("an error in a callback did not come out", 0) end
    kit.not_ours(e)
    -- Where a coroutine ends in between, Lua may add the place to text.
    if again and not rawequal(e, raised) and type(raised) ~= "string" then
      error(("a %s was raised, a %s came out: %s"):format(type(raised), type(e), tostring(e)), 0)
    end
    if ledger.scope:exists("never") or ledger.scope:exists("never2") then error("an error left what it interrupted", 0) end
    ledger:set("k" .. random.below(30), "after error " .. n)
    count("errors in callbacks")
  end
end

--- Hooks that raise, collect and call the store, at calls, returns, lines and instructions.
local function hook_everywhere(ledger, random, count)
  if kit.is_jit then rawget(_G, "jit").off() end
  local scope, fired, quiet = ledger.scope, 0, { [debug.sethook] = true, [pcall] = true, [error] = true }
  for n = 1, HOOKED do
    local key, text, patience = "hooked" .. random.below(10), "text " .. n, random.below(30)
    local armed = false
    ledger:attempted(key, text)
    local function hook()
      local info = debug.getinfo(2, "f")
      if not armed or info and quiet[info.func] then return end
      patience = patience - 1
      if patience % 7 == 3 then kit.collect(random) end
      if patience % 11 == 5 then scope:get(key) end
      if patience <= 0 then
        armed, fired = false, fired + 1
        error("hook", 0)
      end
    end
    local mask, step = random.one { "c", "r", "l", "crl", "" }, random.below(8)
    local ok, e = pcall(function()
      debug.sethook(hook, mask, mask == "" and step or 0)
      armed = true
      local way = random.below(4)
      if way == 1 then
        scope:set(key, text)
      elseif way == 2 then
        scope:modify(key, function() return text end)
      elseif way == 3 then
        scope:transact(function(tx) tx:set(key, text) end)
      else
        for _ in scope:items() do local _ = 1 end
        scope:set_many { [key] = text }
      end
      armed = false
    end)
    debug.sethook()
    if ok then ledger:acknowledged(key, text) else kit.not_ours(e) end
  end
  if kit.is_jit then rawget(_G, "jit").on() end
  if fired == 0 then error("no hook fired", 0) end
  count("calls ended by hooks", fired)
end

--- Calls of the store, of other stores and of the end of the store from inside its own callbacks.
local function reenter(ledger, random, count)
  local scope = ledger.scope
  local n = 0
  local function text() n = n + 1 return "inner " .. n end

  -- An inner write under the key of the outer modify: the outer one runs again and has the last word.
  local calls, first, last = 0, text(), text()
  ledger:attempted("own", first)
  scope:modify("own", function()
    calls = calls + 1
    if calls == 1 then scope:set("own", first) end
    return last
  end)
  ledger:acknowledged("own", last)
  if calls ~= 2 then error("modify ran " .. calls .. " times over an inner write", 0) end

  -- Nested transactions are transactions of their own: the inner commits, the outer meets a conflict and runs again.
  calls = 0
  local outer, inner = text(), text()
  ledger:attempted("inner", inner)
  ledger:attempted("outer", outer)
  scope:transact(function(tx)
    calls = calls + 1
    local _ = tx:get("inner")
    tx:set("outer", outer)
    if calls == 1 then scope:transact(function(other) other:set("inner", inner) end) end
  end)
  ledger:acknowledged("inner", inner)
  ledger:acknowledged("outer", outer)
  if calls ~= 2 then error("transact ran " .. calls .. " times over an inner commit", 0) end

  -- The transaction is ended inside its own function.
  for _, way in ipairs { "commit", "rollback", "__gc" } do
    local ok, e = pcall(scope.transact, scope, function(tx)
      local key, value = "ended by " .. way, text()
      tx:set(key, value)
      if way == "__gc" then
        debug.getmetatable(tx).__gc(tx)
        ledger:attempted(key, value)
      else
        if way == "commit" then ledger:attempted(key, value) end
        tx[way](tx)
        if way == "commit" then ledger:acknowledged(key, value) end
      end
    end)
    if not ok then kit.not_ours(e) end
  end

  -- The store is closed inside: the call fails with Closed, and nothing of it is written.
  for _, call in ipairs(callbacks(scope)) do
    local ok, e = pcall(call, function()
      ledger.state:close()
      if random.chance(2) then collectgarbage() end
      return "closed meanwhile"
    end)
    if not ok and kit.kind(e) ~= "Closed" and kit.kind(e) ~= "Invalid" and e ~= "yielded" then
      error("closed inside: " .. tostring(e), 0)
    end
    ledger:check("closed inside its own callback")
    for index, other in ipairs(callbacks(ledger.scope)) do
      local fine = pcall(other, function() error("still works", 0) end)
      if fine then error("callback " .. index .. " swallowed an error", 0) end
    end
    count("closings inside callbacks")
    scope = ledger.scope
  end
end

--- A coroutine that is left in the middle of a listing and of a transaction, closed where Lua can, or forgotten.
local function abandon(ledger, random, count)
  for n = 1, 40 do
    local scope = ledger.scope
    local run = coroutine.create(function()
      local tx = scope:transaction()
      tx:set("never", n)
      for _ in tx:items() do coroutine.yield() end
      for _ in scope:items() do coroutine.yield() end
    end)
    coroutine.resume(run)
    if coroutine.close and random.chance(2) then coroutine.close(run) end
    kit.collect(random)
    count("abandoned coroutines")
  end
  collectgarbage()
end

--- Stack overflow by nesting callbacks, by plain recursion in one, and by a value that is nested too deep.
local function overflow(ledger, count)
  local scope = ledger.scope
  local function deeper() return scope:modify("never", deeper) end
  local ok, e = pcall(deeper)
  if ok then error("endless nesting came back", 0) end
  kit.not_ours(e)
  local function transactions() return scope:transact(transactions) end
  ok, e = pcall(transactions)
  if ok then error("endless nesting came back", 0) end
  kit.not_ours(e)
  local function plain(n)
    if n == 0 then return scope:set("never", 1) end
    return (plain(n - 1))
  end
  ok, e = pcall(scope.modify, scope, "never", function()
    local function endless() return 1 + endless() end
    return endless()
  end)
  if ok then error("endless recursion came back", 0) end
  kit.not_ours(e)
  -- Deep in the script's own stack the store still works.
  if not pcall(plain, DEPTH) then error("no call of the store deep in the script's stack", 0) end
  scope:delete("never")
  count("stack overflows", 3)
end

return function(folder, random, count)
  local ledger = kit.ledger(folder .. "/store.db", { sync_mode = "NORMAL" })
  for n = 1, 30 do ledger:set("k" .. n, "at first") end
  raise_everywhere(ledger, random, count)
  ledger:check("after errors")
  hook_everywhere(ledger, random, count)
  ledger:check("after hooks")
  reenter(ledger, random, count)
  abandon(ledger, random, count)
  overflow(ledger, count)
  ledger:check("after calls from inside callbacks")
  ledger:close()
end

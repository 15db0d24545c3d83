-- Tasks and futures amid garbage collection: cancelled at any point, overdue, forgotten, failing, blocking where they must not
-- yield; calls in flight while their store is closed. What was acknowledged is there, and no descriptor is left behind.
local State = require "llmspell_state"
local kit = require "lua_host_kit"

local WRITERS, ROUNDS = 30, 12

--- A task's own keys: written one after the other, so the ledger knows what may be there.
local function writer(ledger, random, name, count)
  return function()
    for n = 1, 4 + random.below(6) do
      local text = ("%s wrote %d"):format(name, n)
      ledger:attempted(name, text)
      local way = random.below(6)
      if way == 1 then
        ledger.scope:transact(function(tx)
          tx:get(name)
          if random.chance(2) then State.sleep(0) end
          kit.collect(random)
          tx:set(name, text)
        end)
      elseif way == 2 then
        ledger.scope:modify(name, function()
          if random.chance(2) then State.sleep(0) end
          return text
        end)
      elseif way == 3 then
        ledger.scope:set_async(name, text):await()
      elseif way == 4 then
        -- A place where nothing may yield.
        table.sort({ 2, 1 }, function(a, b)
          ledger.scope:set(name, text)
          return a < b
        end)
      elseif way == 5 then
        assert(pcall(ledger.scope.set, ledger.scope, name, text))
      else
        ledger.scope:set(name, text)
      end
      ledger:acknowledged(name, text)
      count("writes by tasks")
      if random.chance(4) then kit.collect(random) end
    end
  end
end

local function is_cancelled(e)
  return kit.kind(e) == "Cancelled" or type(e) == "string"
end

--- Writers among which some are cancelled, overdue or fail.
local function churn(ledger, random, count, round)
  State.run(function()
    local writers = {}
    for n = 1, WRITERS do
      local work = writer(ledger, random, ("w%d.%d"):format(round, n), count)
      local way = random.below(4)
      if way == 1 then
        writers[n] = State.spawn(State.timeout, 0.0005 * random.below(20), work)
      elseif way == 2 then
        writers[n] = State.spawn(function()
          work()
          error("of a task", 0)
        end)
      else
        writers[n] = State.spawn(work)
      end
      writers[n]:on_done(function(ok, e)
        if not ok then
          kit.not_ours(e)
          if not is_cancelled(e) then error(e, 0) end
        end
        if random.chance(3) then kit.collect(random) end
      end)
    end
    for _ = 1, WRITERS / 3 do
      State.sleep(0.0002 * random.below(5))
      if random.one(writers):cancel() then count("cancelled tasks") end
    end
    -- Forgotten: a watch that waits, futures, listings and differences in the middle.
    State.spawn(function() ledger.scope:watch("w*"):next(0.002) end)
    ledger.scope:watch():next_async(0.001)
    for _ = 1, 10 do ledger.scope:get_async("w1.1") end
    ledger.scope:history_async("w1.1")
    State.spawn(function()
      local differences = ledger.scope:diff(ledger.state:version() - 20)
      for _ = 1, random.below(5) do differences() end
    end)
    State.spawn(function()
      for _ in ledger.scope:items() do
        if random.chance(5) then break end
      end
    end)
  end)
end

--- Calls in flight while everything that they belong to goes away.
local function abandon(random, count)
  local state = State.open()
  local futures = {}
  for n = 1, 20 do futures[n] = state:set_async("k" .. n, n) end
  local scope = state:scope_async("a")
  if random.chance(2) then state:close() end
  -- Nobody has it any more from here on.
  collectgarbage()
  collectgarbage()
  for _, future in ipairs(futures) do
    local ok, e = pcall(future.await, future)
    if not ok then kit.not_ours(e) end
  end
  pcall(scope.await, scope)
  count("stores that went away with calls in flight")
end

local function descriptors()
  local pipe = io.popen("ls /proc/$PPID/fd 2>/dev/null | wc -l")
  local number = tonumber(pipe:read("*a"))
  pipe:close()
  return number
end

return function(folder, random, count)
  local ledger = kit.ledger(folder .. "/store.db", { sync_mode = "NORMAL" })
  abandon(random, count)
  local before = descriptors()
  for round = 1, ROUNDS do
    churn(ledger, random, count, round)
    abandon(random, count)
    if round % 4 == 0 then ledger:check("after tasks") end
  end
  collectgarbage()
  collectgarbage()
  if descriptors() > before + 10 then error(("descriptors: %d before, %d after"):format(before, descriptors()), 0) end
  ledger:close()
end

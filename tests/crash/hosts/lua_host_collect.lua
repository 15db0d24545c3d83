-- Garbage collection in every callback, handles that are dropped and collected in the middle of their own calls, and
-- finalizers that use the store while the collector runs.
local State = require "llmspell_state"
local kit = require "lua_host_kit"

local OPERATIONS = 300

--- A value whose tables have metatables that must never be asked, and that collect when they are.
local function trapped(random, text)
  local asked = 0
  local function trap()
    asked = asked + 1
    kit.collect(random)
    return "a trap"
  end
  local traps = {
    __index = trap, __newindex = trap, __len = trap, __pairs = trap, __ipairs = trap, __call = trap, __tostring = trap,
    __concat = trap, __eq = trap, __gc = function() kit.collect(random) end,
  }
  local value = setmetatable({ text = text, list = setmetatable({ 1, text, { text } }, traps) }, traps)
  return value, function() return asked end
end

local function must_be(value, text, where)
  if type(value) ~= "table" or value.text ~= text or value.list[2] ~= text or value.list[3][1] ~= text then
    error(where .. ": not the value that was written", 0)
  end
end

--- Handles that nobody keeps, some of them closed or ended.
local function litter(random, state)
  local way = random.below(7)
  if way == 1 then
    state:scope("litter"):scope("deeper")
  elseif way == 2 then
    state:transaction():set("never", 1)
  elseif way == 3 then
    state:items()()
  elseif way == 4 then
    State.open():set("k", 1)
  elseif way == 5 then
    local other = State.open()
    local iterator = other:keys()
    other:close()
    pcall(iterator)
  elseif way == 6 then
    coroutine.wrap(function()
      local tx = state:transaction()
      tx:set("never", 1)
      coroutine.yield(tx:items())
    end)()
  else
    State.binary(("b"):rep(random.below(5000)))
  end
end

return function(folder, random, count)
  local ledger = kit.ledger(folder .. "/store.db", { sync_mode = "NORMAL" })
  local values = ledger.state:scope("values")
  local finalized, finalizers = 0, 0
  local class = debug.getmetatable(ledger.state)

  local function churn()
    litter(random, ledger.state)
    kit.collect(random)
    count("collections in callbacks")
  end

  --- A finalizer that writes, in whatever call of ours the collector happens to run.
  local function lay_finalizer()
    finalizers = finalizers + 1
    local number = finalizers
    local scope, iterator = ledger.scope, values:items()
    kit.on_collection(function()
      iterator()
      local key, text = "finalizer." .. number % 50, "by " .. number
      ledger:attempted(key, text)
      if pcall(scope.set, scope, key, text) then
        ledger:acknowledged(key, text)
        finalized = finalized + 1
      end
    end)
  end

  local operations = {
    function(key, text)
      local asked
      local got = values:modify(key, function(old)
        churn()
        local value
        value, asked = trapped(random, text)
        if type(old) == "table" then rawset(value, "before", old.text) end
        return value
      end)
      must_be(got, text, "modify")
      if asked() > 0 then error("modify ran a metamethod of a value", 0) end
    end,
    function(key, text)
      local result = { values:transact(function(tx)
        churn()
        tx:set(key, (trapped(random, text)))
        churn()
        for _, value in tx:items("k*") do
          churn()
          if value.text == nil then error("an item of a transaction lacks its text", 0) end
          if random.chance(2) then break end
        end
        must_be(tx:get(key), text, "get in a transaction")
        return key, text, nil
      end) }
      if result[1] ~= key or result[2] ~= text then error("transact lost what its function returned", 0) end
    end,
    function(key, text)
      values:set(key, (trapped(random, text)))
      -- The only handle goes away while the listing runs.
      local iterator = (function() return ledger.state:scope("values"):items { pattern = "k*", limit = 30 } end)()
      for name, value in iterator do
        churn()
        if type(name) ~= "string" or type(value) ~= "table" then error("an item is not what it was", 0) end
      end
    end,
    function(key, text)
      values:set_many { [key] = (trapped(random, text)) }
      local keys = {}
      for n = 1, 20 do keys[n] = "k" .. n end
      kit.on_collection(function()
        for n = 1, 20 do keys[n] = nil end
      end)
      for name, value in pairs(values:get_many(keys)) do
        if not name:find("^k%d+$") or type(value.text) ~= "string" then error("get_many gave " .. name, 0) end
      end
    end,
    function(key, text)
      -- The handle in use is finalized by hand inside its own call, and another one takes over.
      local own = ledger.state:scope("values")
      own:modify(key, function()
        class.__gc(own)
        churn()
        return { text = text, list = { 1, text, { text } } }
      end)
      must_be(values:get(key), text, "a handle that was finalized in its call")
      if pcall(own.get, own, key) then error("a finalized handle still works", 0) end
    end,
    function(key, text)
      local object = setmetatable({}, { __tostring = function()
        churn()
        values:set(key, { text = text, list = { 1, text, { text } } })
        return text
      end })
      local ok, e = pcall(values.modify, values, key, function() error(object, 0) end)
      if ok or not rawequal(e, object) or tostring(e) ~= text then error("an error object changed on its way", 0) end
      must_be(values:get(key), text, "set in __tostring")
    end,
  }

  for n = 1, OPERATIONS do
    if random.chance(3) then lay_finalizer() end
    random.one(operations)("k" .. random.below(20), "text " .. n)
    ledger:set("k" .. random.below(40), "ledger " .. n)
    count("operations amid garbage collection")
  end
  collectgarbage("restart")
  collectgarbage()
  collectgarbage()
  if finalized == 0 then error("no finalizer wrote", 0) end
  count("writes by finalizers", finalized)
  if _VERSION == "Lua 5.4" then collectgarbage("incremental") end
  ledger:check("after garbage collection")
  ledger:close()
end

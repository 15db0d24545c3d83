-- A process that writes, says so, and ends in the way that its scene names: `place/means/settings`.
-- It says `try KEY TEXT` before a write and `ack KEY TEXT` after it.
local State = require "llmspell_state"
local kit = require "lua_host_kit"

local SETTINGS = {
  plain = {},
  normal = { sync_mode = "NORMAL" },
  uncached = { cache_size_mb = 0, enable_compression = false },
  exclusive = { exclusive = true },
  journal = { enable_wal = false, exclusive = true },
}

local function say(...)
  io.write(table.concat({ ... }, " "), "\n")
  io.flush()
end

return function(scene, seed, folder)
  local place, means, settings = scene:match("^([^/]+)/([^/]+)/([^/]+)$")
  local random = kit.random(seed)
  local state = State.open(folder .. "/store.db", SETTINGS[settings])
  local scope = state:scope("ledger")
  local written = 0

  -- At the end of Lua, its own collector does not survive being called from a finalizer (5.3 runs for ever).
  local at_end = false

  local function write(handle)
    written = written + 1
    local key, text = ("%s.%d"):format(seed, written), ("text%d"):format(random.below(1000000))
    say("try", key, text)
    local way = at_end and 4 or random.below(4)
    if way == 1 then
      handle:set_many { [key] = text }
    elseif way == 2 then
      handle:modify(key, function()
        kit.collect(random)
        return text
      end)
    elseif way == 3 then
      handle:transact(function(tx)
        kit.collect(random)
        tx:set(key, text)
      end)
    else
      handle:set(key, text)
    end
    say("ack", key, text)
  end

  -- Runs when Lua itself is closed: some before the store is let go, some after it.
  local function write_at_end()
    at_end = true
    pcall(write, scope)
  end
  local early = kit.on_collection(write_at_end)
  local open = state:transaction()
  open:scope("ledger"):set("never", "from a transaction that nobody ended")
  local late = kit.on_collection(write_at_end)
  for _ = 1, random.below(4) do write(scope) end
  local iterator = scope:items()
  iterator()

  local ends = {
    exit = function() os.exit(tonumber(seed) % 100) end,
    exit_closing = function() os.exit(tonumber(seed) % 100, true) end,
    raise = function() error("the end of " .. place) end,
    raise_nil = function() error(nil) end,
    raise_table = function() error { "the end" } end,
    raise_ours = function() scope:get(5) end,
    raise_untold = function()
      error(setmetatable({}, { __tostring = function() error("no text") end }))
    end,
    kill = function()
      os.execute("kill -9 $PPID")
      while true do write(scope) end
    end,
    storm = function()
      while true do write(scope) end
    end,
    starve = function()
      local kept, block = {}, ("x"):rep(1000)
      local ok = pcall(function()
        while true do
          kept[#kept + 1] = block:rep(100 + #kept)
          if #kept % 10 == 0 then write(scope) end
        end
      end)
      kept = nil
      collectgarbage()
      if not ok then write(scope) end
    end,
    pass = function() end,
  }

  local function act()
    write(scope)
    kit.collect(random)
    return ends[means]()
  end

  -- A callback that comes back must not leave what the parent knows nothing of.
  local function give_up() error("the callback came back", 0) end

  local places = {
    main = act,
    coroutine = function() coroutine.wrap(act)() end,
    modify = function()
      scope:modify("never", function()
        act()
        give_up()
      end)
    end,
    transact = function()
      scope:transact(function(tx)
        tx:set("never", "in a transaction")
        act()
        give_up()
      end)
    end,
    nested = function()
      state:transaction(function(tx)
        tx:scope("ledger"):set("never", "in nested callbacks")
        scope:modify("never", function()
          coroutine.wrap(function()
            local inner = scope:keys()
            inner()
            act()
            give_up()
          end)()
        end)
      end)
    end,
    iterate = function()
      local inner = state:scope("ledger"):items()
      state = nil
      inner()
      act()
      inner()
    end,
    explicit = function()
      local tx = scope:transaction()
      for n = 1, 50 do tx:set("never" .. n, n) end
      local inner = tx:items()
      inner()
      act()
    end,
    finalizer = function()
      kit.on_collection(act)
      collectgarbage("restart")
      collectgarbage()
      collectgarbage()
    end,
    metamethod = function()
      local object = setmetatable({}, { __index = function() return act() end })
      scope:modify("never", function()
        local _ = object.anything
        give_up()
      end)
    end,
    handler = function() xpcall(scope.get, act, scope, 5) end,
    hook = function()
      if kit.is_jit then rawget(_G, "jit").off() end
      debug.sethook(function()
        debug.sethook()
        act()
      end, "", 1)
      for _ = 1, 100 do scope:count() end
    end,
    sort = function()
      table.sort({ 3, 2, 1 }, function(a, b)
        act()
        return a < b
      end)
    end,
    tasks = function()
      State.run(function()
        for _ = 1, 5 do
          State.spawn(function()
            for _ = 1, 5 do write(scope) end
            State.sleep(0.001)
          end)
        end
        local sleeper = State.spawn(State.sleep, 60)
        State.spawn(function() scope:watch():next(0.01) end)
        State.sleep(0.001)
        kit.collect(random)
        act()
        sleeper:cancel()
      end)
    end,
    futures = function()
      for n = 1, 50 do
        written = written + 1
        local key, text = ("%s.%d"):format(seed, written), ("text%d"):format(n)
        say("try", key, text)
        scope:set_async(key, text):on_done(function(ok) if ok then say("ack", key, text) end end)
      end
      if random.chance(2) then State.poll() end
      act()
    end,
    closing = function()
      local run = assert(load([[
        local State, act = ...
        local other <close> = State.open()
        local last <close> = setmetatable({}, { __close = act })
        return other:set("k", 1)
      ]]))
      run(State, act)
    end,
  }
  -- Compiled code looks at no signal, and LuaJIT runs for ever when it finds no memory in it.
  if kit.is_jit and (means == "storm" or means == "starve") then rawget(_G, "jit").off() end
  places[place]()
  return early, open, late, iterator
end

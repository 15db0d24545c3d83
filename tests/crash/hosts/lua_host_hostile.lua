-- Scripts that mean harm: every function of the library on everything with anything, with the debug library at hand. A Lua error
-- is fine; an end of the process, a hang, an error that says the library is wrong, or a lost value is not.
local State = require "llmspell_state"
local native = require "llmspell_state.native"
local kit = require "lua_host_kit"

local CALLS, TAMPERINGS, LEVELS = 800, 50, 1000000

local function cycle()
  local value = { 1, {} }
  value[2][1] = value
  return value
end

local function nested(levels)
  local value = {}
  for _ = 1, levels do value = { value } end
  return value
end

--- Arguments that a call may get.
local function arguments(random, state)
  local closed, finished = State.open(), state:transaction()
  closed:close()
  finished:rollback()
  local big, many = ("big"):rep(100000), {}
  for n = 1, 300 do many["many" .. n] = n end
  local list = {
    true, false, 0, 1, -1, 1.5, 0 / 0, 1 / 0, -1 / 0, -0.0, 2 ^ 31, 2 ^ 53, -2 ^ 53, 2 ^ 63, -2 ^ 63, 1e308, 5e-324,
    "", "a", "b", "c", "k1", "*", "?", "[", "[!", "[a-", "\\", ("*"):rep(200), ("[a-z]*"):rep(50), "a\0b", "\0", "\255\254",
    "__proto", "\240\159\152\128", ("k"):rep(1024), ("k"):rep(1025), ("k"):rep(2000), big, "nan", "1e5",
    {}, { 1, 2, 3 }, { nil, 2 }, { a = 1 }, { 1, a = 2 }, { [1.5] = 1 }, { [true] = 1 }, { [-1] = 1 }, { [2 ^ 53] = 1 },
    { [0] = 1 }, many, { "a", "b", "missing" }, { "a", 5 }, { a = State.null, b = { State.null } }, { a = tostring },
    { ["\255"] = 1 }, { ["a\0b"] = "\0" }, cycle(), nested(127), nested(128), nested(200),
    { pattern = "*" }, { limit = -1 }, { limit = 0 }, { limit = 2 ^ 40 }, { limit = 1.5 }, { reverse = 1 }, { pattern = {} },
    { after = "a", reverse = true, limit = 2 }, { if_version = 0 }, { if_version = -1 }, { if_version = 1e300 }, { if_version = 5 },
    { attempts = 0 }, { attempts = 1 }, { attempts = 2 ^ 40 }, { kind = "Conflict" },
    { version = 0 }, { version = 2 ^ 40 }, { time = 0 }, { time = 1e300 }, { time = 0 / 0 }, { version = 1, time = 1 },
    { run = "r" }, { actor = "a", run = "r", reason = "" }, { run = "r", since = 1 },
    { ttl = 60 }, { ttl = 5e-324 }, { ttl = 1 / 0, if_version = 0 }, { ttl = "1" }, { max_versions = 1, max_age = State.null },
    { max_versions = 2 ^ 63 }, { max_bytes = 0, trim_watched = true }, { cleanup_interval = 0 / 0 },
    setmetatable({}, { __index = error, __len = error, __pairs = error }),
    tostring, error, next, pcall, coroutine.yield, collectgarbage, string.rep,
    function(...) return ... end, function() return { 1, { 2 } } end, function(value) return value end,
    function(tx) return tx and tx.set and tx:set("k1", 1) end, function() return state:set("k1", 2) end,
    function() return nested(500) end, function() error({}) end, function() state:close() return 1 end,
    function()
      kit.collect(random)
      return "x"
    end,
    function() return state:set("k1", 3), State.spawn(state.set, state, "k1", 4) end, State.future(), state:watch(), native.retry(),
    function() State.sleep(0) error("in a task") end, State.spawn(pcall), state:set_async("k1", 5), 99999999,
    coroutine.create(function() end), io.stdout, State.null, State.binary("b"), State.binary(""), State.array(),
    State.array { 1, State.null }, state, state:scope("a"), state:transaction(), state:keys(), state:items(), closed, finished,
    state:at(0), state:diff(0), state:as_run { run = "r" }, State.ours, State.theirs, State.deleted, kit.apart(state),
    State.open, debug.getmetatable(state), setmetatable({}, debug.getmetatable(state)), _G, package.loaded, debug.getregistry(),
  }
  if newproxy then list[#list + 1] = newproxy(true) end
  if math.mininteger then
    list[#list + 1] = math.mininteger
    list[#list + 1] = math.maxinteger
  end
  return list
end

--- What waits as long as it is told to.
local WAITS = { [State.sleep] = true, [State.poll] = true, [State.timeout] = true, [native.wait] = true }

--- Every function of the library: methods, metamethods, the module's own.
local function functions(state)
  local list = {}
  local function take(from)
    local names = {}
    for name, value in pairs(from) do
      if type(value) == "function" then names[#names + 1] = name end
    end
    table.sort(names)
    for _, name in ipairs(names) do
      if not WAITS[from[name]] then list[#list + 1] = from[name] end
    end
  end
  local binary = State.binary("x")
  local _, iterator = debug.getupvalue(state:keys(), 1)
  local watch = state:watch()
  for _, wait in ipairs { debug.getmetatable(watch).__call, watch.next, watch.next_async } do WAITS[wait] = true end
  for _, object in ipairs {
    state, state:scope("a"), state:transaction(), iterator, binary, watch, state:at(0), state:set_async("k1", 1), State.ours,
  } do
    local class = debug.getmetatable(object)
    take(class)
    if type(class.__index) == "table" then take(class.__index) end
  end
  take(State)
  take(native)
  take(native.later)
  local ok, e = pcall(state.get, state, 5)
  assert(not ok)
  take(debug.getmetatable(e))
  list[#list + 1] = state:items()
  return list
end

--- Any function on anything with anything.
local function call_anything(folder, random, count)
  local state, list, methods, handles
  local function anew()
    pcall(function() state:close() end)
    state = State.open(folder .. "/victim.db", { sync_mode = "NORMAL", busy_timeout_ms = 100 })
    list, methods = arguments(random, state), functions(state)
    handles = { state, state, state:scope("a"), state:transaction(), state:at(0), state:as_run { run = "r" }, kit.merging(state) }
  end
  anew()
  -- Paths of stores are not part of the game: `open` gets no text that would make a file.
  local function safe(f, given)
    if f ~= State.open and f ~= native.open and f ~= native.later.open then return true end
    for n = 1, 4 do
      if type(given[n]) == "string" then return false end
    end
    return true
  end
  for n = 1, CALLS do
    local f, given = random.one(methods), {}
    for place = 1, random.below(5) do
      if not random.chance(6) then given[place] = random.one(list) end
    end
    -- Half of the calls get far enough to see their arguments.
    if random.chance(2) then given[1] = random.one(handles) end
    if safe(f, given) then
      local ok, e = pcall(f, kit.unpack(given, 1, 5))
      if not ok then kit.not_ours(e) end
      -- What they have begun.
      ok, e = pcall(State.poll)
      if not ok then kit.not_ours(e) end
    end
    count("hostile calls")
    if n % 100 == 0 then kit.collect(random) end
    -- What was closed or finalized was so by right.
    if n % 50 == 0 or not pcall(state.count, state) then anew() end
  end
  state:close()
  -- What fails of the last that were begun is told here, not in the next group.
  for _ = 1, 200 do
    local ok, e = pcall(State.poll, 0.001)
    if not ok then kit.not_ours(e) end
    if ok and not e then break end
  end
end

--- The debug library turned on our own objects while they are in use.
local function tamper(folder, random, count)
  for _ = 1, TAMPERINGS do
    local state = State.open(folder .. "/tampered.db", { sync_mode = "NORMAL" })
    local file = io.tmpfile()
    local objects = { state, state:scope("a"), state:transaction(), State.binary("bytes"), file }
    local classes, kept, of_files = {}, {}, debug.getmetatable(file)
    -- Not that of files: Lua's own functions believe a metatable, and crash.
    for index = 1, 4 do classes[index] = debug.getmetatable(objects[index]) end
    local iterator = state:items()
    local ways = {
      function(object) debug.setmetatable(object, random.one(classes)) end,
      function(object) debug.setmetatable(object, nil) end,
      function(object)
        debug.setmetatable(object, { __gc = function(it) kept[#kept + 1] = it end, __index = classes[1].__index })
      end,
      function(object) debug.setmetatable(object, { __index = error, __len = error, __gc = classes[1].__gc }) end,
      function(object)
        -- Lua 5.1 keeps how to close a file in there, and believes it.
        if object ~= file then pcall(debug.setuservalue or debug.setfenv, object, {}) end
      end,
      function(object) pcall(classes[1].__gc, object) pcall(classes[1].__gc, object) end,
      function(object) pcall(classes[1].__close, object) pcall(classes[3].__close, object) end,
      function() debug.setupvalue(iterator, 1, random.one(objects)) end,
      function(object) pcall(string.dump, object.get) pcall(string.dump, iterator) end,
      function()
        for _, name in ipairs { "llmspell_state", "llmspell_state.native" } do package.loaded[name] = nil end
        assert(require("llmspell_state").open():count() == 0)
      end,
      function(object)
        local class = random.one(classes)
        local get = rawget(class, "__index")
        rawset(class, "__index", nil)
        pcall(function() return object.get end)
        rawset(class, "__index", get)
      end,
      function(object) pcall(rawset, object, "get", 1) pcall(rawget, object, 1) pcall(next, object) pcall(rawequal, object, 1) end,
      function(object)
        pcall(classes[1].__index.modify, state, "k", function()
          -- Only our own frame: Lua does not survive this in those of its own functions.
          for level = 1, 4 do
            local info = debug.getinfo(level, "f")
            for slot = 1, info and info.func == classes[1].__index.modify and 4 or 0 do
              debug.setlocal(level, slot, random.one { false, 5, "x", object })
            end
          end
          collectgarbage()
          return 1
        end)
      end,
    }
    for _ = 1, 3 do pcall(random.one(ways), random.one(objects)) end
    for _, object in ipairs(objects) do
      for _, name in ipairs { "get", "set", "count", "keys", "transaction", "commit", "close" } do
        local ok, e = pcall(function() return object[name](object, "k", 1) end)
        if not ok then kit.not_ours(e) end
      end
      pcall(tostring, object)
      pcall(function() return #object end)
    end
    pcall(iterator)
    debug.setmetatable(file, of_files)
    pcall(file.close, file)
    iterator, objects = nil, nil
    kit.collect(random)
    for _, object in ipairs(kept) do pcall(classes[1].__index.get, object, "k") end
    pcall(classes[1].__index.close, state)
    count("tamperings")
  end
end

--- Values of sizes and shapes that nobody means.
local function bloat(scope, count)
  local refused = 0
  local deep = nested(LEVELS)
  for _, value in ipairs { deep, cycle(), { a = { b = deep } }, nested(129) } do
    for _, verb in ipairs { "set", "append", "merge" } do
      local ok, e = pcall(scope[verb], scope, "never", value)
      if ok or kit.kind(e) ~= "Invalid" then error(verb .. " took what it must refuse: " .. tostring(e), 0) end
      refused = refused + 1
    end
  end
  count("monstrous values", refused)
end

--- The values, and the keys of the listing, change while a listing of them runs.
local function shift(scope, random)
  for n = 1, 60 do scope:set("shift" .. n, { n, { "x" } }) end
  local seen = {}
  for key, value in scope:items("shift*") do
    if seen[key] then error("a listing gave a key twice", 0) end
    seen[key] = true
    value[1], value[2], value.more = nil, value, value
    scope:delete("shift" .. random.below(60))
    scope:set("shift" .. random.below(60), { random.below(9), { "x" } })
    if random.chance(10) then scope:clear("shift1*") end
  end
  for _, value in scope:items("shift*") do
    if type(value[1]) ~= "number" or value.more then error("a script changed a stored value by changing its own", 0) end
  end
  scope:clear("shift*")
end

return function(folder, random, count)
  local ledger = kit.ledger(folder .. "/store.db", { sync_mode = "NORMAL" })
  for n = 1, 50 do ledger:set("k" .. n, "before") end
  -- LuaJIT 2.1.0-beta3 crashes in its compiler when userdata changes its metatable, also where no library is loaded.
  if kit.is_jit then rawget(_G, "jit").off() end
  call_anything(folder, random, count)
  ledger:check("after hostile calls")
  tamper(folder, random, count)
  ledger:check("after tampering")
  if kit.is_jit then rawget(_G, "jit").on() end
  bloat(ledger.scope, count)
  shift(ledger.state:scope("shift"), random)
  ledger:check("after monstrous values")
  ledger:close()
end

-- What the groups share: random numbers that are the same in every Lua, garbage collection, child processes, and a ledger of
-- what was acknowledged.
local State = require "llmspell_state"
local native = require "llmspell_state.native"

local kit = {}

kit.interpreter = arg[-1] or "lua"
kit.is_jit = rawget(_G, "jit") ~= nil
kit.unpack = table.unpack or unpack

--- Numbers from 1 to `n` by the method of Park and Miller: exact in a double, so the same in every Lua.
function kit.random(seed)
  local state = 1
  for byte in seed:gmatch(".") do state = (state * 31 + byte:byte()) % 2147483646 + 1 end
  local random = {}
  function random.below(n)
    state = state * 16807 % 2147483647
    return state % n + 1
  end
  function random.one(list) return list[random.below(#list)] end
  function random.chance(n) return random.below(n) == 1 end
  for _ = 1, 8 do random.below(2) end
  return random
end

local function shell(command)
  local ok = os.execute(command)
  assert(ok == true or ok == 0, command)
end

function kit.make_folder(path) shell(("mkdir -p '%s'"):format(path)) end
function kit.remove_folder(path) shell(("rm -rf '%s'"):format(path)) end

function kit.fresh_folder()
  local name = os.tmpname()
  os.remove(name)
  return name
end

--- A fork and what it was forked from, which disagree about a key.
function kit.apart(state)
  local origin = state:scope("origin")
  origin:set("k1", 1)
  local fork = state:fork("origin", "fork" .. state:version())
  fork:set("k1", "theirs")
  origin:set("k1", "ours")
  return fork, origin
end

--- A merge of them that is under way, as the library has it inside.
function kit.merging(state)
  local fork, origin = kit.apart(state)
  local id = native.later.merge_from(origin, fork, print)
  return (require("llmspell_state.futures").of_call(id):await())
end

function kit.read_file(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

--- Calls `f` when the garbage collector finds what this makes, or at the end of the process.
function kit.on_collection(f)
  if newproxy then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = f
    return proxy
  end
  return setmetatable({}, { __gc = f })
end

--- Some work for the garbage collector, in one of the ways that this Lua has.
function kit.collect(random)
  local way = random.below(8)
  if way == 1 and _VERSION == "Lua 5.4" then
    collectgarbage(random.chance(2) and "generational" or "incremental")
  elseif way == 2 then
    collectgarbage("step", random.below(200))
  elseif way == 3 then
    collectgarbage("stop")
    local _ = { { {} }, ("x"):rep(random.below(1000)) }
    collectgarbage("restart")
  elseif way == 4 then
    -- Less than these, and Lua does little else.
    collectgarbage("setpause", 100 + random.below(100))
    collectgarbage("setstepmul", 200 + random.below(300))
  elseif way == 5 then
    for n = 1, 20 do local _ = { n, tostring(n) .. "garbage" } end
  else
    collectgarbage()
  end
end

--- The kind of an error of ours, or nothing.
function kit.kind(e)
  local kind = type(e) == "table" and rawget(e, "kind")
  return type(kind) == "string" and kind or nil
end

--- Fails when an error says that the library itself is wrong.
function kit.not_ours(e)
  local kind = kit.kind(e)
  if kind == "Panic" or kind == "Corrupt" or kind == "DataLoss" or kind == "Io" then error(tostring(e), 2) end
end

-- The ledger.

local Ledger = {}
Ledger.__index = Ledger

--- A store and what it must have. `settings` are those of the store.
function kit.ledger(path, settings)
  local ledger = setmetatable({ path = path, settings = settings or {}, known = {}, unsure = {}, checks = 0 }, Ledger)
  ledger:open()
  return ledger
end

function Ledger:open()
  self.state = State.open(self.path, self.settings)
  self.scope = self.state:scope("ledger")
end

--- Stores text under a key; it counts as acknowledged when the call has returned.
function Ledger:set(key, text, handle)
  self.unsure[key] = self.unsure[key] or {}
  self.unsure[key][text] = true
  local version = (handle or self.scope):set(key, text)
  self:acknowledged(key, text)
  return version
end

function Ledger:attempted(key, text)
  self.unsure[key] = self.unsure[key] or {}
  self.unsure[key][text] = true
end

function Ledger:acknowledged(key, text)
  self.known[key], self.unsure[key] = text, nil
end

local function must_have(scope, known, unsure, where)
  for key, text in pairs(known) do
    local got = scope:get(key)
    if got ~= text and not (unsure[key] and unsure[key][got]) then
      error(("%s: acknowledged %s = %q, found %s"):format(where, key, text, tostring(got)), 0)
    end
  end
  for key, value in scope:items() do
    if value ~= known[key] and not (unsure[key] and unsure[key][value]) then
      error(("%s: nobody wrote %s = %s"):format(where, key, tostring(value)), 0)
    end
  end
end

--- The store says of itself that it is sound.
local function must_be_sound(state, where)
  local found = state:verify()
  if not found.ok then error(where .. ": " .. table.concat(found.problems, "; "), 0) end
end

--- Opens the store again, and compares.
function Ledger:check(where)
  pcall(self.state.close, self.state)
  self.state, self.scope = nil, nil
  collectgarbage()
  collectgarbage()
  self:open()
  must_have(self.scope, self.known, self.unsure, where)
  must_be_sound(self.state, where)
  self.checks = self.checks + 1
end

function Ledger:close()
  self.state:close()
end

-- Child processes.

--- Runs this program again as `child <scene> <seed> <folder>`. The shell says its number, so that it can be killed, and how it
--- ended. `each` is called with every line it prints.
--- Answers its status (as the shell tells it) and what it wrote to stderr.
function kit.child(scene, seed, folder, each, limits)
  local run = ("exec %s %s child %s %s %s 2>%s/stderr"):format(kit.interpreter, arg[0], scene, seed, folder, folder)
  run = (limits or "") .. run
  local pipe = assert(io.popen(("{ timeout 100 sh -c 'echo pid $$; %s'; } 2>/dev/null; echo status $?"):format(run)))
  local status, pid
  for line in pipe:lines() do
    local number = line:match("^pid (%d+)$")
    if number then
      pid = number
    elseif line:match("^status %d+$") then
      status = tonumber(line:match("%d+"))
    else
      each(line, pid)
    end
  end
  pipe:close()
  return status, kit.read_file(folder .. "/stderr")
end

return kit

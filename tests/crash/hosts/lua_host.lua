-- Tries to break the Lua binding, in the interpreter that runs it: garbage collection and errors in every callback, processes
-- that end at the worst moment, hostile scripts. After each group the store is opened again and must have every
-- acknowledged value.
--
--     CRASH_SIZE=small CRASH_SEED=1 CRASH_DIR="$(mktemp -d)" lua5.4 tests/crash/hosts/lua_host.lua [group]...
--
-- The last line is a JSON object of counts. The same seed does the same again, apart from what the clock decides.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local root = here .. "/../../.."
package.path = here .. "/?.lua;" .. root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
package.cpath = root .. "/build/lua/" .. _VERSION:match("%d+%.%d+") .. "/?.so;" .. package.cpath

if arg[1] == "child" then
  return require("lua_host_child")(arg[2], arg[3], arg[4])
end

local kit = require "lua_host_kit"

local GROUPS = { "collect", "raising", "endings", "hostile", "tasks" }
local ROUNDS = { small = 1, middle = 12, long = 12 * 40 }

local size = os.getenv("CRASH_SIZE") or "small"
local seed = os.getenv("CRASH_SEED") or "1"
local dir = os.getenv("CRASH_DIR") or kit.fresh_folder()
local rounds = assert(ROUNDS[size], "CRASH_SIZE is small, middle or long")

local function is_wanted(group)
  if #arg == 0 then return true end
  for _, name in ipairs(arg) do
    if name == group then return true end
  end
  return false
end

local function show(e)
  return type(e) == "string" and debug.traceback(e, 2) or debug.traceback(tostring(e), 2)
end

local counts, order = {}, {}

--- What the groups count with.
local function count(what, by)
  if not counts[what] then
    counts[what] = 0
    order[#order + 1] = what
  end
  counts[what] = counts[what] + (by or 1)
end

for round = 1, rounds do
  for _, group in ipairs(GROUPS) do
    if is_wanted(group) then
      local folder = ("%s/%s-%d"):format(dir, group, round)
      kit.make_folder(folder)
      local random = kit.random(seed .. ":" .. group .. ":" .. round)
      local ok, e = xpcall(function() require("lua_host_" .. group)(folder, random, count) end, show)
      debug.sethook()
      if not ok then
        print(("%s broke in %s, round %d, CRASH_SIZE=%s CRASH_SEED=%s\n%s"):format(kit.interpreter, group, round, size, seed, e))
        os.exit(1)
      end
      kit.remove_folder(folder)
    end
  end
end

local parts = {}
for _, what in ipairs(order) do parts[#parts + 1] = ('"%s": %d'):format(what, counts[what]) end
print("{" .. table.concat(parts, ", ") .. "}")

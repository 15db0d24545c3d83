-- Runs every test of this folder: `lua5.4 tests/lua/run.lua [word]...` runs those whose name has one of the words.
-- The modules are found as `eval "$(make -s env)"` sets it up, or beside this file's project.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local root = here .. "/../.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. here .. "/?.lua;" .. package.path
package.cpath = root .. "/build/lua/" .. _VERSION:match("%d+%.%d+") .. "/?.so;" .. package.cpath

local FILES = {
  "values", "verbs", "listing", "transactions", "errors", "bad_keys", "bad_values", "bad_config", "handles", "hostile",
  "watch", "history", "keeping", "merge", "futures", "coroutines", "waiting", "loops",
}

local function is_wanted(name)
  if #arg == 0 then return true end
  for _, word in ipairs(arg) do
    if name:find(word, 1, true) then return true end
  end
  return false
end

local passed, failed = 0, 0

local function run(name, test)
  if not is_wanted(name) then return end
  local ok, message = xpcall(test, function(e) return debug.traceback(tostring(e), 2) end)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
    print("FAILED " .. name .. "\n" .. message)
  end
end

for _, file in ipairs(FILES) do
  local names, tests = {}, dofile(here .. "/test_" .. file .. ".lua")
  for name in pairs(tests) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do run(file .. ": " .. name, tests[name]) end
end

print(("%s: %d passed, %d failed"):format(_G.jit and jit.version or _VERSION, passed, failed))
os.exit(failed == 0 and passed > 0 and 0 or 1)

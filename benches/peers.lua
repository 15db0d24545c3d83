-- Measures hot reads in Lua: `lua5.4 peers.lua FOLDER ROUNDS SECONDS` prints "size<TAB>contender<TAB>µs" lines, medians.
-- FOLDER has the values as small.json, 1 KB.json, 10 KB.json.
local State = require "llmspell_state"
local cjson = require "cjson"
local has_luasql, luasql = pcall(require, "luasql.sqlite3")

local folder, rounds, seconds = ...
rounds, seconds = tonumber(rounds), tonumber(seconds)

local function read(file)
  local opened = assert(io.open(file, "rb"))
  local text = opened:read("*a")
  opened:close()
  return text
end

local function timed(call, times)
  local start = os.clock()
  for _ = 1, times do call() end
  return os.clock() - start
end

local function fitting(call)
  local times = 1
  local took = timed(call, times)
  while took < seconds / 10 do
    times = times * 4
    took = timed(call, times)
  end
  return math.max(1, math.floor(times * seconds / took))
end

local function median(list)
  table.sort(list)
  local middle = math.floor(#list / 2)
  return #list % 2 == 1 and list[middle + 1] or (list[middle] + list[middle + 1]) / 2
end

local state = State.open(folder .. "/lua.db", { sync_mode = "NORMAL" })
local connection
if has_luasql then
  connection = assert(luasql.sqlite3():connect(folder .. "/luasql.db"))
  assert(connection:execute "PRAGMA journal_mode = WAL")
  assert(connection:execute "CREATE TABLE IF NOT EXISTS kv (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL)")
end

for _, size in ipairs { "small", "1 KB", "10 KB" } do
  local text = read(folder .. "/" .. size .. ".json")
  local key = "user:" .. size
  state:set(key, cjson.decode(text))
  local contenders = {
    { "llmspell_state", function() return state:get(key) end },
    { "cjson.decode alone", function() return cjson.decode(text) end },
  }
  if connection then
    assert(connection:execute(
      ("INSERT OR REPLACE INTO kv VALUES ('%s', '%s')"):format(key, connection:escape(text))))
    local query = ("SELECT value FROM kv WHERE key = '%s'"):format(key)
    contenders[#contenders + 1] = { "lua-sql + lua-cjson", function()
      local cursor = connection:execute(query)
      local value = cjson.decode((cursor:fetch()))
      cursor:close()
      return value
    end }
  end
  for _, contender in ipairs(contenders) do
    contender.times, contender.found = fitting(contender[2]), {}
  end
  for _ = 1, rounds do
    for _, contender in ipairs(contenders) do
      contender.found[#contender.found + 1] = timed(contender[2], contender.times) / contender.times * 1e6
    end
  end
  for _, contender in ipairs(contenders) do
    print(("%s\t%s\t%.4f"):format(size, contender[1], median(contender.found)))
  end
end
state:close()

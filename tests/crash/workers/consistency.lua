-- The Lua worker of the stages that record histories: `luajit consistency.lua STAGE STORE OPTIONS ID SEED CALLS JOURNAL`.
-- It makes the calls of consistency.py, which explains them. LuaJIT, since no other Lua can read the clock of a history.
local State = require "llmspell_state"
local ffi = require "ffi"

ffi.cdef "typedef struct { long seconds, nanoseconds; } moment; int clock_gettime(int clock, moment *now);"
local CLOCK_MONOTONIC = 1

local NAMES = { "r0", "r1", "r2", "r3", "c0", "c1" }
local COUNTERS = 4
local KEYS = { "a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3" }
local SUMS = { "n0", "n1" }
local PATTERNS = { "*", "a*", "b*", "?1", "a1", "n*" }

local stage, path, options, id, seed, calls, journal_path = unpack(arg)
id, calls = tonumber(id), tonumber(calls)
math.randomseed(tonumber(seed) % 2 ^ 31 + id)

local moment = ffi.new("moment")
--- Nanoseconds, less than 2^53 for a hundred days.
local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
  return tonumber(moment.seconds) * 1e9 + tonumber(moment.nanoseconds)
end

local journal = assert(io.open(journal_path, "wb"))

--- JSON of numbers, truths, plain strings and nil.
local function json(value)
  if value == nil then return "null" end
  if type(value) == "number" then return ("%.0f"):format(value) end
  if type(value) == "string" then return '"' .. value .. '"' end
  return tostring(value)
end

local function list(items, show)
  local parts = {}
  for place, item in ipairs(items) do parts[place] = (show or json)(item) end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function pair(item) return ("[%s,%s]"):format(json(item[1]), json(item[2])) end

local function one_of(items) return items[math.random(#items)] end

local written = 0
local function new_value()
  written = written + 1
  return id * 2 ^ 24 + written
end

--- Runs a call that a conflict may refuse: whether it was done, and its result.
local function tried(call)
  local ok, result = pcall(call)
  if not ok and not (type(result) ~= "string" and result.kind == "Conflict") then error(result, 0) end
  return ok, result
end

local state
local known = { 0, 0, 0, 0, 0, 0 }

local function told(start, ended, what) journal:write(('{"span":[%s,%s],"what":%s}\n'):format(json(start), json(ended), what)) end

--- Out of this process before the call is made, so that a kill loses no write.
local function change(what, call)
  local start = now()
  told(start, nil, what)
  journal:flush()
  local answer = call()
  told(start, now(), answer)
  journal:flush()
end

local function found(value, version)
  if value == nil then return "null" end
  return ("[%s,%s]"):format(json(value), json(version))
end

local function read(key)
  local start, name, kind = now(), NAMES[key], math.random(4)
  local what
  if kind == 1 then
    what = ('{"read":[%d,%s]}'):format(key - 1, found(state:get(name)))
  elseif kind == 2 then
    local entry = state:entry(name)
    known[key] = entry and entry.version or 0
    what = ('{"read":[%d,%s]}'):format(key - 1, found(entry and entry.value, entry and entry.version))
  elseif kind == 3 then
    what = ('{"exists":[%d,%s]}'):format(key - 1, json(state:exists(name)))
  else
    local values, parts = state:get_many(NAMES), {}
    for place, known_name in ipairs(NAMES) do parts[place] = ("[%d,%s]"):format(place - 1, found(values[known_name])) end
    what = '{"many":[' .. table.concat(parts, ",") .. "]}"
  end
  told(start, now(), what)
end

local function write(key)
  local name, value, expected, kind = NAMES[key], new_value(), known[key], math.random(3)
  local function wrote(version, expects)
    local form = '{"write":{"key":%d,"value":%s,"version":%s,"expected":%s}}'
    return form:format(key - 1, json(value), json(version), json(expects))
  end
  change(wrote(), function()
    if kind == 1 then return wrote(state:set(name, value)) end
    if kind == 2 then
      state:modify(name, function() return value end)
      return wrote()
    end
    local done, version = tried(function() return state:set(name, value, { if_version = expected }) end)
    return done and wrote(version, expected) or ('{"refused":[%d,%s]}'):format(key - 1, json(expected))
  end)
end

local function delete(key)
  local name, expected = NAMES[key], known[key]
  if key == 1 then
    return change('{"delete":[0,null]}', function() return ('{"delete":[0,%s]}'):format(json(state:delete(name))) end)
  end
  local form = '{"delete_if":[%d,%s,%s]}'
  change(form:format(key - 1, json(expected), "null"), function()
    local ok, there = tried(function() return state:delete(name, { if_version = expected }) end)
    if not ok then return ('{"refused":[%d,%s]}'):format(key - 1, json(expected)) end
    return there and form:format(key - 1, json(expected), "true") or ('{"exists":[%d,false]}'):format(key - 1)
  end)
end

local function single()
  local key = math.random(#NAMES)
  if math.random() < 0.6 then
    read(key)
  elseif key > COUNTERS then
    local form = '{"add":[%d,%s]}'
    change(form:format(key - 1, "null"), function() return form:format(key - 1, json(state:increment(NAMES[key]))) end)
  elseif math.random() < 0.75 then
    write(key)
  else
    delete(key)
  end
end

local function listing_of(scope, pattern, limit, reverse)
  local form = '{"scope":"%s","pattern":"%s","limit":%s,"reverse":%s}'
  return form:format(scope, pattern, json(limit), json(reverse or false))
end

local function look(handle, scope)
  local key, kind = math.random() < 0.2 and one_of(SUMS) or one_of(KEYS), math.random(6)
  if kind == 1 then return ('{"get":[%s,%s]}'):format(json(scope .. key), json(handle:get(key))) end
  if kind == 2 then return ('{"exists":[%s,%s]}'):format(json(scope .. key), json(handle:exists(key))) end
  if kind == 3 then
    local names, pairs_found, values = {}, {}, handle:get_many(KEYS)
    for _, name in ipairs(KEYS) do
      names[#names + 1] = scope .. name
      if values[name] ~= nil then pairs_found[#pairs_found + 1] = { scope .. name, values[name] } end
    end
    return ('{"get_many":[%s,%s]}'):format(list(names), list(pairs_found, pair))
  end
  local pattern = one_of(PATTERNS)
  if kind == 4 then return ('{"count":[%s,%s]}'):format(listing_of(scope, pattern), json(handle:count(pattern))) end
  local limit, reverse = math.random() < 0.3 and math.random(0, 3) or nil, math.random() < 0.3
  local listing, select = listing_of(scope, pattern, limit, reverse), { pattern = pattern, limit = limit, reverse = reverse }
  local rows = {}
  if kind == 5 then
    for name in handle:keys(select) do rows[#rows + 1] = name end
    return ('{"keys":[%s,%s]}'):format(listing, list(rows))
  end
  for name, value in handle:items(select) do rows[#rows + 1] = { name, value } end
  return ('{"items":[%s,%s]}'):format(listing, list(rows, pair))
end

local function act(handle, scope)
  local key, kind = one_of(KEYS), math.random(12)
  if kind <= 6 then
    local value = new_value()
    handle:set(key, value)
    return ('{"set":[%s,%s]}'):format(json(scope .. key), json(value))
  end
  if kind <= 8 then return ('{"delete":[%s,%s]}'):format(json(scope .. key), json(handle:delete(key))) end
  if kind <= 11 then
    local sum, by = one_of(SUMS), math.random(2)
    return ('{"increment":[%s,%s,%s]}'):format(json(scope .. sum), json(by), json(handle:increment(sum, by)))
  end
  local pattern = one_of(PATTERNS)
  return ('{"clear":[%s,%s]}'):format(listing_of(scope, pattern), json(handle:clear(pattern)))
end

local function transaction()
  local start = now()
  local root = state:transaction()
  local begun = now()
  local inner, reads_only, acts = root:scope("in"), math.random() < 0.2, {}
  for place = 1, math.random(5) do
    local inside = math.random() < 0.5
    local handle, scope = inside and inner or root, inside and "in/" or ""
    local reads = reads_only or math.random() < 0.6
    acts[place] = (reads and look or act)(handle, scope)
  end
  local ending = now()
  local function tell(ended, outcome)
    local form = '{"begin":[%s,%s],"acts":[%s],"end":[%s,%s],"outcome":%s}\n'
    journal:write(form:format(json(start), json(begun), table.concat(acts, ","), json(ending), json(ended), outcome))
    journal:flush()
  end
  if math.random() < 0.1 then
    root:rollback()
    return tell(now(), '"failed"')
  end
  tell(nil, '"unknown"')
  local done, version = tried(function() return root:commit() end)
  tell(now(), done and ('{"committed":%s}'):format(json(version)) or '"failed"')
end

-- The whole log is looked at afterwards.
local settings = { retention = { max_versions = State.null, max_age = State.null } }
for name, value in options:gmatch('"([%w_]+)":("?[%w_]+"?)') do
  if value == "true" or value == "false" then
    settings[name] = value == "true"
  else
    settings[name] = tonumber(value) or (value:gsub([["]], ""))
  end
end
state = State.open(path, settings)
for _ = 1, calls do
  if stage == "linear" then single() else transaction() end
end
state:close()
journal:close()

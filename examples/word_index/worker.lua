-- One worker process: `lua5.4 worker.lua STORE FOLDER NAME`. The same steps as in job.py, which explains them.
local State = require "llmspell_state"

local LEASE = 3 -- seconds a worker has for one file
local LONGEST_WORD = 64

local function count_words(text)
  local counts = {}
  for word in text:gmatch("[A-Za-z0-9]+") do
    if #word <= LONGEST_WORD then
      word = word:lower()
      counts[word] = (counts[word] or 0) + 1
    end
  end
  return counts
end

local function read(file)
  local opened = io.open(file, "rb")
  if not opened then return nil end
  local text = opened:read("*a")
  opened:close()
  return text
end

local function shuffle(list)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

local function is_available(claims, path)
  local claim = claims:get(path)
  return claim == nil or claim["until"] < os.time()
end

local function candidates(state)
  local claims, paths = state:scope("claims"), {}
  for _, name in ipairs { "waiting", "claims" } do
    for path in state:scope(name):keys { limit = 100 } do
      if is_available(claims, path) then paths[#paths + 1] = path end
    end
  end
  shuffle(paths)
  return paths
end

-- The file's stamp, State.null for a file that is gone, nil when another worker was first.
local function claim(tx, worker, path)
  local waiting, claims = tx:scope("waiting"), tx:scope("claims")
  if not is_available(claims, path) then return nil end
  local stamp = waiting:get(path)
  if stamp ~= nil then
    waiting:delete(path)
  elseif claims:exists(path) then
    stamp = claims:get(path).stamp
  else
    return nil
  end
  claims:set(path, { worker = worker, ["until"] = os.time() + LEASE, stamp = stamp })
  return stamp
end

local function finish(tx, worker, path, stamp, counts)
  local claims, files, totals, index = tx:scope("claims"), tx:scope("files"), tx:scope("totals"), tx:scope("index")
  if claims:get(path, {}).worker ~= worker then return end
  local before = files:get(path, { counts = {} }).counts
  local function change(word, by)
    if by ~= 0 and totals:increment(word, by) == 0 then totals:delete(word) end
  end
  for word, count in pairs(counts) do
    change(word, count - (before[word] or 0))
    index:set(word .. " " .. path, count)
  end
  for word, count in pairs(before) do
    if not counts[word] then
      change(word, -count)
      index:delete(word .. " " .. path)
    end
  end
  if stamp == State.null then
    files:delete(path)
  else
    files:set(path, { stamp = stamp, worker = worker, counts = counts })
  end
  claims:delete(path)
end

local function work(state, folder, worker)
  local paths = candidates(state)
  while #paths > 0 do
    for _, path in ipairs(paths) do
      local stamp = state:transaction(function(tx) return claim(tx, worker, path) end)
      if stamp ~= nil then
        local text = stamp ~= State.null and read(folder .. "/" .. path) or nil
        if text == nil then stamp = State.null end -- gone since the scan
        local counts = count_words(text or "")
        state:transaction(function(tx) finish(tx, worker, path, stamp, counts) end)
      end
    end
    paths = candidates(state)
  end
end

local store, folder, worker = ...
math.randomseed(os.time() + #worker * 7919 + worker:byte(-1))
local state = State.open(store)
work(state, folder, worker)
state:close()

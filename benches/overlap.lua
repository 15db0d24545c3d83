-- Measures overlapping writes: `lua5.4 overlap.lua FILE FULL|NORMAL ROUNDS` prints "how<TAB>sets per second" lines, medians.
local State = require "llmspell_state"

local MANY = 1000
local path, sync, rounds = ...
rounds = tonumber(rounds)
local state = State.open(path, { sync_mode = sync })

-- Lua's own clock tells the processor's time, in which a sync does not show: the store's clock tells that of the wall.
local function now()
  state:set("clock", State.null)
  return state:entry("clock").updated
end

local function value(number) return { name = "user" .. number, score = number } end
local function key(number) return "k" .. number % 997 end

local ways = {
  { "one by one", function(round)
    for number = 1, MANY do state:set(key(number), value(number + round)) end
  end },
  { "futures", function(round)
    local futures = {}
    for number = 1, MANY do futures[number] = state:set_async(key(number), value(number + round)) end
    State.gather(futures)
  end },
  { "tasks", function(round)
    State.run(function()
      for number = 1, MANY do
        State.spawn(function() state:set(key(number), value(number + round)) end)
      end
    end)
  end },
}

for _, way in ipairs(ways) do way.found = {} end
for round = 1, rounds do
  for _, way in ipairs(ways) do
    local start = now()
    way[2](round)
    way.found[round] = MANY / (now() - start)
  end
end
for _, way in ipairs(ways) do
  table.sort(way.found)
  print(("%s\t%.0f"):format(way[1], way.found[math.ceil(#way.found / 2)]))
end
state:close()

-- Handles whose every method is the future of the real one, awaited: `awaited(handle)`.
local State = require "llmspell_state"

local unpack = table.unpack or unpack
local LISTINGS = { keys = true, items = true, diff = true }

local Awaited = {}

local function awaited(handle)
  if type(handle) ~= "userdata" or handle == State.null then return handle end
  return setmetatable({ real = handle }, Awaited)
end

--- The iterator of a list, as the method would have given it.
local function walk(list, verb)
  local at = 0
  return function()
    at = at + 1
    if verb == "items" and list[at] then return list[at][1], list[at][2] end
    return list[at]
  end
end

function Awaited.__index(_, verb)
  return function(self, ...)
    local real, given = self.real, { n = select("#", ...), ... }
    for index = 1, given.n do
      local argument = given[index]
      if getmetatable(argument) == Awaited then given[index] = argument.real end
      if verb == "transact" and type(argument) == "function" then
        given[index] = function(transaction) return argument(awaited(transaction)) end
      end
    end
    local later = real[verb .. "_async"]
    if not later then return awaited(real[verb](real, unpack(given, 1, given.n))) end
    local answer = later(real, unpack(given, 1, given.n)):await()
    if LISTINGS[verb] then return walk(answer, verb) end
    return awaited(answer)
  end
end

return awaited

-- The other agent: `lua5.4 researcher.lua STORE`. Answers one question after the other until there have been enough.
local State = require "llmspell_state"

local store = ...
local THINKING = 0.004 -- seconds in which a model would think

-- Two lines of thought that overlap: while one waits, the other goes on.
local function think(question)
  local number, result = question.value.number, {}
  local square = State.spawn(function()
    State.sleep(THINKING)
    return number * number
  end)
  local remark = State.spawn(function()
    State.sleep(THINKING)
    return ("about %q"):format(question.value.text)
  end)
  result.square, result.remark = square:join(), remark:join()
  return result
end

State.run(function()
  local state = State.open(store, { actor = "researcher" })
  -- The store keeps how far the researcher has come. A question counts as done when the next one is asked for, so a researcher
  -- that takes the place of a dead one is asked again what that one was thinking about.
  -- What was asked before anybody listened counts, too.
  local watch = state:watch { pattern = "question:*", name = "researcher", since = 0 }
  while not state:get("enough") do
    local question = watch:next(0.05)
    if question and question.operation == "set" then
      local key = "answer:" .. question.key:match("%d+")
      -- Only if there is no answer: the dead one may have written it with its last breath.
      local ok, problem = pcall(state.set, state, key, think(question), { if_version = 0 })
      if not ok and problem.kind ~= "Conflict" then error(problem, 0) end
    end
  end
  watch:close()
  state:close()
end)

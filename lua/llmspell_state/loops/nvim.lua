--- Tasks and futures in Neovim's loop. Tasks run where its whole API may be used, not in the middle of its own work.
---
---     local loop = require "llmspell_state.loops.nvim"
---     loop.attach()                         -- State.spawn(…) from mappings, commands and callbacks
local State = require "llmspell_state"

local vim = rawget(_G, "vim")
local loop = {}

local attached

--- Has Neovim run tasks; once is enough.
function loop.attach()
  if attached then return end
  attached = assert(vim.loop.new_poll(State.fd()))
  local listen
  local dispatch = vim.schedule_wrap(function()
    local ok, e = pcall(State.poll)
    listen()
    if not ok then error(e, 0) end
  end)
  function listen()
    attached:start("r", function()
      -- Until it has been looked at, the descriptor stays readable.
      attached:stop()
      dispatch()
    end)
  end
  listen()
end

--- Runs `f(...)` as a task and answers its results; Neovim does its work meanwhile.
function loop.run(f, ...)
  loop.attach()
  local task = State.spawn(f, ...)
  vim.wait(2 ^ 31 - 1, function() return task:done() end, 5)
  return task:await()
end

return loop

--- Tasks and futures in libuv's loop, through luv.
---
---     local loop = require "llmspell_state.loops.luv"
---     loop.run(function() … end)           -- or loop.attach() in a program that runs the loop itself
local State = require "llmspell_state"

local unpack = table.unpack or unpack
local loop = {}

--- Has the loop run tasks until `stop()` of what this answers; as long as that the loop has something to wait for.
--- `uv` is for programs that have another name for luv. `call` is called with each error of a task that nobody waits for,
--- or of a callback; without it the error goes to luv.
function loop.attach(uv, call)
  uv = uv or require "luv"
  local poll = assert(uv.new_poll(State.fd()))
  assert(poll:start("r", function()
    local ok, e = pcall(State.poll)
    if ok then return end
    if not call then error(e, 0) end
    call(e)
  end))
  return {
    stop = function()
      if not poll:is_closing() then poll:close() end
    end,
  }
end

--- Runs the loop until `f(...)`, a task, is done, and answers its results.
function loop.run(f, ...)
  local uv = require "luv"
  local failure
  local attached = loop.attach(uv, function(e) failure = failure or { e } end)
  local task = State.spawn(f, ...)
  while not task:done() and not failure do uv.run("once") end
  attached.stop()
  -- Closing is done by the loop.
  uv.run("nowait")
  if failure then error(failure[1], 0) end
  return unpack({ task:await() })
end

return loop

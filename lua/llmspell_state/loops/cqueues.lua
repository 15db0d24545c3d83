--- Coroutines of cqueues: in them the methods of a store wait by yielding to their controller.
---
---     local loop = require "llmspell_state.loops.cqueues"
---     loop.run(function() … end)           -- or loop.attach(controller)
local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local native = require "llmspell_state.native"
local State = require "llmspell_state"
local tasks = require "llmspell_state.tasks"

local is_yieldable = coroutine.isyieldable or native.is_yieldable
local loop = {}

--- How many coroutines of a controller wait.
local waiting = setmetatable({}, { __mode = "k" })

tasks.set_host {
  is_inside = function()
    local _, is_own = cqueues.running()
    return is_own and is_yieldable()
  end,
  wait = function(future)
    local controller, finished = cqueues.running(), condition.new()
    waiting[controller] = (waiting[controller] or 0) + 1
    future:on_done(function()
      waiting[controller] = waiting[controller] - 1
      finished:signal()
    end)
    while not future:done() do finished:wait() end
  end,
}

--- Has a controller run tasks and answer calls until `stop()` of what this answers; then it still answers those of its
--- coroutines that wait.
function loop.attach(controller)
  local is_stopped = false
  local fd = State.fd()
  controller:wrap(function()
    while not is_stopped or (waiting[controller] or 0) > 0 do
      cqueues.poll({ pollfd = fd, events = "r" })
      -- An error of a callback, or of a task that nobody waits for, ends a coroutine of its own, not this one, which answers the
      -- others.
      local ok, e = pcall(State.poll)
      if not ok then controller:wrap(function() error(e, 0) end) end
    end
  end)
  return {
    stop = function()
      is_stopped = true
      native.ring()
    end,
  }
end

--- Runs `f(...)` in a coroutine of a new controller, and the controller until nothing is left.
function loop.run(f, ...)
  local controller = cqueues.new()
  local attached = loop.attach(controller)
  local arguments, count = { ... }, select("#", ...)
  local results
  controller:wrap(function()
    results = { f((table.unpack or unpack)(arguments, 1, count)) }
    attached.stop()
  end)
  local ok, e = controller:loop()
  if not ok then error(e, 0) end
  return (table.unpack or unpack)(results)
end

return loop

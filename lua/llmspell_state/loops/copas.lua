--- Threads of Copas: in those that `wrap` has made the methods of a store wait by yielding to Copas.
---
---     local loop = require "llmspell_state.loops.copas"
---     loop.attach()
---     copas.addthread(loop.wrap(function() … end))
local copas = require "copas"
local native = require "llmspell_state.native"
local State = require "llmspell_state"
local tasks = require "llmspell_state.tasks"

local is_yieldable = coroutine.isyieldable or native.is_yieldable
local loop = {}

local inside = setmetatable({}, { __mode = "k" })
--- How many threads wait.
local waiting = 0

--- Goes on with a thread, and has Copas wait for what it waits for then.
local function go_on(thread)
  local ok, socket, queue = coroutine.resume(thread)
  if not ok then error(socket, 0) end
  if socket and queue then
    queue:insert(socket)
    queue:push(socket, thread)
  end
end

tasks.set_host {
  is_inside = function()
    local thread = coroutine.running()
    return thread and inside[thread] and is_yieldable()
  end,
  wait = function(future)
    local thread = coroutine.running()
    waiting = waiting + 1
    future:on_done(function()
      waiting = waiting - 1
      go_on(thread)
    end)
    coroutine.yield()
  end,
}

--- A function for Copas (for `addthread`, or as a handler) whose calls of a store do not block the others.
function loop.wrap(f)
  return function(...)
    inside[coroutine.running()] = true
    return f(...)
  end
end

--- Has Copas run tasks and answer calls until `stop()` of what this answers; then it still answers the threads that wait.
function loop.attach()
  local is_stopped = false
  local fd = State.fd()
  -- As Copas sees a socket: it becomes readable when there is something to do.
  local bell = {
    getfd = function() return fd end,
    close = function() end,
  }
  function bell.receive()
    if bell.has_rung then return "rung" end
    bell.has_rung = true
    return nil, "timeout"
  end
  copas.addthread(function()
    while not is_stopped or waiting > 0 do
      bell.has_rung = false
      copas.receive(bell)
      -- An error of a callback, or of a task that nobody waits for, is told by Copas, and is no reason to answer nobody else.
      local ok, e = pcall(State.poll)
      if not ok then copas.addthread(function() error(e, 0) end) end
    end
  end)
  return {
    stop = function()
      is_stopped = true
      native.ring()
    end,
  }
end

return loop

--- Coroutines that wait for the store, and for each other, without anybody else waiting.
---
--- A task waits by yielding; it is resumed when its call is done, when what it waits for is finished, or when it is
--- cancelled. Where a coroutine must not yield, waiting blocks, and other tasks run meanwhile.
local native = require "llmspell_state.native"
if native.kept.tasks then return native.kept.tasks end
local futures = require "llmspell_state.futures"

local unpack = table.unpack or unpack
local create, resume, yield, status, running =
  coroutine.create, coroutine.resume, coroutine.yield, coroutine.status, coroutine.running
local is_yieldable = coroutine.isyieldable or native.is_yieldable
local now, raise, Future = native.now, native.raise, futures.Future

--- How deep waiting may block inside of tasks that run while another one blocks.
local DEEPEST = 16

local tasks = {}
native.kept.tasks = tasks

--- Yielded by who will be resumed when it is time. Whatever else a task yields only lets others run.
local PARKED = {}

local by_thread, live = {}, {}
local ready, first, last = {}, 1, 0
local nesting, is_stepping, has_host = 0, false, false

local Task = setmetatable({}, { __index = Future })
Task.__index = Task
Task.__name = "Task"
Task.__tostring = Future.__tostring
Task.is_future = true
tasks.Task = Task

--- Tasks that failed and that nobody has waited for.
local failed = {}

local function bad_argument(position, name, expected, given)
  raise(native.failure("Invalid", ("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, type(given))))
end

--- The task that runs here, if it is in a place where it may yield; and the task, if there is one.
local function current()
  local task = by_thread[running()]
  return task and is_yieldable() and task, task
end
tasks.current = current

local function make_ready(task)
  last = last + 1
  ready[last] = task
  -- The host's loop is to come here.
  if has_host and not is_stepping then native.ring() end
end

-- Sleepers: a heap of { deadline, task, token }, the earliest first.

local sleepers, sleeping = {}, 0

local function fall_asleep(deadline, task, token)
  sleeping = sleeping + 1
  local place = sleeping
  while place > 1 do
    local above = math.floor(place / 2)
    if sleepers[above][1] <= deadline then break end
    sleepers[place] = sleepers[above]
    place = above
  end
  sleepers[place] = { deadline, task, token }
end

local function wake_first()
  local woken, moved = sleepers[1], sleepers[sleeping]
  sleepers[sleeping] = nil
  sleeping = sleeping - 1
  local place = 1
  while sleeping > 0 do
    local below = place * 2
    if below < sleeping and sleepers[below + 1][1] < sleepers[below][1] then below = below + 1 end
    if below > sleeping or moved[1] <= sleepers[below][1] then
      sleepers[place] = moved
      break
    end
    sleepers[place] = sleepers[below]
    place = below
  end
  woken[2]:wake(woken[3])
end

--- The time of the first sleeper that still sleeps: others were woken by something else.
local function first_deadline()
  while sleeping > 0 and sleepers[1][2].waits_for ~= sleepers[1][3] do wake_first() end
  return sleeping > 0 and sleepers[1][1] or nil
end

--- The end of a task.
local function finish(task, ok, ...)
  local thread = task.thread
  by_thread[thread], live[task] = nil, nil
  if ok then return Future.arrive(task, true, ...) end
  local e = ...
  task.trace = debug.traceback(thread)
  -- What the coroutine has declared as to be closed.
  if coroutine.close then coroutine.close(thread) end
  if type(e) == "table" and type(rawget(e, "kind")) == "string" and rawget(e, "traceback") == nil then
    rawset(e, "traceback", task.trace)
  end
  Future.arrive(task, false, e)
  if not task.is_awaited and not task.is_cancelled then failed[#failed + 1] = task end
end

local function after(task, ok, ...)
  if not ok or status(task.thread) == "dead" then return finish(task, ok, ...) end
  if (...) ~= PARKED then make_ready(task) end
end

--- Goes on with a task: what it waits for gives `ok` and results, or false and an error.
function Task:receive(...)
  self.waits_for = nil
  return after(self, resume(self.thread, ...))
end

--- What a task waits for is there, unless it does not wait for that any more.
function Task:wake(token)
  if self.waits_for == token then
    self.waits_for = nil
    make_ready(self)
  end
end

function Task:begin()
  self.has_begun = true
  return after(self, resume(self.thread, unpack(self.arguments, 1, self.arguments.n)))
end

--- The error with the place in the task that it came from.
function Task:answer()
  if self.ok then return unpack(self.results, 1, self.results.n) end
  local e = self.results[1]
  if type(e) == "string" then error(e .. "\n" .. self.trace, 0) end
  return raise(e)
end

Task.join = Future.await

--- The stack of a task that failed, or of one that waits.
function Task:traceback()
  return self.trace or debug.traceback(self.thread)
end

--- Ends a task with an error where it waits; says whether it was still under way. `e` is for who knows better why.
function Task:cancel(e)
  if self.finished then return false end
  e = e or native.failure("Cancelled", "this task was cancelled")
  self.is_cancelled = true
  if not self.has_begun then
    self.trace = debug.traceback(self.thread)
    by_thread[self.thread], live[self] = nil, nil
    Future.arrive(self, false, e)
    return true
  end
  self.cancelled_by = e
  local token = self.waits_for
  if type(token) == "number" then futures.forget(token) end
  -- Otherwise it is about to be resumed, or it runs and will be told when it waits.
  if token then
    self.waits_for = nil
    make_ready(self)
  end
  return true
end

local function go_on(task)
  if task.finished then return end
  if not task.has_begun then return task:begin() end
  local e = task.cancelled_by
  if e then
    task.cancelled_by = nil
    return task:receive(false, e)
  end
  return task:receive(true)
end

--- Waits in a task for `token`. Answers what it is resumed with: true and results, or false and an error.
local function park(task, token)
  local e = task.cancelled_by
  if e then
    task.cancelled_by = nil
    return false, e
  end
  task.waits_for = token
  return yield(PARKED)
end

--- Waits in a task for the answer of a call, from what beginning it has answered: true and results, or false and an error.
function tasks.outcome(task, id, ...)
  if id == nil then return true, ... end
  futures.expect(id, task)
  return park(task, id)
end

local Alarm = {}
Alarm.__index = Alarm

function Alarm:wake()
  self.task:wake(self)
end

--- Waits in a task until a future is finished, or until a time; false and an error when the task is cancelled.
local function wait_in(task, future, deadline)
  while not future.finished and not (deadline and now() >= deadline) do
    local alarm = setmetatable({ task = task }, Alarm)
    future.waiters[#future.waiters + 1] = alarm
    if deadline then fall_asleep(deadline, task, alarm) end
    local ok, e = park(task, alarm)
    -- A future that is asked again and again keeps nobody who has given up.
    for index = future.finished and 0 or #future.waiters, 1, -1 do
      if future.waiters[index] == alarm then table.remove(future.waiters, index) end
    end
    if not ok then return false, e end
  end
  return true
end

--- One round of the loop: waits at most so long for something to happen, and has the tasks run that can.
local function step(timeout)
  if first <= last then
    timeout = 0
  else
    local deadline = first_deadline()
    local left = deadline and math.max(0, deadline - now())
    if left and (not timeout or left < timeout) then timeout = left end
  end
  if timeout ~= 0 then native.wait(timeout) end
  local was_stepping = is_stepping
  is_stepping = true
  futures.dispatch()
  while sleeping > 0 and sleepers[1][1] <= now() do wake_first() end
  -- Whoever is made ready by these runs in the next round.
  local stop = last
  while first <= stop do
    local task = ready[first]
    ready[first] = nil
    first = first + 1
    go_on(task)
  end
  is_stepping = was_stepping
end

--- Has the host's loop come again in time.
local function call_back()
  if not has_host then return end
  if first <= last then
    native.ring()
  else
    local deadline = first_deadline()
    if deadline then native.alarm(math.max(0, deadline - now())) end
  end
end

--- Whether anything can still happen by itself.
local function is_hopeful()
  return first <= last or futures.in_flight > 0 or first_deadline() ~= nil
end

local HOPELESS = "this waits for something that nothing is left to finish"

--- Runs the loop until `is_done` says so, or until a time.
local function drive(is_done, deadline)
  if nesting >= DEEPEST then
    raise(native.failure("Invalid", ("tasks block inside of each other deeper than %d times"):format(DEEPEST)))
  end
  nesting = nesting + 1
  local was_stepping = is_stepping
  local ok, e = pcall(function()
    while not is_done() do
      local left = deadline and deadline - now()
      if left and left <= 0 then return end
      if not left and not is_hopeful() then raise(native.failure("Cancelled", HOPELESS)) end
      step(left)
    end
  end)
  nesting, is_stepping = nesting - 1, was_stepping
  if nesting == 0 then call_back() end
  if not ok then raise(e) end
end

--- Runs the loop for a task that must not yield here, if there is one, or for nobody in particular; a cancelled task gets its
--- error.
local function drive_for(task, is_done, deadline)
  if not task then return drive(is_done, deadline) end
  task.is_blocked = true
  local ok, e = pcall(drive, function() return task.cancelled_by or is_done() end, deadline)
  task.is_blocked = nil
  local cancelled_by = task.cancelled_by
  task.cancelled_by = nil
  if cancelled_by then raise(cancelled_by) end
  if not ok then raise(e) end
end

--- Waits where nobody can yield, until a future is finished or until a time.
local function block(task, future, deadline)
  if future.is_blocked then
    raise(native.failure("Cancelled", "this waits for a task that blocks until this returns"))
  end
  drive_for(task, function() return future.finished end, deadline)
end

--- Raises the first error of a callback.
local function tell_failures()
  local failure = futures.next_failure()
  if failure then raise(failure[1]) end
end

--- Raises the first error of a task that nobody has waited for.
local function tell_failed()
  while failed[1] do
    local task = table.remove(failed, 1)
    if not task.is_awaited then return task:answer() end
  end
end

--- Set by an adapter: `is_inside()`, whether a coroutine of the host's own runs here, which may yield to it; `wait(future)`,
--- which waits in it; and perhaps `sleep(seconds)`.
tasks.host = nil

function futures.wait(future)
  local task, blocked = current()
  if task then
    local ok, e = wait_in(task, future)
    if not ok then raise(e) end
    return
  end
  local host = not blocked and tasks.host
  if host and host.is_inside() then return host.wait(future) end
  block(blocked, future)
  if not blocked then tell_failures() end
end

local function spawn(f, ...)
  local can, thread = pcall(create, f)
  -- Lua 5.1 makes no coroutine of a function of C.
  if not can then thread = create(function(...) return f(...) end) end
  local task = Future.new(Task)
  task.thread, task.arguments = thread, futures.pack(...)
  by_thread[thread], live[task] = task, true
  make_ready(task)
  return task
end

--- Waits for a future until a time; says whether it is finished.
function tasks.wait_until(future, deadline)
  local task, blocked = current()
  if task then
    local ok, e = wait_in(task, future, deadline)
    if not ok then raise(e) end
  elseif not blocked and tasks.host and tasks.host.is_inside() then
    -- Hosts know no deadlines: a task waits in the place of their coroutine.
    local waiter = spawn(function() return tasks.wait_until(future, deadline) end)
    waiter.is_awaited = true
    call_back()
    tasks.host.wait(waiter)
  else
    block(blocked, future, deadline)
  end
  return future.finished
end

--- Where `pcall` is no place to yield from, the function gets a coroutine of its own.
local yields_in_pcall = select(2, resume(create(function() pcall(yield, PARKED) end))) == PARKED

--- `pcall` in a task, whose function may yield.
function tasks.protected(f, ...)
  local task = current()
  if not task or yields_in_pcall then return pcall(f, ...) end
  local child = spawn(f, ...)
  child.is_awaited = true
  repeat
    local ok, e = wait_in(task, child)
    if not ok then child:cancel(e) end
  until ok
  return child.ok, unpack(child.results, 1, child.results.n)
end

-- What the module offers.

local public = {}
tasks.public = public

--- Makes methods wait by yielding; at first use, so that programs without tasks pay nothing.
local function prepare()
  require("llmspell_state.methods").wrap()
  prepare = function() end
end

function tasks.set_host(host)
  tasks.host = host
  prepare()
end

function public.spawn(f, ...)
  if type(f) ~= "function" then bad_argument(1, "spawn", "function", f) end
  prepare()
  return spawn(f, ...)
end

function public.run(f, ...)
  if type(f) ~= "function" then bad_argument(1, "run", "function", f) end
  prepare()
  local main = spawn(f, ...)
  if by_thread[running()] then return main:await() end
  main.is_awaited = true
  local function cancel_all(message)
    local left = {}
    for task in pairs(live) do left[#left + 1] = task end
    for _, task in ipairs(left) do task:cancel(native.failure("Cancelled", message)) end
  end
  local ok, e = pcall(drive, function()
    if main.finished and not main.ok and not main.has_ended_all then
      main.has_ended_all = true
      cancel_all("the function of 'run' has failed")
    end
    if next(live) == nil then return true end
    if not is_hopeful() then cancel_all(HOPELESS) end
    return false
  end)
  if not ok then
    -- Interrupted, by Ctrl-C for example: what is left is not to go on beside the next `run`.
    cancel_all("'run' was interrupted")
    raise(e)
  end
  if not main.ok then return main:answer() end
  tell_failed()
  tell_failures()
  return main:answer()
end

function public.sleep(seconds)
  if seconds == nil then bad_argument(1, "sleep", "number of seconds", seconds) end
  local deadline = native.seconds(seconds, "sleep")
  deadline = deadline and now() + deadline
  local task, blocked = current()
  if task then
    local token = {}
    if deadline then fall_asleep(deadline, task, token) end
    local ok, e = park(task, token)
    if not ok then raise(e) end
    return
  end
  local host = tasks.host
  if host and not blocked and host.sleep and host.is_inside() then return host.sleep(seconds) end
  drive_for(blocked, function() return false end, deadline or math.huge)
end

function public.timeout(seconds, f, ...)
  if type(f) ~= "function" then bad_argument(2, "timeout", "function", f) end
  local most = native.seconds(seconds, "timeout")
  prepare()
  local child = spawn(f, ...)
  child.is_awaited = true
  local deadline = most and now() + most
  local task = current()
  local ok, e = true, nil
  if task then ok, e = wait_in(task, child, deadline) else tasks.wait_until(child, deadline) end
  if not ok then
    child:cancel(e)
  elseif not child.finished then
    child:cancel(native.failure("Cancelled", ("it took longer than %g seconds"):format(seconds)))
  end
  if not child.finished then futures.wait(child) end
  if not ok then raise(e) end
  return child:answer()
end

--- The results of all, in their order; the first error, in that order, once all are done.
local function answers(list, name)
  local started = {}
  for index = 1, #list do
    local item = list[index]
    if type(item) == "function" then
      prepare()
      item = spawn(item)
      started[#started + 1] = item
    elseif not futures.is_future(item) then
      local message = "item %d to '%s' is a %s; it takes futures, tasks and functions"
      raise(native.failure("Invalid", message:format(index, name, type(item))))
    end
    item.is_awaited = true
    list[index] = item
  end
  for _, item in ipairs(list) do
    if not item.finished then
      local task = current()
      local ok, e = true, nil
      if task then ok, e = wait_in(task, item) else futures.wait(item) end
      if not ok then
        for _, child in ipairs(started) do child:cancel() end
        raise(e)
      end
    end
  end
  local results = { n = #list }
  for index, item in ipairs(list) do results[index] = (item:answer()) end
  return results
end

function public.gather(list)
  if type(list) ~= "table" or futures.is_future(list) then bad_argument(1, "gather", "table of futures", list) end
  return answers({ unpack(list) }, "gather")
end

function public.join(...)
  local results = answers({ ... }, "join")
  return unpack(results, 1, results.n)
end

public.future = futures.promise

function public.poll(timeout)
  if by_thread[running()] then raise(native.failure("Invalid", "'poll' is for the loop that runs tasks, not for a task")) end
  if is_stepping then raise(native.failure("Invalid", "'poll' is called from a callback that it is running")) end
  timeout = timeout == nil and 0 or native.seconds(timeout, "poll")
  local ok, e = pcall(step, timeout)
  is_stepping = false
  call_back()
  if not ok then raise(e) end
  tell_failed()
  tell_failures()
  return next(live) ~= nil or futures.in_flight > 0
end

function public.fd()
  has_host = true
  local fd = native.fd()
  call_back()
  return fd
end

return tasks

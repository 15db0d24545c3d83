--- Coroutines that wait for the store, and for each other, without anybody else waiting.
---
--- A task waits by yielding; it is resumed when its call is done, when what it waits for is finished, or when it is
--- cancelled. Where a coroutine must not yield, waiting blocks, and other tasks run meanwhile.
local native = require "llmspell_state.native"
if native.kept.tasks then return native.kept.tasks end
local futures = require "llmspell_state.futures"
local loop = require "llmspell_state.loop"

local unpack = table.unpack or unpack
local create, resume, yield, status, running =
  coroutine.create, coroutine.resume, coroutine.yield, coroutine.status, coroutine.running
local is_yieldable = coroutine.isyieldable or native.is_yieldable
local now, raise, Future = native.now, native.raise, futures.Future

local tasks = {}
native.kept.tasks = tasks

--- Yielded by who will be resumed when it is time. Whatever else a task yields only lets others run.
local PARKED = {}

--- Tasks that are not done. Not counted: wherever an error of a hook or want of memory strikes, a count might not fit any more.
local live = {}

local Task = setmetatable({}, { __index = Future })
Task.__index = Task
Task.__name = "Task"
Task.__tostring = Future.__tostring
Task.is_future = true
Task.is_open_ended = true

--- Tasks that failed and that nobody has waited for.
local failed = {}

local function bad_argument(position, name, expected, given)
  raise(native.failure("Invalid", ("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, type(given))))
end

--- The task that runs here, if it is in a place where it may yield; and the task that runs, if there is one: what runs may
--- also be a coroutine of its own making.
local function current()
  local task = loop.running
  return task and task.thread == running() and is_yieldable() and task, task
end
tasks.current = current

--- The end of a task.
local function finish(task, ok, ...)
  local thread = task.thread
  live[task] = nil
  if ok then return futures.arrive(task, true, ...) end
  local e = ...
  task.trace = debug.traceback(thread)
  -- What the coroutine has declared as to be closed.
  if coroutine.close then coroutine.close(thread) end
  if type(e) == "table" and type(rawget(e, "kind")) == "string" and rawget(e, "traceback") == nil then
    rawset(e, "traceback", task.trace)
  end
  futures.arrive(task, false, e)
  if not task.is_awaited and not task.is_cancelled then failed[#failed + 1] = task end
end

local function after(task, outer, ok, ...)
  loop.running = outer
  if not ok or status(task.thread) == "dead" then return finish(task, ok, ...) end
  if (...) ~= PARKED then loop.make_ready(task) end
end

local function run(task, ...)
  local outer = loop.running
  loop.running = task
  return after(task, outer, resume(task.thread, ...))
end

--- Goes on with a task that waits for a call: its answer gives `ok` and results, or false and an error.
local function receive(task, ...)
  task.waits_for = nil
  if not loop.is_too_deep then return run(task, ...) end
  task.answer = futures.pack(...)
  return loop.make_ready(task)
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
  if self.arguments then
    finish(self, false, e)
    return true
  end
  self.cancelled_by = e
  local token = self.waits_for
  if type(token) == "number" then futures.forget(token) end
  -- Otherwise it is about to be resumed, or it runs and will be told when it waits.
  if token then
    self.waits_for = nil
    loop.make_ready(self)
  end
  return true
end

--- The error of who has cancelled a task, to be raised in it now.
local function cancellation(task)
  local e = task.cancelled_by
  task.cancelled_by = nil
  return e
end

function loop.go_on(task)
  if task.finished then return end
  local arguments = task.arguments
  if arguments then
    task.arguments = nil
    return run(task, unpack(arguments, 1, arguments.n))
  end
  local answer, e = task.answer, cancellation(task)
  task.answer = nil
  if e then return run(task, false, e) end
  if answer then return run(task, unpack(answer, 1, answer.n)) end
  return run(task, true)
end

--- Waits in a task for `token`. Answers what it is resumed with: true and results, or false and an error.
local function park(task, token)
  local e = cancellation(task)
  if e then return false, e end
  task.waits_for = token
  return yield(PARKED)
end

--- Waits in a task for the answer of a call, from what beginning it has answered: true and results, or false and an error.
function tasks.outcome(task, id, ...)
  if id == nil then return true, ... end
  -- Who is cancelled must not get the answer where it waits next.
  if not task.cancelled_by then futures.expect(id, task, receive) end
  return park(task, id)
end

--- What wakes a task: a future that is finished, or a time.
local Alarm = {}
Alarm.__index = Alarm

--- Wakes its task, unless that does not wait for it any more.
function Alarm:wake()
  local task = self.task
  if task.waits_for == self then
    task.waits_for = nil
    loop.make_ready(task)
  end
end

--- Waits in a task for an alarm that `future`, if there is one, and `deadline`, if there is one, set off.
local function wait_for_alarm(task, future, deadline)
  local alarm = setmetatable({ task = task }, Alarm)
  if future then futures.wake_at_end(future, alarm) end
  if deadline then loop.set_alarm(alarm, deadline) end
  local ok, e = park(task, alarm)
  loop.stop_alarm(alarm)
  -- A future that is asked again and again keeps nobody who has given up.
  for index = future and future.waiters and #future.waiters or 0, 1, -1 do
    if future.waiters[index] == alarm then table.remove(future.waiters, index) end
  end
  return ok, e
end

--- Runs the loop for a task that must not yield here, if there is one, or for nobody in particular. Answers as `wait`.
local function drive_for(task, is_done, deadline, is_alone)
  if not task then return pcall(loop.drive, is_done, deadline, is_alone) end
  task.is_blocked = true
  local ok, e = pcall(loop.drive, function() return task.cancelled_by or is_done() end, deadline, is_alone)
  task.is_blocked = nil
  local cancelled_by = cancellation(task)
  if cancelled_by then return false, cancelled_by end
  return ok, e
end

--- Waits where nobody can yield, until a future is finished or until a time. Answers as `wait`.
local function block(task, future, deadline)
  if future.is_blocked then
    return false, native.failure("Cancelled", "this waits for a task that blocks until this returns")
  end
  local is_alone = not future.is_open_ended or deadline and not future.thread
  return drive_for(task, function() return future.finished end, deadline, is_alone)
end

--- Raises the first error of a callback, where no round of the loop will.
local function tell_failures()
  local failure = not loop.is_stepping and futures.next_failure()
  if failure then raise(failure[1]) end
end

--- Raises the first error of a task that nobody has waited for.
local function tell_failed()
  while failed[1] do
    local task = table.remove(failed, 1)
    if not task.is_awaited then return futures.answer(task) end
  end
end

--- Set by an adapter: `is_inside()`, whether a coroutine of the host's own runs here, which may yield to it; and
--- `wait(future)`, which waits in it.
tasks.host = nil

--- The host, where one of its coroutines runs and not one of our tasks.
function tasks.host_here()
  local host = tasks.host
  return host and not loop.running and host.is_inside() and host
end

local function spawn(f, ...)
  local can, thread = pcall(create, f)
  -- Lua 5.1 makes no coroutine of a function of C.
  if not can then thread = create(function(...) return f(...) end) end
  local task = setmetatable({
    finished = false, ok = nil, results = nil,
    thread = thread,
    -- What it is to begin with, until it has begun.
    arguments = futures.pack(...),
    -- What it waits for.
    waits_for = nil,
    -- Whether somebody looks at its end.
    is_awaited = nil,
  }, Task)
  live[task] = true
  loop.make_ready(task)
  return task
end

--- Waits for a future, at most until a time; false and an error when it has to stop before.
local function wait(future, deadline)
  local task, blocked = current()
  if task then
    while not future.finished and not (deadline and now() >= deadline) do
      local ok, e = wait_for_alarm(task, future, deadline)
      if not ok then return false, e end
    end
    return true
  end
  if future.finished then return true end
  local host = tasks.host_here()
  if not host then return block(blocked, future, deadline) end
  if not deadline then
    host.wait(future)
    return true
  end
  -- Hosts know no deadlines: a task waits in the place of their coroutine.
  local waiter = spawn(wait, future, deadline)
  host.wait(waiter)
  return unpack(waiter.results, 1, waiter.results.n)
end
tasks.wait = wait

function futures.wait(future)
  local ok, e = wait(future)
  if not ok then raise(e) end
  tell_failures()
end

--- Where `pcall` is no place to yield from, the function gets a coroutine of its own.
local yields_in_pcall = select(2, resume(create(function() pcall(yield, PARKED) end))) == PARKED

--- `pcall` in a task, whose function may yield.
function tasks.protected(f, ...)
  if not current() or yields_in_pcall then return pcall(f, ...) end
  local child = spawn(f, ...)
  child.is_awaited = true
  repeat
    local ok, e = wait(child)
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
  if loop.is_stepping then return main:await() end
  main.is_awaited = true
  local function cancel_all(message)
    local left = {}
    for task in pairs(live) do left[#left + 1] = task end
    for _, task in ipairs(left) do task:cancel(native.failure("Cancelled", message)) end
  end
  local ok, e = pcall(loop.drive, function()
    if main.finished and not main.ok and not main.has_ended_all then
      main.has_ended_all = true
      cancel_all("the function of 'run' has failed")
    end
    if next(live) == nil then return true end
    if not loop.is_hopeful() then cancel_all(loop.HOPELESS) end
    return false
  end)
  if not ok then
    -- Interrupted, by Ctrl-C for example: what is left is not to go on beside the next `run`.
    cancel_all("'run' was interrupted")
    raise(e)
  end
  if not main.ok then return futures.answer(main) end
  tell_failed()
  tell_failures()
  return futures.answer(main)
end

function public.sleep(seconds)
  if seconds == nil then bad_argument(1, "sleep", "number of seconds", seconds) end
  local deadline = native.seconds(seconds, "sleep")
  deadline = deadline and now() + deadline
  local task, blocked = current()
  local ok, e
  if task then
    ok, e = wait_for_alarm(task, nil, deadline)
  elseif tasks.host_here() then
    return spawn(public.sleep, seconds):await()
  else
    ok, e = drive_for(blocked, function() return false end, deadline or math.huge, true)
  end
  if not ok then raise(e) end
end

function public.timeout(seconds, f, ...)
  if type(f) ~= "function" then bad_argument(2, "timeout", "function", f) end
  local most = native.seconds(seconds, "timeout")
  prepare()
  local child = spawn(f, ...)
  child.is_awaited = true
  local deadline = most and now() + most
  local ok, e = wait(child, deadline)
  if not ok then
    child:cancel(e)
  elseif not child.finished then
    child:cancel(native.failure("Cancelled", ("it took longer than %g seconds"):format(seconds)))
  end
  if not child.finished then futures.wait(child) end
  if not ok then raise(e) end
  return futures.answer(child)
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
    local ok, e = true, nil
    if not item.finished then ok, e = wait(item) end
    if not ok then
      for _, child in ipairs(started) do child:cancel() end
      raise(e)
    end
  end
  tell_failures()
  local results = { n = #list }
  for index, item in ipairs(list) do results[index] = (futures.answer(item)) end
  return results
end

function public.gather(list)
  if type(list) ~= "table" or futures.is_future(list) then bad_argument(1, "gather", "table of futures", list) end
  local items = {}
  for index = 1, #list do items[index] = list[index] end
  return answers(items, "gather")
end

function public.join(...)
  local results = answers({ ... }, "join")
  return unpack(results, 1, results.n)
end

public.future = futures.promise

function public.poll(timeout)
  if loop.running then raise(native.failure("Invalid", "'poll' is for the loop that runs tasks, not for a task")) end
  if loop.is_stepping then raise(native.failure("Invalid", "'poll' is called from a callback that it is running")) end
  loop.poll(timeout == nil and 0 or native.seconds(timeout, "poll"))
  tell_failed()
  tell_failures()
  return next(live) ~= nil or futures.in_flight > 0
end

public.fd = loop.fd

return tasks

--- What calls that nobody waits for come to. The threads of the core put answers into a queue; here they find who asked.
local native = require "llmspell_state.native"
if native.kept.futures then return native.kept.futures end

local unpack = table.unpack or unpack
local take, raise = native.take, native.raise
-- Whoever else took answers would take them away from those who wait.
native.take = nil

local futures = {
  --- How many calls are on their way.
  in_flight = 0,
}
native.kept.futures = futures

--- The number of a call → who gets its answer, and how: by `receive(receiver, ok, ...)`.
local receivers, receives = {}, {}

--- Errors of callbacks, for the call that was dispatching.
local failures = {}

--- What packing nothing gives.
local NOTHING = { n = 0 }

local function pack(...)
  local count = select("#", ...)
  if count == 0 then return NOTHING end
  return { n = count, ... }
end
futures.pack = pack

--- The number of the newest call that somebody waits for.
local newest = 0

--- Has `receiver` get the answer of a call.
function futures.expect(id, receiver, receive)
  if id > newest then newest = id end
  receivers[id], receives[id] = receiver, receive
  futures.in_flight = futures.in_flight + 1
end

--- Nobody wants the answer of a call any more.
function futures.forget(id)
  if receivers[id] then
    receivers[id], receives[id] = nil, nil
    futures.in_flight = futures.in_flight - 1
  end
end

--- A parent process made the calls up to `last`: here they will never have an answer.
local function give_up(last)
  local lost = {}
  for id in pairs(receivers) do
    if id <= last then lost[#lost + 1] = id end
  end
  for _, id in ipairs(lost) do
    local receiver, receive = receivers[id], receives[id]
    futures.forget(id)
    receive(receiver, false, native.failure("Forked", "this call was made before a fork and belongs to the parent process"))
  end
end

local function hand_over(id, ok, ...)
  if id == nil then return nil end
  if id == 0 then
    give_up((...))
    return id
  end
  local receiver, receive = receivers[id], receives[id]
  if receiver then
    futures.forget(id)
    -- Memory may be short, or a finalizer of Lua 5.1 may raise here: whoever waits must be told all the same.
    local told, e = pcall(receive, receiver, ok, ...)
    if not told then receive(receiver, false, e) end
  end
  return id
end

--- Hands the answers that are there to who asked. Calls that are begun meanwhile have their turn in the next round: a task
--- whose answers come at once must not keep the others waiting.
function futures.dispatch()
  local last = newest
  repeat
    local id = hand_over(take())
  until not id or id > last
end

--- The first error that a callback has raised since, as `{ error }`.
function futures.next_failure()
  return table.remove(failures, 1)
end

local Future = {}
Future.__index = Future
Future.__name = "Future"
Future.is_future = true
futures.Future = Future

function futures.new(class)
  return setmetatable({ finished = false, ok = nil, results = nil, default = nil }, class)
end

--- Has `waiter:wake(future)` called once it is finished.
function futures.wake_at_end(future, waiter)
  local waiters = future.waiters
  if waiters then
    waiters[#waiters + 1] = waiter
  else
    future.waiters = { waiter }
  end
end

function Future:__tostring()
  return ("%s (%s)"):format(getmetatable(self).__name, not self.finished and "under way" or self.ok and "done" or "failed")
end

-- What ends a future, or goes on with a task, is no method of theirs: a script that called it could leave a task for ever
-- neither done nor waiting for anything.

--- Gives a future its results, or its error; everything after the first time is ignored.
local function arrive(future, ok, ...)
  if future.finished then return false end
  if ok and (...) == nil and future.default ~= nil then
    future.finished, future.ok, future.results = true, true, pack(future.default)
  else
    future.finished, future.ok, future.results = true, ok, pack(...)
  end
  local waiters = future.waiters
  if waiters then
    future.waiters = nil
    for index = 1, #waiters do waiters[index]:wake(future) end
  end
  return true
end
futures.arrive = arrive

--- What waiting for a finished future gives: its results, or its error raised. An error of a task that is text gets the place
--- in the task that it came from.
local function answer(future)
  if future.ok then return unpack(future.results, 1, future.results.n) end
  local e = future.results[1]
  if future.trace and type(e) == "string" then error(e .. "\n" .. future.trace, 0) end
  return raise(e)
end
futures.answer = answer

--- Whether it has its results, or its error.
function Future:done()
  return self.finished
end

--- Waits for it.
function Future:await()
  self.is_awaited = true
  if not self.finished then futures.wait(self) end
  return answer(self)
end

local Callback = {}
Callback.__index = Callback

function Callback:wake(future)
  local ok, e = xpcall(function() return self.call(future.ok, unpack(future.results, 1, future.results.n)) end, function(e)
    return type(e) == "string" and debug.traceback(e, 2) or e
  end)
  if not ok then failures[#failures + 1] = { e } end
end

--- Calls `call(ok, ...)` once it is finished: with true and its results, or false and its error.
function Future:on_done(call)
  if type(call) ~= "function" then
    raise(native.failure("Invalid", ("bad argument #1 to 'on_done' (function expected, got %s)"):format(type(call))))
  end
  self.is_awaited = true
  local callback = setmetatable({ call = call }, Callback)
  if self.finished then
    callback:wake(self)
  else
    futures.wake_at_end(self, callback)
  end
  return self
end

--- Whether it is a future, or a task.
function futures.is_future(value)
  local class = getmetatable(value)
  return type(class) == "table" and rawget(class, "is_future") == true
end

--- The future of a call that gives `default` where the call gives nil, from what beginning the call has answered.
function futures.with_default(default, id, ...)
  local future = futures.new(Future)
  future.default = default
  if id == nil then
    arrive(future, true, ...)
  else
    futures.expect(id, future, arrive)
  end
  return future
end

--- The future of a call.
function futures.of_call(...)
  return futures.with_default(nil, ...)
end

--- A future that the program finishes itself, by `resolve(...)` or `fail(e)`.
local Promise = setmetatable({}, { __index = Future })
Promise.__index = Promise
Promise.__name = "Future"
Promise.__tostring = Future.__tostring
Promise.is_future = true
Promise.is_open_ended = true

function Promise:resolve(...)
  return arrive(self, true, ...)
end

function Promise:fail(e)
  return arrive(self, false, e)
end

function futures.promise()
  return futures.new(Promise)
end

return futures

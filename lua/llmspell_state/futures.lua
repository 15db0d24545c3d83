--- What calls that nobody waits for come to. The threads of the core put answers into a queue; here they find who asked.
local native = require "llmspell_state.native"
if native.kept.futures then return native.kept.futures end

local unpack = table.unpack or unpack
local take, raise = native.take, native.raise

local futures = {
  --- How many calls are on their way.
  in_flight = 0,
}
native.kept.futures = futures

--- The number of a call → who gets its answer, by `receive(ok, ...)`.
local pending = {}

--- Errors of callbacks, for the call that was dispatching.
local failures = {}

local function pack(...)
  return { n = select("#", ...), ... }
end
futures.pack = pack

--- The number of the newest call that somebody waits for.
local newest = 0

--- Has `receiver` get the answer of a call.
function futures.expect(id, receiver)
  if id > newest then newest = id end
  pending[id] = receiver
  futures.in_flight = futures.in_flight + 1
end

--- Nobody wants the answer of a call any more.
function futures.forget(id)
  if pending[id] then
    pending[id] = nil
    futures.in_flight = futures.in_flight - 1
  end
end

--- A parent process made the calls up to `last`: here they will never have an answer.
local function give_up(last)
  local lost = {}
  for id, receiver in pairs(pending) do
    if id <= last then lost[id] = receiver end
  end
  for id, receiver in pairs(lost) do
    futures.forget(id)
    receiver:receive(false, native.failure("Forked", "this call was made before a fork and belongs to the parent process"))
  end
end

local function hand_over(id, ok, ...)
  if id == nil then return nil end
  if id == 0 then
    give_up((...))
    return id
  end
  local receiver = pending[id]
  if receiver then
    futures.forget(id)
    -- Memory may be short, or a finalizer of Lua 5.1 may raise here: whoever waits must be told all the same.
    local told, e = pcall(receiver.receive, receiver, ok, ...)
    if not told then receiver:receive(false, e) end
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

function Future.new(class)
  return setmetatable({ finished = false, waiters = {} }, class)
end

function Future:__tostring()
  return ("%s (%s)"):format(getmetatable(self).__name, not self.finished and "under way" or self.ok and "done" or "failed")
end

--- Gets its results, or its error; everything after the first time is ignored.
function Future:arrive(ok, ...)
  if self.finished then return false end
  self.finished, self.ok, self.results = true, ok, pack(...)
  local waiters = self.waiters
  self.waiters = nil
  for index = 1, #waiters do waiters[index]:wake(self) end
  return true
end

Future.receive = Future.arrive

--- Has it give `default` where it would give nil.
function Future:with_default(default)
  if not self.finished then
    function self.receive(_, ok, value)
      if ok and value == nil then value = default end
      return self:arrive(ok, value)
    end
  elseif self.ok and self.results[1] == nil then
    self.results[1] = default
  end
  return self
end

--- Whether it has its results, or its error.
function Future:done()
  return self.finished
end

--- What waiting for it gives, once it is finished: its results, or its error raised.
function Future:answer()
  if self.ok then return unpack(self.results, 1, self.results.n) end
  return raise(self.results[1])
end

--- Waits for it.
function Future:await()
  self.is_awaited = true
  if not self.finished then futures.wait(self) end
  return self:answer()
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
    self.waiters[#self.waiters + 1] = callback
  end
  return self
end

--- Whether it is a future, or a task.
function futures.is_future(value)
  local class = getmetatable(value)
  return type(class) == "table" and rawget(class, "is_future") == true
end

--- The future of a call, from what beginning it has answered.
function futures.of_call(id, ...)
  local future = Future.new(Future)
  if id == nil then
    future:arrive(true, ...)
  else
    futures.expect(id, future)
  end
  return future
end

--- A future that the program finishes itself, by `resolve(...)` or `fail(e)`.
local Promise = setmetatable({}, { __index = Future })
Promise.__index = Promise
Promise.__name = "Future"
Promise.__tostring = Future.__tostring
Promise.is_future = true

function Promise:resolve(...)
  return self:arrive(true, ...)
end

function Promise:fail(e)
  return self:arrive(false, e)
end

function futures.promise()
  return Future.new(Promise)
end

return futures

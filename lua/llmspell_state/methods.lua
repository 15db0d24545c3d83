--- The methods of handles that do not block: as futures, and in tasks by yielding.
local native = require "llmspell_state.native"
if native.kept.methods then return native.kept.methods end
local futures = require "llmspell_state.futures"
local loop = require "llmspell_state.loop"
local tasks = require "llmspell_state.tasks"

local unpack = table.unpack or unpack
local later, raise, now = native.later, native.raise, native.now
local current, outcome, of_call = tasks.current, tasks.outcome, futures.of_call

local methods = {}
native.kept.methods = methods

--- Verbs that are one call, by the class that has them.
local READING = { "entry", "get_many", "count", "exists", "scope" }
local WRITING = { "set", "set_many", "touch", "delete", "clear", "increment", "append", "merge" }
local TREE = {
  "scopes", "watch", "named_watches", "forget_watch", "history", "at", "revert", "revert_to", "undo",
  "default_ttl", "set_default_ttl", "retention", "set_retention", "usage", "fork",
}
local VERBS = {
  State = { READING, WRITING, TREE, { "version", "verify", "cleanup" } },
  Scope = { READING, WRITING, TREE },
  Transaction = { READING, WRITING, { "commit" } },
  View = { READING },
  Watch = { { "save", "close" } },
}
--- The classes that have listings.
local READABLE = { "State", "Scope", "Transaction", "View" }

local function receive(ok, ...)
  if ok then return ... end
  return raise((...))
end

--- Where the call is to be waited for: in a task, or in a coroutine of the host's.
local function place()
  return current() or tasks.host_here()
end

--- Waits at that place for what a call has begun with.
local function settle(at, id, ...)
  if at ~= tasks.host then return receive(outcome(at, id, ...)) end
  return of_call(id, ...):await()
end

--- As `settle`, but answers true and results, or false and an error.
local function attempt(at, id, ...)
  if at ~= tasks.host then return outcome(at, id, ...) end
  local future = of_call(id, ...)
  if not future.finished then futures.wait(future) end
  return future.ok, (future.results[1])
end

--- The verb that waits where it can, and else blocks.
local function waiting(blocking, begin)
  return function(...)
    local at = place()
    if at then return settle(at, begin(...)) end
    return blocking(...)
  end
end

--- Waits before another attempt, or raises the error of the last one.
local function pause(retry, e)
  if not native.is_conflict(e) then error(e, 0) end
  local seconds = native.pause(retry)
  if not seconds then raise(e) end
  tasks.public.sleep(seconds)
end

local function modify(at, ...)
  local self, key, change = ...
  local retry
  while true do
    local value, version = settle(at, later.modify(...))
    local ok, answer = attempt(at, later.swap(self, key, change(value), version))
    if ok then return answer end
    retry = retry or native.retry()
    pause(retry, answer)
  end
end

local function transact(at, ...)
  local self, run = ...
  local retry = native.retry(later.attempts(...))
  while true do
    local transaction = settle(at, later.transaction(self))
    local done = futures.pack(tasks.protected(run, transaction))
    local ok, e = done[1], done[2]
    if ok then
      ok, e = attempt(at, later.finish(transaction))
    else
      later.abandon(transaction)
    end
    if ok then return unpack(done, 2, done.n) end
    pause(retry, e)
  end
end

--- Goes on with a merge, from what beginning it has come to: a table, or where conflicts are open, the merge.
local function finish_merge(at, merging, resolve)
  while type(merging) ~= "table" do
    for conflict in later.conflict, merging do later.answer(merging, (resolve(conflict))) end
    merging = settle(at, later.merge_again(merging))
  end
  return merging
end

--- A listing that is walked through in a task, from what beginning it has answered.
local function walk(_, iterator)
  return function()
    local at = place()
    if at then return settle(at, later.step(iterator)) end
    return native.step(iterator)
  end
end

local function next_change(...)
  local self = ...
  local change, most = later.next(...)
  local deadline = most and now() + most
  while change == false do
    if deadline and now() >= deadline then return nil end
    local id, waiter = later.ready(self)
    local ready = of_call(id)
    ready.is_open_ended = true
    local ok, e = tasks.wait(ready, deadline)
    if ready.finished then
      futures.answer(ready)
    else
      -- Nobody waits for it any more: it is no call that is on its way.
      futures.forget(id)
      later.forget(waiter)
    end
    if not ok then raise(e) end
    change = later.next(self)
  end
  return change
end

--- A task that does what the method would.
local function in_task(verb, method)
  return function(self, ...)
    later.check_handle(self, verb)
    return tasks.public.spawn(method, self, ...)
  end
end

local function diff_async(...)
  local begun = of_call(later.diff(...))
  return tasks.public.spawn(function()
    local differences = {}
    for difference in walk(nil, begun:await()) do differences[#differences + 1] = difference end
    return differences
  end)
end

local function merge_from_async(...)
  local resolve = select(3, ...)
  local begun = of_call(later.merge_from(...))
  if not resolve then return begun end
  return tasks.public.spawn(function()
    local merging = begun:await()
    return finish_merge(place(), merging, resolve)
  end)
end

--- Gives every class its futures: `set_async` and so on.
function methods.add_futures()
  for class, groups in pairs(VERBS) do
    local own = native.classes[class].methods
    for _, group in ipairs(groups) do
      for _, verb in ipairs(group) do
        local begin = later[verb]
        own[verb .. "_async"] = function(...) return of_call(begin(...)) end
      end
    end
  end
  local function listing(verb, pack)
    return in_task(verb, function(self, select)
      local items = {}
      for key, value in self[verb](self, select) do items[#items + 1] = pack(key, value) end
      return items
    end)
  end
  for _, class in ipairs(READABLE) do
    local own = native.classes[class].methods
    function own.get_async(...)
      return futures.with_default((select(3, ...)), later.get(...))
    end
    if own.modify then own.modify_async = in_task("modify", function(self, ...) return self:modify(...) end) end
    own.keys_async = listing("keys", function(key) return key end)
    own.items_async = listing("items", function(key, value) return { key, value } end)
    if own.transact then
      own.transact_async = in_task("transact", function(self, ...) return self:transact(...) end)
    end
    if own.diff then own.diff_async = diff_async end
    if own.merge_from then own.merge_from_async = merge_from_async end
  end
  function native.classes.Watch.methods.next_async(self, ...)
    later.check_watch(self)
    return tasks.public.spawn(function(...) return self:next(...) end, ...)
  end
end

--- Makes every method wait by yielding where it can.
function methods.wrap()
  for class, groups in pairs(VERBS) do
    local own = native.classes[class].methods
    for _, group in ipairs(groups) do
      for _, verb in ipairs(group) do own[verb] = waiting(own[verb], later[verb]) end
    end
  end
  for _, class in ipairs(READABLE) do
    local own, metatable = native.classes[class].methods, native.classes[class].metatable
    local blocking = {}
    for _, verb in ipairs { "get", "modify", "transact", "transaction", "keys", "items", "diff", "merge_from" } do
      blocking[verb] = own[verb]
    end
    function own.get(...)
      local at = place()
      if not at then return blocking.get(...) end
      local value = settle(at, later.get(...))
      if value == nil then return (select(3, ...)) end
      return value
    end
    if own.modify then
      function own.modify(...)
        local at = place()
        if at then return modify(at, ...) end
        return blocking.modify(...)
      end
    end
    if own.diff then
      function own.diff(...)
        local at = place()
        if at then return walk(nil, settle(at, later.diff(...))) end
        return blocking.diff(...)
      end
    end
    if own.merge_from then
      function own.merge_from(...)
        local at = place()
        if at then return finish_merge(at, settle(at, later.merge_from(...)), (select(3, ...))) end
        return blocking.merge_from(...)
      end
    end
    if own.transact then
      function own.transact(...)
        local at = place()
        if at then return transact(at, ...) end
        return blocking.transact(...)
      end
      function own.transaction(...)
        local at, run = place(), (select(2, ...))
        if at and type(run) == "function" then return transact(at, ...) end
        if at and run == nil then return settle(at, later.transaction(...)) end
        return blocking.transaction(...)
      end
    end
    for _, verb in ipairs { "keys", "items" } do
      own[verb] = function(...)
        if place() then return walk(later[verb](...)) end
        return blocking[verb](...)
      end
    end
    local pairs_of = metatable.__pairs
    function metatable.__pairs(self)
      -- Lua 5.3 cannot yield here, but it can in the loop.
      local _, task = current()
      if task or place() then return walk(later.items(self)) end
      return pairs_of(self)
    end
  end
  local watch = native.classes.Watch
  local blocking = watch.methods.next
  function watch.methods.next(...)
    -- Also where nobody can yield: whoever would write may be a task.
    if loop.is_stepping or place() then return next_change(...) end
    return blocking(...)
  end
  function watch.metatable.__call(self)
    return self:next()
  end
  local open = methods.module.open
  function methods.module.open(...)
    local at = place()
    if at then return settle(at, later.open(...)) end
    return open(...)
  end
end

return methods

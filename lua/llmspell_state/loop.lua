--- The loop: which tasks can go on, who sleeps until when, and what a host with a loop of its own is told of that.
local native = require "llmspell_state.native"
if native.kept.loop then return native.kept.loop end
local futures = require "llmspell_state.futures"

local now, raise = native.now, native.raise

--- How deep waiting may block inside of tasks that run while another one blocks: Lua bounds how deep C may nest.
local DEEPEST = 16

local loop = {
  --- Whether a round is under way: tasks and callbacks run.
  is_stepping = false,
  --- The task that runs.
  running = nil,
  --- Whether what blocks is nested so deep that no task is to run meanwhile.
  is_too_deep = false,
  --- Goes on with a task; set by who knows tasks.
  go_on = nil,
}
native.kept.loop = loop

local ready, first, last = {}, 1, 0
local nesting, has_host = 0, false

--- Has a task go on in the next round.
function loop.make_ready(task)
  last = last + 1
  ready[last] = task
  -- The host's loop is to come here.
  if has_host and not loop.is_stepping then native.ring() end
end

-- Sleepers: a heap of alarms by their `deadline`, the earliest first. Each knows its `place`.

local sleepers = {}

local function put(alarm, place)
  sleepers[place], alarm.place = alarm, place
end

local function rise(alarm, place)
  while place > 1 do
    local above = math.floor(place / 2)
    if sleepers[above].deadline <= alarm.deadline then break end
    put(sleepers[above], place)
    place = above
  end
  put(alarm, place)
end

local function sink(alarm, place)
  local count = #sleepers
  while place * 2 <= count do
    local below = place * 2
    if below < count and sleepers[below + 1].deadline < sleepers[below].deadline then below = below + 1 end
    if alarm.deadline <= sleepers[below].deadline then break end
    put(sleepers[below], place)
    place = below
  end
  put(alarm, place)
end

--- Has `alarm:wake()` called at that time.
function loop.set_alarm(alarm, deadline)
  alarm.deadline = deadline
  rise(alarm, #sleepers + 1)
end

--- Takes an alarm back, if it is set.
function loop.stop_alarm(alarm)
  local place = alarm.place
  if not place then return end
  alarm.place = nil
  local moved = table.remove(sleepers)
  if moved == alarm then return end
  sink(moved, place)
  rise(moved, moved.place)
end

local function first_deadline()
  return sleepers[1] and sleepers[1].deadline
end

--- Waits at most so long for something to happen, and hands out the answers that are there.
local function listen(timeout)
  if timeout ~= 0 then native.wait(timeout) end
  loop.is_stepping, loop.running = true, nil
  futures.dispatch()
end

--- One round: waits at most so long for something to happen, and has the tasks run that can. Whoever calls it puts
--- `is_stepping` and `running` back.
local function step(timeout)
  if first <= last then
    timeout = 0
  else
    local deadline = first_deadline()
    local left = deadline and math.max(0, deadline - now())
    if left and (not timeout or left < timeout) then timeout = left end
  end
  listen(timeout)
  while sleepers[1] and sleepers[1].deadline <= now() do
    local alarm = sleepers[1]
    loop.stop_alarm(alarm)
    alarm:wake()
  end
  -- Whoever is made ready by these runs in the next round.
  local stop = last
  while first <= stop do
    local task = ready[first]
    ready[first] = nil
    first = first + 1
    loop.go_on(task)
  end
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
function loop.is_hopeful()
  return first <= last or futures.in_flight > 0 or first_deadline() ~= nil
end

loop.HOPELESS = "this waits for something that nothing is left to finish"

--- Runs the loop until `is_done` says so, or until a time. `is_alone` tells that no task is needed for that: such waiting may
--- be nested without an end.
function loop.drive(is_done, deadline, is_alone)
  local is_too_deep = nesting >= DEEPEST
  if is_too_deep and not is_alone then
    local message = "tasks block inside of each other deeper than %d times, where only calls and sleeps can be waited for"
    raise(native.failure("Invalid", message:format(DEEPEST)))
  end
  local was_stepping, running, was_too_deep = loop.is_stepping, loop.running, loop.is_too_deep
  nesting, loop.is_too_deep = nesting + 1, is_too_deep
  local round = is_too_deep and listen or step
  local ok, e = pcall(function()
    while not is_done() do
      local left = deadline and deadline - now()
      if left and left <= 0 then return end
      if not left and not loop.is_hopeful() then raise(native.failure("Cancelled", loop.HOPELESS)) end
      round(left)
    end
  end)
  nesting, loop.is_too_deep = nesting - 1, was_too_deep
  loop.is_stepping, loop.running = was_stepping, running
  if nesting == 0 then call_back() end
  if not ok then raise(e) end
end

--- One round for a host.
function loop.poll(timeout)
  local ok, e = pcall(step, timeout)
  loop.is_stepping, loop.running = false, nil
  call_back()
  if not ok then raise(e) end
end

--- The descriptor that a host waits for.
function loop.fd()
  has_host = true
  local fd = native.fd()
  call_back()
  return fd
end

return loop

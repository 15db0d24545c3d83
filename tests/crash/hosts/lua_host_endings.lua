-- Processes that end in every way from every place: what they said to have written is there, nothing else is, the status is
-- the one they asked for, and stderr has nothing that should not be there.
local kit = require "lua_host_kit"

local CHILDREN = 13

local PLACES = {
  "main", "coroutine", "modify", "transact", "nested", "iterate", "explicit", "finalizer", "metamethod", "handler", "hook", "sort",
  "tasks", "futures",
}
if _VERSION == "Lua 5.4" then PLACES[#PLACES + 1] = "closing" end

local MEANS = {
  "exit", "exit_closing", "raise", "raise_nil", "raise_table", "raise_ours", "raise_untold", "kill", "killed", "interrupted",
  "terminated", "starve", "pass",
}

local SETTINGS = { "plain", "plain", "normal", "uncached", "exclusive", "journal" }

-- Where a callback that comes back raises, so that nothing of it is written.
local GIVES_UP = { modify = true, transact = true, nested = true, metamethod = true }

-- Lua's own interpreter stops at the next instruction of its first coroutine that is not a hook.
local INTERRUPTIBLE = {
  main = true, modify = true, transact = true, iterate = true, explicit = true, sort = true, metamethod = true,
}

local SIGNALS = { killed = "KILL", interrupted = "INT", terminated = "TERM" }

local function fits(place, means)
  -- Closing Lua from one of its own finalizers is an error of the script, in every Lua.
  if place == "finalizer" then return means ~= "exit_closing" and means ~= "interrupted" end
  if means == "interrupted" then return INTERRUPTIBLE[place] end
  return true
end

--- What a shell may see of the end.
local function statuses(place, means, seed)
  local code = seed % 100
  if means == "exit" or means == "exit_closing" then return { [code] = true } end
  if means == "kill" or means == "killed" then return { [137] = true } end
  if means == "terminated" then return { [143] = true } end
  -- Rust aborts where it gets no memory.
  if means == "starve" then return { [0] = true, [1] = true, [134] = true } end
  if means == "pass" then return { [GIVES_UP[place] and 1 or 0] = true } end
  -- An error in a finalizer is a warning in 5.4, one of the collector in the others; in a handler it ends the handler.
  if place == "finalizer" then return { [0] = true, [1] = true } end
  if place == "handler" then return { [0] = true } end
  return { [1] = true }
end

local function must_be_quiet(place, means, text)
  if text:find("panicked", 1, true) or text:find("Panic", 1, true) then error("stderr: " .. text, 0) end
  if means == "starve" then return end
  local silent = means:find("^exit") or means:find("^kill") or means == "terminated" or means == "pass" and not GIVES_UP[place]
  if silent and text ~= "" then error("stderr: " .. text, 0) end
  local word = ({ raise = "the end of " .. place, interrupted = "interrupted!", pass = "the callback came back" })[means]
  if word and not silent and place ~= "finalizer" and place ~= "handler" and not text:find(word, 1, true) then
    error("stderr lacks '" .. word .. "': " .. text, 0)
  end
end

local function run(folder, ledger, random, place, means)
  local seed = random.below(1000000)
  local settings = random.one(SETTINGS)
  local apart = settings == "exclusive" or settings == "journal"
  if apart then ledger:close() end
  local signal, acknowledged = SIGNALS[means], 0
  local enough = random.below(12)
  local scene = ("%s/%s/%s"):format(place, signal and "storm" or means, settings)
  local where = ("%s, child seed %d"):format(scene, seed)
  local status, text = kit.child(scene, seed, folder, function(line, pid)
    local what, key, value = line:match("^(%a+) (%S+) (%S+)$")
    if what == "try" then
      ledger:attempted(key, value)
    elseif what == "ack" then
      ledger:acknowledged(key, value)
      acknowledged = acknowledged + 1
      if signal and acknowledged == enough then os.execute(("kill -%s %s"):format(signal, pid)) end
    else
      error(where .. ": the child said " .. line, 0)
    end
  end, means == "starve" and "ulimit -v 160000;")
  if not statuses(place, means, seed)[status] then
    error(("%s: status %s, stderr: %s"):format(where, tostring(status), text), 0)
  end
  local ok, e = pcall(must_be_quiet, place, means, text)
  if not ok then error(where .. ": " .. e, 0) end
  ledger:check(where)
  return acknowledged
end

return function(folder, random, count)
  local ledger = kit.ledger(folder .. "/store.db")
  local first = random.below(#MEANS)
  for child = 1, CHILDREN do
    -- Every means in turn, from places at random.
    local means, place = MEANS[(first + child) % #MEANS + 1], random.one(PLACES)
    while not fits(place, means) do place = random.one(PLACES) end
    count("acknowledged by processes that ended", run(folder, ledger, random, place, means))
    count("ends of processes")
  end
  ledger:close()
end

-- The Lua worker of the storm; storm.py tells what it reads and says.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local root = here .. "/../../.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
package.cpath = root .. "/build/lua/" .. _VERSION:match("%d+%.%d+") .. "/?.so;" .. package.cpath

local State = require "llmspell_state"
local unpack = table.unpack or unpack
io.stdout:setvbuf("full")
--- Changes that a watch takes at a time.
local FOLLOWED = 40
--- The whole log is looked at afterwards.
local KEEP_ALL = { max_versions = State.null, max_age = State.null }

--- One write a line: what was told before the process dies is told whole.
local function say(line)
  io.write(line, "\n")
  io.flush()
end

local function filled(tag, size)
  local pad = tonumber(size)
  local unit = tag:rep(math.floor(pad / #tag) + 1)
  if pad >= 4000 then
    local squares = {}
    for n = 0, pad - 1 do
      squares[n + 1] = string.format("%.0f", n * n)
    end
    unit = table.concat(squares)
  end
  return { tag = tag, pad = unit:sub(1, pad) }
end

local path, settings, state, shared, name

local function open()
  state = State.open(path, settings)
  shared = state:scope("shared")
end

local DO = {}

function DO.set(own, key, tag, size) return own:set(key, filled(tag, size)) end

function DO.many(own, tag, size, ...)
  local values = {}
  for _, key in ipairs { ... } do values[key] = filled(tag, size) end
  return own:set_many(values)
end

function DO.both(_, tag, size, first, second, gone, by)
  return state:transaction(function(all)
    local mine = all:scope(name)
    mine:set(first, filled(tag, size))
    mine:delete(gone)
    local count = all:scope("shared"):increment("counter", tonumber(by))
    mine:set(second, filled(tag, size))
    return count
  end)
end

function DO.trim(_, key, tag)
  state:transaction(function(all)
    all:scope("shared"):set("list", State.array {})
    all:scope(name):set(key, filled(tag, "0"))
  end)
  return "-"
end

function DO.modify(_, tag)
  return shared:modify("modified", function(old) return { tag = tag, n = old.n + 1 } end, { n = 0 }).n
end

function DO.increment(_, by) return shared:increment("counter", tonumber(by)) end
function DO.append(_, tag) return shared:append("list", tag) end

function DO.merge(_, member, tag)
  shared:merge("merged", { [member] = tag })
  return "-"
end

function DO.delete(own, key) return own:delete(key) and 1 or 0 end
function DO.clear(own, pattern) return own:clear(pattern) end
function DO.child(own, inner, key, tag) return own:scope(inner):set(key, filled(tag, "0")) end

function DO.follow(own)
  local watch = own:watch { since = 0, name = "w" }
  for _ = 1, FOLLOWED do
    if watch:next(0) == nil then break end
  end
  watch:save()
  watch:close()
  return own:named_watches().w
end

function DO.reopen()
  state:close()
  open()
  return "-"
end

local function words_of(line)
  local words = {}
  for word in line:gmatch("%S+") do words[#words + 1] = word end
  return words
end

local function main()
  local script = assert(io.open(arg[1]))
  local first = words_of(script:read())
  path, settings = first[2], { retention = KEEP_ALL }
  for index = 3, #first do
    local setting, value = first[index]:match("^([%w_]+)=(.*)$")
    if value == "true" or value == "false" then settings[setting] = value == "true"
    else settings[setting] = tonumber(value) or value end
  end
  open()
  say "o"
  for line in script:lines() do
    local words = words_of(line)
    local slot = words[1]
    name = "s" .. slot
    say("a " .. slot)
    local result = DO[words[2]](state:scope(name), unpack(words, 3))
    say(("k %s %s"):format(slot, type(result) == "number" and ("%.0f"):format(result) or result))
  end
  state:close()
  say "e"
end

local ok, failure = xpcall(main, function(e) return type(e) == "table" and e or debug.traceback(e) end)
if not ok then
  local text = type(failure) == "table" and ("%s: %s"):format(failure.kind, failure.message) or failure
  say("x " .. text:gsub("\n", " "))
  os.exit(1)
end

-- The Lua side of the tests across languages: obeys one command a line and answers with JSON. See peer.py.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local root = here .. "/../.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path
package.cpath = root .. "/build/lua/" .. _VERSION:match("%d+%.%d+") .. "/?.so;" .. package.cpath

local State = require "llmspell_state"
local unpack = table.unpack or unpack
local ARRAY = getmetatable(State.array {})

local deep = State.array {}
for _ = 1, 127 do deep = State.array { deep } end

local KINDS = {
  null = State.null,
  ["true"] = true,
  ["false"] = false,
  zero = 0,
  int = -7,
  big = 9007199254740992,
  float = 0.1,
  huge = 1.7976931348623157e308,
  tiny = 5e-324,
  minus_zero = -1 / math.huge, -- Lua 5.1 takes a written -0.0 for the constant 0
  text = "a\195\169\230\151\165\240\159\152\128\0\n\"\\",
  empty_text = "",
  binary = "\255\0\254\128",
  array = { 1, "two", State.null, { true } },
  empty_array = State.array {},
  object = { a = { b = { {} } }, ["\195\169"] = State.null, [""] = 1 },
  empty_object = {},
  dollar = { ["$binary"] = "AAE=", ["$set"] = 1 },
  deep = deep,
}

local function hex(text)
  return (text:gsub(".", function(sign) return ("%02x"):format(sign:byte()) end))
end

--- Whether a string has bytes that no UTF-8 text has; enough for the values of these tests.
local function is_binary(text)
  return text:find("[\192\193\245-\255]") ~= nil
end

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(sign) return ("\\u%04x"):format(sign:byte()) end) .. '"'
end

local function is_whole(number)
  if math.type then return math.type(number) == "integer" end
  return number == math.floor(number) and math.abs(number) <= 2 ^ 53 and 1 / number ~= -math.huge
end

--- Any Lua value as JSON; keys in any order.
local function json(value)
  if type(value) == "string" then return quoted(value) end
  if type(value) == "number" then return ("%.17g"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for _, item in ipairs(value) do parts[#parts + 1] = json(item) end
  if #parts > 0 or getmetatable(value) == ARRAY or value.is_list then return "[" .. table.concat(parts, ",") .. "]" end
  for key, member in pairs(value) do parts[#parts + 1] = quoted(key) .. ":" .. json(member) end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- A value as `{kind, …}`, the same in every language: text and bytes as hexadecimal digits.
local function describe(value)
  if value == State.null then return { "null" } end
  if type(value) == "boolean" then return { "bool", value } end
  if type(value) == "number" then
    if is_whole(value) then return { "int", ("%.0f"):format(value) } end
    return { "float", ("%.17g"):format(value) }
  end
  if type(value) == "string" then return { is_binary(value) and "binary" or "text", hex(value) } end
  local parts = {}
  if getmetatable(value) == ARRAY then
    for index, item in ipairs(value) do parts[index] = describe(item) end
    parts.is_list = true
    return { "array", parts }
  end
  for key, member in pairs(value) do parts[hex(key)] = describe(member) end
  return { "object", parts }
end

local state
local COMMANDS = {}

function COMMANDS.open(path, options)
  local settings = {}
  for name, value in options:gmatch('"([%w_]+)": *"?([%w_]+)"?') do
    settings[name] = value == "true" or value ~= "false" and (tonumber(value) or value)
  end
  state = State.open(path, settings)
  return "ok"
end

function COMMANDS.count(verb, times)
  local key = "counter:" .. verb
  for _ = 1, tonumber(times) do
    if verb == "increment" then state:increment(key)
    elseif verb == "modify" then state:modify(key, function(old) return old + 1 end, 0)
    else state:transact(function(tx) tx:set(key, tx:get(key, 0) + 1) end) end
  end
  return "ok"
end

function COMMANDS.set(key, number) return state:set(key, tonumber(number)) end
function COMMANDS.get(key) return state:get(key, "missing") end

function COMMANDS.write(prefix)
  for kind, value in pairs(KINDS) do state:set(prefix .. ":" .. kind, value) end
  return "ok"
end

function COMMANDS.read(prefix)
  local found = {}
  for key, value in state:items(prefix .. ":*") do found[key] = describe(value) end
  return found
end

function COMMANDS.scoped(name, key, number) return state:scope(name):set(key, tonumber(number)) end
COMMANDS["in"] = function(name, key) return state:scope(name):get(key, "missing") end
function COMMANDS.scopes() return State.array(state:scopes()) end
function COMMANDS.delete(key) return state:delete(key) end

function COMMANDS.keys()
  local keys = State.array {}
  for key in state:keys() do keys[#keys + 1] = key end
  return keys
end

function COMMANDS.close()
  state:close()
  return "ok"
end

for line in io.lines() do
  local words = {}
  for word in (line .. "\t"):gmatch("([^\t]*)\t") do words[#words + 1] = word end
  local ok, answer = pcall(COMMANDS[words[1]], unpack(words, 2))
  if not ok then
    if type(answer) ~= "table" then error(answer, 0) end
    answer = { error = answer.kind, message = answer.message }
  end
  io.write(json(answer), "\n")
  io.flush()
end

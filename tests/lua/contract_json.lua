-- Reads the JSON files of the contract; a reader of its own, since the module's is what they test.
local State = require "llmspell_state"

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function utf8_bytes(code)
  if code < 0x80 then return string.char(code) end
  local lead, bytes = 0xC0, {}
  local limit = 0x20
  repeat
    table.insert(bytes, 1, string.char(0x80 + code % 64))
    code = math.floor(code / 64)
    if code >= limit then lead, limit = lead + limit, limit / 2 end
  until code < limit
  return string.char(math.floor(lead + code)) .. table.concat(bytes)
end

local function read_text(text, at)
  local parts = {}
  while true do
    local plain, stop = text:match('^([^"\\]*)()', at)
    parts[#parts + 1] = plain
    if text:sub(stop, stop) == '"' then return table.concat(parts), stop + 1 end
    local sign = text:sub(stop + 1, stop + 1)
    at = stop + 2
    if sign ~= "u" then
      parts[#parts + 1] = ESCAPES[sign] or sign
    else
      local code = tonumber(text:sub(at, at + 3), 16)
      at = at + 4
      if code >= 0xD800 and code < 0xDC00 then
        local low = tonumber(text:match("^\\u(%x%x%x%x)", at), 16)
        code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)
        at = at + 6
      end
      parts[#parts + 1] = utf8_bytes(code)
    end
  end
end

local read_value

local function read_parts(text, at, close, read_part)
  at = text:match("^%s*()", at)
  while text:sub(at, at) ~= close do
    at = text:match("^%s*,?%s*()", read_part(at))
  end
  return at + 1
end

function read_value(text, at)
  at = text:match("^%s*()", at)
  local first = text:sub(at, at)
  if first == '"' then return read_text(text, at + 1) end
  if first == "[" then
    local items, count = {}, 0
    local stop = read_parts(text, at + 1, "]", function(place)
      count = count + 1
      items[count], place = read_value(text, place)
      return place
    end)
    return State.array(items), stop
  elseif first == "{" then
    local members = {}
    local stop = read_parts(text, at + 1, "}", function(place)
      local key
      key, place = read_text(text, place + 1)
      members[key], place = read_value(text, text:match("^%s*:()", place))
      return place
    end)
    return members, stop
  end
  local word, stop = text:match("^([%w+.-]+)()", at)
  if word == "null" then return State.null, stop end
  if word == "true" then return true, stop end
  if word == "false" then return false, stop end
  return assert(tonumber(word), "no JSON value at byte " .. at), stop
end

return function(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return (read_value(text, 1))
end

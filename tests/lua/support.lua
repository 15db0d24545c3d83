-- What the tests share.
local State = require "llmspell_state"

local support = {}

support.has_integers = math.type ~= nil

--- A fresh folder, and the path of a store in it.
function support.folder()
  local name = os.tmpname()
  os.remove(name)
  assert(os.execute("mkdir " .. name))
  return name
end

function support.remove(folder)
  os.execute("rm -rf " .. folder)
end

--- Calls `test` with the path of a fresh folder, and removes it whatever happens.
function support.with_folder(test)
  local folder = support.folder()
  local ok, e = pcall(test, folder)
  support.remove(folder)
  if not ok then error(e, 0) end
end

function support.write_file(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

function support.read_file(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

--- Runs a program in a process of its own, in the interpreter and with the modules of this one. Answers its status as the
--- shell tells it, and all that it said.
function support.child(program)
  local status, said
  support.with_folder(function(folder)
    local paths = ("package.path, package.cpath = %q, %q "):format(package.path, package.cpath)
    support.write_file(folder .. "/program.lua", paths .. program)
    local pipe = assert(io.popen(("timeout 60 %s %s/program.lua 2>&1; echo status $?"):format(arg[-1], folder)))
    local text = pipe:read("*a")
    pipe:close()
    said, status = text:match("^(.*)status (%d+)\n$")
  end)
  return tonumber(status), said
end

local function show(value)
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end

--- Deep equality; integers and floats differ where Lua tells them apart.
local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b and (not math.type or math.type(a) == math.type(b))
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return getmetatable(a) == getmetatable(b) or next(a) ~= nil
end
support.same = same

function support.equal(got, expected)
  if not same(got, expected) then error("got " .. show(got) .. ", expected " .. show(expected), 2) end
end

--- The error of a call that must fail with `kind` and a message that has every one of the words.
function support.fails(kind, words, f, ...)
  local ok, e = pcall(f, ...)
  if ok then error("it did not fail with " .. kind, 2) end
  if type(e) ~= "table" then error("failed with " .. show(e) .. ", expected " .. kind, 2) end
  if e.kind ~= kind then error("failed with " .. tostring(e) .. ", expected " .. kind, 2) end
  for _, word in ipairs(type(words) == "table" and words or { words }) do
    if not e.message:find(word, 1, true) then error(("%q is not in: %s"):format(word, e.message), 2) end
  end
  return e
end

--- A store in memory with some values.
function support.state(values)
  local state = State.open()
  if values then state:set_many(values) end
  return state
end

--- All that an iterator gives: one list of keys, and one of values.
function support.collect(iterator)
  local keys, values = {}, {}
  for key, value in iterator do
    keys[#keys + 1], values[#values + 1] = key, value
  end
  return keys, values
end

--- The bytes of a store's file in which the page of byte `at` has no check, as another SQLite would have written it.
function support.without_check(bytes, at)
  local page = math.floor((at - 1) / 4096) * 4096
  return bytes:sub(1, page + 4088) .. ("\0"):rep(8) .. bytes:sub(page + 4097)
end

--- Skips the rest of a test where the language cannot do it.
support.unpack = table.unpack or unpack

return support

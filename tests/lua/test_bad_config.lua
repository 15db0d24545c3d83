local State = require "llmspell_state"
local support = require "support"
local equal, fails, with_folder = support.equal, support.fails, support.with_folder

local function is_root()
  local pipe = io.popen("id -u")
  local id = pipe:read("*l")
  pipe:close()
  return id == "0"
end

local tests = {}

tests["36 a path that is empty, a directory, a FIFO, a device"] = function()
  with_folder(function(folder)
    fails("Invalid", {}, State.open, "")
    fails("Invalid", folder, State.open, folder)
    os.execute("mkfifo " .. folder .. "/fifo")
    fails("Invalid", "fifo", State.open, folder .. "/fifo")
    fails("Invalid", "/dev/null", State.open, "/dev/null")
    fails("Invalid", {}, State.open, folder .. "/a\0b")
  end)
end

tests["36 a missing file that must not be made"] = function()
  with_folder(function(folder)
    fails("NotFound", "a.db", State.open, folder .. "/a.db", { create = false })
  end)
end

tests["37 a missing parent directory, made only when asked for"] = function()
  with_folder(function(folder)
    fails("Invalid", "create_dirs", State.open, folder .. "/x/y/a.db")
    local state = State.open(folder .. "/x/y/a.db", { create_dirs = true })
    state:set("k", 1)
    state:close()
  end)
end

tests["38 a file that may not be read"] = function()
  if is_root() then return end
  with_folder(function(folder)
    State.open(folder .. "/a.db"):close()
    os.execute("chmod 000 " .. folder .. "/a.db")
    fails("PermissionDenied", "a.db", State.open, folder .. "/a.db")
  end)
end

tests["39 a file that is not a store stays as it is"] = function()
  with_folder(function(folder)
    for n, bytes in ipairs { "hello world, this is a text of more than sixteen bytes", "x", ("\0"):rep(8192) } do
      local path = folder .. "/file" .. n
      support.write_file(path, bytes)
      fails("UnknownFormat", "file" .. n, State.open, path)
      equal(support.read_file(path), bytes)
    end
  end)
end

tests["41 a store of a newer version stays as it is"] = function()
  with_folder(function(folder)
    local path = folder .. "/a.db"
    local state = State.open(path)
    state:set("k", 1)
    state:close()
    -- The format number is SQLite's user_version: 4 bytes at offset 60 of the file.
    local bytes = support.read_file(path)
    local newer = support.without_check(bytes:sub(1, 60) .. "\0\0\3\232" .. bytes:sub(65), 61)
    support.write_file(path, newer)
    fails("UnknownFormat", "1000", State.open, path)
    equal(support.read_file(path), newer)
  end)
end

tests["42 links"] = function()
  with_folder(function(folder)
    local path = folder .. "/a.db"
    State.open(path):close()
    os.execute(("ln -s %s %s/symbolic && ln %s %s/hard"):format(path, folder, path, folder))
    fails("Invalid", "symbolic", State.open, folder .. "/symbolic")
    fails("Invalid", "link", State.open, folder .. "/hard")
    fails("Invalid", "link", State.open, path)
  end)
end

tests["45 settings that are unknown, of the wrong type, or out of range"] = function()
  fails("Invalid", { "sync_mod", "'sync_mode'" }, State.open, { sync_mod = "FULL" })
  fails("Invalid", "cache_size_mb", State.open, { cache_size_mb = -1 })
  fails("Invalid", "cache_size_mb", State.open, { cache_size_mb = 1e18 })
  fails("Invalid", "sync_mode", State.open, { sync_mode = "sometimes" })
  fails("Invalid", "max_value_bytes", State.open, { max_value_bytes = 0 })
  fails("Invalid", "exclusive", State.open, { exclusive = "yes" })
  fails("Invalid", "exclusive", State.open, { exclusive = print })
  fails("Invalid", "named", State.open, { "a.db" })
  fails("Invalid", "bad argument #1 to 'open'", State.open, 5)
  fails("Invalid", "bad argument #2 to 'open'", State.open, "a.db", "FULL")
end

tests["whole floats are whole numbers, as 128 / 2 is in Lua 5.3"] = function()
  local state = State.open { cache_size_mb = 128 / 2, busy_timeout_ms = 1e3, max_value_bytes = 2 ^ 20 }
  state:set("k", 1)
  equal(state:get("k"), 1)
  fails("Invalid", { "'cache_size_mb' takes a whole number of at least 0, not 1.5" }, State.open, { cache_size_mb = 3 / 2 })
  fails("Invalid", { "'cache_size_mb' takes", "not -64" }, State.open, { cache_size_mb = -128 / 2 })
  fails("Invalid", { "'exclusive' takes true or false, not 1" }, State.open, { exclusive = 1 })
end

tests["46 settings that contradict each other"] = function()
  with_folder(function(folder)
    fails("Invalid", { "enable_wal", "exclusive" }, State.open, folder .. "/a.db", { enable_wal = false })
    State.open(folder .. "/a.db", { enable_wal = false, exclusive = true }):close()
  end)
end

tests["every setting is taken"] = function()
  with_folder(function(folder)
    local state = State.open(folder .. "/a.db", {
      enable_wal = true, sync_mode = "NORMAL", cache_size_mb = 1, enable_compression = false, exclusive = true,
      create = true, create_dirs = true, max_value_bytes = 1000, busy_timeout_ms = 100,
    })
    state:set("k", 1)
    state:close()
    state = State.open { persistence_path = folder .. "/a.db", cache_size_mb = 0 }
    equal(state:get("k"), 1)
    state:close()
  end)
end

tests["53 the same file opened twice in one process is one store; other settings are refused"] = function()
  with_folder(function(folder)
    local path = folder .. "/a.db"
    local one, two = State.open(path), State.open(folder .. "/./a.db")
    one:set("k", 1)
    equal(two:get("k"), 1)
    equal(one:store_id(), two:store_id())
    fails("Invalid", {}, State.open, path, { sync_mode = "NORMAL" })
    one:close()
    equal(two:get("k"), 1)
    fails("Closed", {}, one.get, one, "k")
    two:close()
  end)
end

tests["53 a store that another process has to itself is busy"] = function()
  with_folder(function(folder)
    local path = folder .. "/a.db"
    local state = State.open(path, { exclusive = true })
    local here = arg[0]:match("^(.*)/[^/]*$") or "."
    local program = ([[package.path, package.cpath = %q, %q
      local ok, e = pcall(require("llmspell_state").open, %q, { busy_timeout_ms = 50 })
      print(ok, e.kind)]]):format(package.path, package.cpath, path)
    support.write_file(folder .. "/other.lua", program)
    local interpreter = arg[-1] or here
    local pipe = io.popen(interpreter .. " " .. folder .. "/other.lua 2>&1")
    local said = pipe:read("*a")
    pipe:close()
    equal(said, "false\tBusy\n")
    state:close()
  end)
end

return tests

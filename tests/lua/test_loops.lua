-- Tasks and futures in the loops of hosts. Each runs in a process of its own, since a loop belongs to a process.
local support = require "support"

local tests = {}

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local work = [[
  local State = require "llmspell_state"
  local state = State.open()
  local function write_all()
    local list = {}
    for n = 1, 200 do list[n] = function() state:set("k" .. n, n) State.sleep(0.001) return state:get("k" .. n) end end
    local got = State.gather(list)
    for n = 1, 200 do assert(got[n] == n) end
    return state:count(), "all"
  end
]]

--- Whether this Lua has a module; says so where it has not.
local function has(name)
  local found = pcall(require, name)
  if not found then print(("skipped: %s has no module '%s'"):format(_VERSION, name)) end
  return found
end

--- Runs a program that must print "fine" in the end.
local function runs(program)
  local status, said = support.child(work .. program)
  assert(status == 0 and said:find("fine\n$"), tostring(status) .. ": " .. said)
end

tests["luv runs tasks beside its own timers"] = function()
  if not has "luv" then return end
  runs [[
    local uv, loop = require "luv", require "llmspell_state.loops.luv"
    local ticks, ticker = 0, uv.new_timer()
    ticker:start(1, 1, function() ticks = ticks + 1 end)
    local count, word = loop.run(write_all)
    assert(count == 200 and word == "all")
    ticker:stop()
    assert(ticks > 0, "the loop stood still")
    local ok, e = pcall(loop.run, function() error("in the task", 0) end)
    assert(not ok and e:find("in the task", 1, true), e)
    ok, e = pcall(loop.run, function()
      State.spawn(function() error("of nobody", 0) end)
      State.sleep(0.05)
    end)
    assert(not ok and e:find("of nobody", 1, true), e)
    -- A program with a loop of its own; a task waits for what the loop does.
    local attached = loop.attach()
    local answer = State.future()
    local timer = uv.new_timer()
    timer:start(5, 0, function() timer:close() answer:resolve("from the loop") end)
    local got
    State.spawn(function()
      state:transaction(function(tx)
        tx:set("answer", answer:await())
      end)
      got = state:get("answer")
      ticker:close()
      attached.stop()
    end)
    uv.run()
    assert(got == "from the loop")
    print "fine"
  ]]
end

tests["cqueues: its coroutines wait by yielding to it"] = function()
  if not has "cqueues" then return end
  runs [[
    local cqueues, loop = require "cqueues", require "llmspell_state.loops.cqueues"
    local count, word = loop.run(write_all)
    assert(count == 200 and word == "all")
    local controller = cqueues.new()
    local attached = loop.attach(controller)
    local left, most, under_way = 100, 0, 0
    for n = 1, 100 do
      controller:wrap(function()
        under_way = under_way + 1
        most = math.max(most, under_way)
        state:set("c" .. n, n)
        assert(state:increment("c" .. n) == n + 1)
        state:transaction(function(tx) tx:set("t" .. n, tx:get("c" .. n)) end)
        State.sleep(0.001)
        assert(state:modify("t" .. n, function(t) return t + 1 end) == n + 2)
        under_way = under_way - 1
        left = left - 1
        if left == 0 then attached.stop() end
      end)
    end
    assert(controller:loop())
    assert(left == 0 and most > 1, "they did not overlap")
    print "fine"
  ]]
end

tests["copas: its threads wait by yielding to it"] = function()
  if not has "copas" then return end
  runs [[
    local copas, loop = require "copas", require "llmspell_state.loops.copas"
    local attached = loop.attach()
    local left, most, under_way = 50, 0, 0
    for n = 1, 50 do
      copas.addthread(loop.wrap(function()
        under_way = under_way + 1
        most = math.max(most, under_way)
        state:set("c" .. n, n)
        assert(state:increment("c" .. n) == n + 1)
        under_way = under_way - 1
        left = left - 1
      end))
    end
    local task = State.spawn(write_all)
    while left > 0 or not task:done() do copas.step(1) end
    assert(most > 1, "they did not overlap")
    assert(task:join() == 250)
    attached.stop()
    print "fine"
  ]]
end

tests["copas: sleeps and timeouts of its threads let the others go on"] = function()
  if not has "copas" then return end
  runs [[
    local copas, loop = require "copas", require "llmspell_state.loops.copas"
    local attached = loop.attach()
    local order, value = {}, nil
    copas.addthread(loop.wrap(function()
      State.sleep(0.03)
      order[#order + 1] = "slow"
    end))
    copas.addthread(loop.wrap(function()
      value = State.timeout(20, function() State.sleep(0.01) return state:set("k", 1) end)
      order[#order + 1] = "timed"
    end))
    copas.addthread(loop.wrap(function()
      State.sleep(0)
      order[#order + 1] = "quick"
      attached.stop()
    end))
    while #order < 3 do copas.step(1) end
    assert(table.concat(order, " ") == "quick timed slow" and value == 1, table.concat(order, " "))
    print "fine"
  ]]
end

tests["Neovim runs tasks in its own loop"] = function()
  if not rawget(_G, "jit") then return end
  if os.execute("command -v nvim >/dev/null") ~= 0 then
    print("skipped: nvim is not installed")
    return
  end
  support.with_folder(function(folder)
    local paths = ("package.path, package.cpath = %q, %q "):format(package.path, package.cpath)
    support.write_file(folder .. "/program.lua", paths .. work .. [[
      local loop = require "llmspell_state.loops.nvim"
      local ok, e = xpcall(function()
        local count, word = loop.run(write_all)
        assert(count == 200 and word == "all")
        local got
        State.spawn(function()
          state:set("k", vim.fn.toupper("text"))
          got = state:get("k")
        end)
        assert(vim.wait(20000, function() return got end))
        assert(got == "TEXT")
      end, debug.traceback)
      io.stdout:write(ok and "fine\n" or e .. "\n")
      vim.cmd(ok and "qall!" or "cquit!")
    ]])
    local pipe = assert(io.popen(("cd %s && timeout 60 nvim --headless -u NONE -i NONE -c 'luafile %s/program.lua' 2>&1"):format(
      here .. "/../..", folder)))
    local said = pipe:read("*a")
    pipe:close()
    assert(said:find("fine", 1, true), said)
  end)
end

tests["a host that polls the descriptor gets sleeps and calls in time"] = function()
  if not has "luv" then return end
  runs [[
    local uv = require "luv"
    local poll = uv.new_poll(State.fd())
    local rings = 0
    poll:start("r", function()
      rings = rings + 1
      if not State.poll() then poll:close() end
    end)
    local order = {}
    State.spawn(function() State.sleep(0.03) order[#order + 1] = "late" end)
    State.spawn(function() State.sleep(0.01) order[#order + 1] = "early" state:set("k", 1) end)
    uv.run()
    assert(order[1] == "early" and order[2] == "late")
    assert(rings < 50, "the descriptor rang for nothing: " .. rings)
    print "fine"
  ]]
end

tests["a watch in a coroutine of cqueues lets the others go on"] = function()
  if not has "cqueues" then return end
  runs [[
    local cqueues, loop = require "cqueues", require "llmspell_state.loops.cqueues"
    local got, order = nil, {}
    loop.run(function()
      local watch = state:watch("k*")
      assert(watch:next(0.001) == nil)
      cqueues.running():wrap(function()
        cqueues.sleep(0.01)
        order[#order + 1] = "set"
        state:set("k1", 1)
      end)
      got = watch:next(20)
      order[#order + 1] = "got"
    end)
    assert(got.key == "k1" and table.concat(order, " ") == "set got", table.concat(order, " "))
    print "fine"
  ]]
end

tests["an error of a callback does not keep cqueues from answering the others"] = function()
  if not has "cqueues" then return end
  runs [[
    local cqueues, loop = require "cqueues", require "llmspell_state.loops.cqueues"
    local controller, told, done = cqueues.new(), nil, false
    local attached = loop.attach(controller)
    controller:wrap(function()
      state:set_async("a", 1):on_done(function() error("of a callback", 0) end)
      cqueues.sleep(0.02)
      state:set("b", 2)
      done = true
      attached.stop()
    end)
    while not controller:empty() do
      local ok, e = controller:loop()
      if not ok then told = tostring(e) end
    end
    assert(done and told:find("of a callback", 1, true), told)
    print "fine"
  ]]
end

return tests

local State = require "llmspell_state"
local support = require "support"
local equal, fails, state_with = support.equal, support.fails, support.state

local tests = {}

tests["a transaction commits at the end and answers what the function returned"] = function()
  local state = state_with { a = 100, b = 0 }
  local first, second, third = state:transaction(function(tx)
    tx:set("a", tx:get("a") - 30)
    tx:set("b", tx:get("b") + 30)
    equal(state:get("a"), 100)
    return "done", nil, 3
  end)
  equal({ first, second, third }, { "done", nil, 3 })
  equal(state:get("a"), 70)
  equal(state:get("b"), 30)
end

tests["an error rolls back and comes out unchanged"] = function()
  local state, mine = state_with { a = 1 }, {}
  for _, verb in ipairs { "transaction", "transact" } do
    local ok, e = pcall(state[verb], state, function(tx)
      tx:set("a", 2)
      error(mine)
    end)
    equal(ok, false)
    assert(e == mine)
  end
  equal(state:get("a"), 1)
  local ok, e = pcall(state.transact, state, function() error("text", 0) end)
  equal({ ok, e }, { false, "text" })
  ok, e = pcall(state.transact, state, function() error() end)
  equal({ ok, e }, { false, nil })
end

tests["a conflict runs the function again"] = function()
  local state, runs = state_with { n = 1 }, 0
  state:transaction(function(tx)
    runs = runs + 1
    local n = tx:get("n")
    if runs == 1 then state:set("n", 10) end
    tx:set("n", n + 1)
  end)
  equal(runs, 2)
  equal(state:get("n"), 11)
end

tests["attempts bound how often it runs"] = function()
  local state, runs = state_with { n = 1 }, 0
  local function never(tx)
    runs = runs + 1
    tx:get("n")
    state:increment("n")
    tx:set("n", 0)
  end
  fails("Conflict", {}, state.transact, state, never, { attempts = 3 })
  equal(runs, 3)
  equal(state:get("n"), 4)
  fails("Invalid", "1 or more", state.transact, state, never, { attempts = 0 })
  fails("Invalid", "'attempts'", state.transact, state, never, { attempts = "3" })
  fails("Invalid", "unknown option 'tries'", state.transact, state, never, { tries = 3 })
end

tests["a conflict that the function itself gets runs it again"] = function()
  local state, runs = State.open(), 0
  state:transact(function(tx)
    runs = runs + 1
    if runs == 1 then state:set("k", 1, { if_version = 99 }) end
    tx:set("done", true)
  end)
  equal(runs, 2)
end

tests["the explicit form commits, or rolls back, and then is finished"] = function()
  local state = state_with { a = 1 }
  local tx = state:transaction()
  tx:set("a", 2)
  equal(tx:get("a"), 2)
  equal(state:get("a"), 1)
  equal(tostring(tx), "Transaction (active)")
  local version = tx:commit()
  equal(state:entry("a").version, version)
  equal(tostring(tx), "Transaction (finished)")
  tx = state:transaction()
  tx:set("a", 3)
  tx:rollback()
  equal(state:get("a"), 2)
end

tests["using a finished transaction is an error: get, set, commit twice, rollback after commit"] = function()
  local state = state_with { a = 1 }
  local tx = state:transaction()
  tx:commit()
  for _, call in ipairs {
    { tx.get, "a" }, { tx.set, "a", 2 }, { tx.delete, "a" }, { tx.keys }, { tx.count }, { tx.commit }, { tx.modify, "a", print },
    { tx.increment, "a" }, { tx.append, "a", 1 }, { tx.merge, "a", {} }, { tx.get_many, { "a" } }, { tx.set_many, { a = 1 } },
  } do
    fails("Closed", {}, call[1], tx, call[2], call[3])
  end
  equal(state:get("a"), 1)
end

tests["the transaction of a function that ended is finished"] = function()
  local state, kept = State.open(), nil
  state:transaction(function(tx)
    kept = tx
    tx:set("a", 1)
  end)
  fails("Closed", {}, kept.set, kept, "a", 2)
  pcall(state.transaction, state, function(tx)
    kept = tx
    error("x")
  end)
  fails("Closed", {}, kept.get, kept, "a")
end

tests["read-modify-write across two transactions conflicts and loses nothing"] = function()
  local state = state_with { balance = 100 }
  local one, two = state:transaction(), state:transaction()
  one:set("balance", one:get("balance") - 10)
  two:set("balance", two:get("balance") - 20)
  one:commit()
  local e = fails("Conflict", {}, two.commit, two)
  equal(e.kind, "Conflict")
  equal(state:get("balance"), 90)
end

tests["reads stay at the snapshot and see own writes"] = function()
  local state = state_with { a = 1, b = 2 }
  local tx = state:transaction()
  equal(tx:get("a"), 1)
  state:set("a", 10)
  state:set("c", 3)
  equal(tx:get("a"), 1)
  tx:set("d", 4)
  tx:delete("b")
  equal(table.concat(support.collect(tx:keys()), " "), "a d")
  equal(tx:count(), 2)
  equal(#tx, 2)
  equal(tx:entry("d").version, 0)
end

tests["every verb works inside"] = function()
  local state = state_with { n = 1, list = { 1 }, object = { a = 1 }, gone = 1, x1 = 1, x2 = 1 }
  local nothing, modified, missing = state:transaction(function(tx)
    local count = select("#", tx:set("s", 1))
    equal(select("#", tx:set_many { t = 1 }), 0)
    equal(tx:increment("n", 4), 5)
    equal(tx:append("list", 2), 2)
    equal(tx:merge("object", { b = 2 }).a, 1)
    equal(tx:delete("gone"), true)
    equal(tx:clear("x*"), 2)
    equal(tx:exists("x1"), false)
    equal(tx:get_many({ "s", "n" }).n, 5)
    local new = tx:modify("m", function(m) return m .. "!" end, "hello")
    tx:scope("inner"):set("k", "v")
    for key, value in tx:items("s") do equal({ key, value }, { "s", 1 }) end
    return count, new, tx:get("missing", "default")
  end)
  equal({ nothing, modified, missing }, { 0, "hello!", "default" })
  equal(state:scope("inner"):get("k"), "v")
  equal(state:get("n"), 5)
end

tests["scopes have transactions too"] = function()
  local scope = State.open():scope("a")
  scope:transaction(function(tx) tx:set("k", 1) end)
  equal(scope:get("k"), 1)
end

tests["a transaction within a transaction is one of its own"] = function()
  local state = State.open()
  state:transaction(function(outer)
    outer:set("outer", 1)
    state:transaction(function(inner) inner:set("inner", 1) end)
    equal(state:get("inner"), 1)
    equal(state:get("outer"), nil)
  end)
  equal(state:get("outer"), 1)
end

tests["a forgotten transaction leaves the writer free"] = function()
  local state = State.open()
  for n = 1, 100 do
    state:transaction():set("k", n)
  end
  collectgarbage()
  state:set("k", "free")
  equal(state:get("k"), "free")
end

tests["too many changes are refused before anything is written"] = function()
  local state = State.open()
  local tx = state:transaction()
  local _, e = pcall(function()
    for n = 1, 100001 do tx:set("k" .. n, n) end
    tx:commit()
  end)
  equal(e.kind, "QuotaExceeded")
  equal(state:count(), 0)
end

tests["closing the store ends its transactions"] = function()
  local state = State.open()
  local tx = state:transaction()
  tx:set("k", 1)
  state:close()
  fails("Closed", {}, tx.get, tx, "k")
  fails("Closed", {}, tx.commit, tx)
end

tests["yielding out of a function is a Lua error"] = function()
  local state = State.open()
  local thread = coroutine.create(function()
    state:transaction(function(tx)
      tx:set("k", 1)
      coroutine.yield()
    end)
  end)
  local ok, e = coroutine.resume(thread)
  equal(ok, false)
  assert(tostring(e):find("yield", 1, true), tostring(e))
  equal(state:get("k"), nil)
end

tests["<close> rolls back unless committed"] = function()
  if _VERSION ~= "Lua 5.4" then return end
  local run = assert(load([[
    local state = ...
    do
      local tx <close> = state:transaction()
      tx:set("lost", 1)
    end
    do
      local tx <close> = state:transaction()
      tx:set("kept", 1)
      tx:commit()
    end
    do
      local tx <close> = state:transaction()
      tx:rollback()
    end
  ]]))
  local state = State.open()
  run(state)
  equal(state:get("lost"), nil)
  equal(state:get("kept"), 1)
end

return tests

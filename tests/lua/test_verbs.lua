local State = require "llmspell_state"
local support = require "support"
local equal, fails, state_with = support.equal, support.fails, support.state

local tests = {}

tests["get answers nil or the default for a missing key only"] = function()
  local state = state_with { null = State.null, no = false }
  equal(state:get("missing"), nil)
  equal(state:get("missing", "default"), "default")
  equal(select("#", state:get("missing")), 1)
  equal(state:get("null", "default"), State.null)
  equal(state:get("no", true), false)
end

tests["set answers the version, which grows by one per commit"] = function()
  local state = State.open()
  local first = state:set("a", 1)
  equal(state:set("b", 2), first + 1)
  equal(state:set_many { c = 1, d = 2 }, first + 2)
  equal(state:entry("d").version, state:entry("c").version)
  equal(state:version(), first + 2)
end

tests["compare-and-set lets exactly the expected version through"] = function()
  local state = State.open()
  local version = state:set("k", 1, { if_version = 0 })
  fails("Conflict", "k", state.set, state, "k", 2, { if_version = 0 })
  equal(state:get("k"), 1)
  version = state:set("k", 2, { if_version = version })
  fails("Conflict", {}, state.delete, state, "k", { if_version = version - 1 })
  equal(state:delete("k", { if_version = version }), true)
end

tests["an entry tells version and times in seconds"] = function()
  local state = State.open()
  local version = state:set("k", { 1 })
  local entry = state:entry("k")
  equal(entry.value[1], 1)
  equal(entry.version, version)
  assert(math.abs(entry.created - os.time()) < 10 and entry.updated >= entry.created)
  equal(entry.expires, nil)
  equal(state:entry("missing"), nil)
end

tests["get_many answers what is there, by key"] = function()
  local state = state_with { a = 1, b = State.null }
  local got = state:get_many { "a", "b", "missing", "a" }
  equal(got.a, 1)
  equal(got.b, State.null)
  equal(got.missing, nil)
  equal(next(state:get_many {}), nil)
end

tests["set_many is one commit of everything or nothing"] = function()
  local state = state_with { a = 1 }
  fails("Invalid", "$.b.c", state.set_many, state, { a = 2, b = { c = print } })
  fails("Invalid", "key", state.set_many, state, { "item" })
  equal(state:get("a"), 1)
  equal(state:exists("b"), false)
end

tests["delete says whether it was there, clear how many"] = function()
  local state = state_with { a1 = 1, a2 = 2, b = 3 }
  equal(state:delete("b"), true)
  equal(state:delete("b"), false)
  equal(state:clear("a*"), 2)
  state:set("c", 1)
  equal(state:clear(), 1)
  equal(#state, 0)
end

tests["exists and count"] = function()
  local state = state_with { a1 = 1, a2 = State.null, b = 3 }
  equal(state:exists("a2"), true)
  equal(state:exists("z"), false)
  equal(state:count(), 3)
  equal(state:count("a?"), 2)
  equal(#state, 3)
end

tests["modify gives the current value, or the default, and answers the new one"] = function()
  local state = State.open()
  equal(state:modify("n", function(n) return n + 1 end, 10), 11)
  equal(state:modify("n", function(n) return n + 1 end, 10), 12)
  equal(state:modify("list", function(list)
    equal(list, nil)
    return { "x" }
  end)[1], "x")
end

tests["modify runs again when another writer was faster, with a fresh default"] = function()
  local state, runs, default = State.open(), 0, { n = 0 }
  local new = state:modify("k", function(value)
    runs = runs + 1
    value.n = value.n + 1
    if runs == 1 then state:set("k", { n = 100 }) end
    return value
  end, default)
  equal(new.n, 101)
  equal(default.n, 0)
  equal(runs, 2)
end

tests["modify refuses to store nothing"] = function()
  local state = state_with { k = 1 }
  fails("Invalid", { "State.null", "delete" }, state.modify, state, "k", function() end)
  fails("Invalid", "$.f", state.modify, state, "k", function() return { f = print } end)
  equal(state:get("k"), 1)
end

tests["increment starts at 0, adds 1 unless told otherwise, and keeps integers"] = function()
  local state = State.open()
  equal(state:increment("n"), 1)
  equal(state:increment("n", 41), 42)
  equal(state:increment("n", -2), 40)
  equal(state:increment("n", 0.5), 40.5)
end

tests["append answers the length"] = function()
  local state = State.open()
  equal(state:append("list", "a"), 1)
  equal(state:append("list", { b = 1 }), 2)
  equal(state:get("list")[2].b, 1)
end

tests["merge follows RFC 7386 and answers the merged value"] = function()
  local state = state_with { k = { a = "b", c = { d = "e", f = "g" } } }
  local merged = state:merge("k", { a = "z", c = { f = State.null } })
  equal(merged.a, "z")
  equal(merged.c.d, "e")
  equal(merged.c.f, nil)
  equal(state:get("k"), merged)
end

tests["a scope's keys are its own"] = function()
  local state = state_with { k = 1 }
  local a, b = state:scope("a"), state:scope("a"):scope("b")
  a:set("k", 2)
  b:set("k", 3)
  equal({ state:get("k"), a:get("k"), b:get("k") }, { 1, 2, 3 })
  equal(state:count(), 1)
  equal(table.concat(state:scopes(), ","), "a")
  equal(table.concat(a:scopes(), ","), "b")
  equal(getmetatable(b:scopes()), getmetatable(State.array()))
  a:clear()
  equal(b:get("k"), 3)
  equal(tostring(b), "Scope (b)")
end

tests["handles of scopes do nothing for the store"] = function()
  local scope = State.open():scope("a")
  equal(scope.close, nil)
  equal(scope.store_id, nil)
  equal(scope.version, nil)
end

return tests

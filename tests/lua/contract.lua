-- Runs every case of tests/spec, each in memory and on a file, and once more in a task and by futures:
-- `lua5.4 tests/lua/contract.lua [word]` runs those whose name has the word. The language of the cases is in tests/spec/README.md.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
local root = here .. "/../.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. here .. "/?.lua;" .. package.path
package.cpath = root .. "/build/lua/" .. _VERSION:match("%d+%.%d+") .. "/?.so;" .. package.cpath

local State = require "llmspell_state"
local awaited = require "contract_futures"
local read_json = require "contract_json"

local RUNNER = rawget(_G, "jit") and "luajit" or _VERSION:lower():gsub(" ", "")
local SPEC = root .. "/tests/spec/"
local MISSING, END, OWN = { "missing" }, { "end" }, { "the callback's own error" }
local ARRAY = getmetatable(State.array {})
local unpack = table.unpack or unpack

--- How a case catches errors: in a task it must be able to wait meanwhile, which Lua 5.1 cannot in `pcall`.
local protected = pcall

local function protected_in_task(f, ...)
  local finished = State.future()
  State.spawn(f, ...):on_done(function(...) finished:resolve(...) end)
  return finished:await()
end

local function is_array(value)
  return type(value) == "table" and getmetatable(value) == ARRAY
end

local function wrong(...)
  error({ wrong = string.format(...) }, 0)
end

local function show(value)
  if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value):sub(1, 80) or tostring(value) end
  local parts = {}
  for key, member in pairs(value) do
    if #parts > 8 then break end
    parts[#parts + 1] = (type(key) == "string" and key .. "=" or "") .. show(member)
  end
  return (is_array(value) and "[" or "{") .. table.concat(parts, ", ") .. (is_array(value) and "]" or "}")
end

--- Equality in value and in type, as far as this Lua tells types apart; the sign of zero counts.
local function same(one, other)
  if type(one) ~= type(other) then return false end
  if type(one) == "number" then
    return one == other and (one ~= 0 or 1 / one == 1 / other) and (not math.type or math.type(one) == math.type(other))
  end
  if type(one) ~= "table" or one == other then return one == other end
  for key, member in pairs(one) do
    if not same(member, other[key]) then return false end
  end
  for key in pairs(other) do
    if one[key] == nil then return false end
  end
  return is_array(one) == is_array(other)
end

local function base64_bytes(text)
  local bits, count, bytes = 0, 0, {}
  for sign in text:gmatch("[%w+/]") do
    local digit = ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):find(sign, 1, true) - 1
    bits, count = bits * 64 + digit, count + 6
    if count >= 8 then
      count = count - 8
      local byte = math.floor(bits / 2 ^ count)
      bytes[#bytes + 1] = string.char(byte)
      bits = bits - byte * 2 ^ count
    end
  end
  return table.concat(bytes)
end

local function nest(levels, wrap, inner)
  for _ = 2, levels do inner = wrap(inner) end
  return inner
end

local function noise(length)
  local seed, letters = 1, {}
  for index = 1, length do
    seed = seed * 16807 % 2147483647
    letters[index] = string.char(97 + seed % 26)
  end
  return table.concat(letters)
end

--- Calls `each` with every numbered key and its number.
local function numbered(given, each)
  local prefix, from, to = given[1], given[2], given[3]
  for index = from <= to and from or from - 1, from <= to and to - 1 or to, from <= to and 1 or -1 do
    each(("%s%06d"):format(prefix, index), index)
  end
end

local FORMS = {
  ["$float"] = function(name) return ({ nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge })[name] end,
  ["$not_utf8"] = function() return "a\255" end,
  ["$missing"] = function() return MISSING end,
  ["$end"] = function() return END end,
  ["$repeat"] = function(given) return given[1]:rep(given[2]) end,
  ["$noise"] = noise,
  ["$nest"] = function(levels) return nest(levels, function(inner) return State.array { inner } end, State.array {}) end,
  ["$nest_objects"] = function(levels) return nest(levels, function(inner) return { a = inner } end, {}) end,
  ["$range"] = function(given)
    local items = {}
    for number = given[1], given[2] - 1 do items[#items + 1] = number end
    return State.array(items)
  end,
  ["$numbered"] = function(given)
    local keys = {}
    numbered(given, function(key) keys[#keys + 1] = key end)
    return State.array(keys)
  end,
  ["$table"] = function(given)
    local members = {}
    numbered(given, function(key, index) members[key] = index end)
    return members
  end,
  ["$pairs"] = function(given)
    local items = {}
    numbered(given, function(key, index) items[#items + 1] = State.array { key, index } end)
    return State.array(items)
  end,
}

local Run = {}
Run.__index = Run

function Run:open(more)
  local settings = {}
  for _, from in ipairs { self.settings, self:expand(more) } do
    for name, value in pairs(from) do settings[name] = value end
  end
  if settings.persistence_path == State.null then settings.persistence_path = nil end
  return self.wrap(State.open(settings))
end

--- The value that a piece of a case stands for. Binary is read as a plain string, so that is what is `expected`.
function Run:expand(value, expected)
  if type(value) ~= "table" then return value end
  local form, argument = next(value)
  if is_array(value) or type(form) ~= "string" or form:sub(1, 1) ~= "$" or next(value, form) ~= nil then
    local members = {}
    for key, member in pairs(value) do members[key] = self:expand(member, expected) end
    return is_array(value) and State.array(members) or members
  end
  if form == "$binary" then
    local bytes = base64_bytes(argument)
    return expected and bytes or State.binary(bytes)
  elseif form == "$saved" then
    return is_array(argument) and self.saved[argument[1]] + argument[2] or self.saved[argument]
  elseif form == "$path" then
    return self.directory .. "/" .. argument
  elseif form == "$object" then
    local members = {}
    for _, pair in ipairs(argument) do members[pair[1]] = self:expand(pair[2], expected) end
    return members
  end
  return (FORMS[form] or wrong("no form %s", form))(argument)
end

--- A result as the cases write it.
local function result(value)
  if value == nil then return MISSING end
  return value
end

local function collect(step, f, state, control)
  local items = {}
  for key, value in f, state, control do
    items[#items + 1] = step == "items" and State.array { key, value } or key
  end
  return State.array(items)
end

local VERBS = {}

for _, verb in ipairs { "exists", "get_many", "clear", "count", "increment", "append", "merge", "scopes", "commit",
  "rollback", "close", "verify", "named_watches", "forget_watch", "revert" } do
  VERBS[verb] = function(_, handle, given) return handle[verb](handle, unpack(given)) end
end
for _, verb in ipairs { "set", "set_many", "delete" } do
  VERBS[verb] = function(_, handle, given, options)
    if next(options) then given[#given + 1] = options end
    return handle[verb](handle, unpack(given))
  end
end
for _, verb in ipairs { "keys", "items" } do
  VERBS[verb] = function(_, handle, given, options)
    if next(options) == nil then return collect(verb, handle[verb](handle, given[1])) end
    options.pattern = given[1]
    return collect(verb, handle[verb](handle, options))
  end
end

function VERBS.get(_, handle, given, options)
  if options.default == nil then return handle:get(given[1]) end
  return handle:get(given[1], options.default)
end

function VERBS.entry(_, handle, given)
  local entry = handle:entry(given[1])
  if entry == nil then return nil end
  return { value = entry.value, version = entry.version, created = entry.created, updated = entry.updated,
    expires = result(entry.expires) }
end

function VERBS.scope(run, handle, given, options)
  run.handles[options.as or "_"] = handle:scope(given[1])
end

function VERBS.begin(run, handle, _, options)
  run.handles[options.as] = handle:transaction()
end

function VERBS.iterate(run, handle, given, options)
  local verb, name = given[1], options.as
  options.as, options.pattern = nil, given[2]
  run.handles[name] = { verb = verb, handle[verb](handle, options) }
end

function VERBS.next(_, iterator)
  local key, value = iterator[1](iterator[2], iterator[3])
  iterator[3] = key
  if key == nil then return END end
  return iterator.verb == "items" and State.array { key, value } or key
end

function VERBS.rest(_, iterator)
  return collect(iterator.verb, iterator[1], iterator[2], iterator[3])
end

function VERBS.modify(run, handle, given, options)
  local name, first, second = unpack(given[2])
  local calls = 0
  return handle:modify(given[1], function(value)
    calls = calls + 1
    if name == "race" and calls == 1 then run.handles.state:increment(given[1], 100) end
    if name == "add" or name == "race" then return (value or 0) + first end
    if name == "replace" then return first end
    if name == "fail" then error(OWN, 0) end
    if name == "push" then value[#value + 1] = first
    elseif name == "put" then value[first] = second
    else wrong("no function %s", name) end
    return value
  end, options.default)
end

function VERBS.transact(run, handle, given, options)
  local outer, name = run.round, options.as
  run.round = 0
  local function work(transaction)
    run.round = run.round + 1
    run.handles[name] = transaction
    return run:steps(given[1])
  end
  local answers = { protected(handle.transact, handle, work, options.attempts and { attempts = options.attempts } or nil) }
  run.round = outer
  if not answers[1] then error(answers[2], 0) end
  return answers[2]
end

function VERBS.watch(run, handle, given, options)
  local name = options.as or "_"
  options.as = nil
  if next(options) == nil then
    run.handles[name] = handle:watch(given[1])
  else
    options.pattern = given[1]
    run.handles[name] = handle:watch(options)
  end
end

function VERBS.next_change(_, watch, _, options)
  local change = watch:next((options.timeout or 10000) / 1000)
  if change == nil then return END end
  for _, name in ipairs { "value", "old", "actor", "run", "reason" } do change[name] = result(change[name]) end
  return change
end

function VERBS.changes(_, watch)
  local changes = {}
  for change in function() return watch:next(0.05) end do
    local value, old = result(change.value), result(change.old)
    changes[#changes + 1] = State.array { change.key, change.operation, value, old, change.ends_commit }
  end
  return State.array(changes)
end

function VERBS.as_run(run, handle, _, options)
  local name = options.as
  options.as = nil
  run.handles[name] = handle:as_run(options)
end

function VERBS.history(_, handle, given, options)
  local revisions = State.array {}
  for index, revision in ipairs(handle:history(given[1], next(options) and options)) do
    revisions[index] = State.array { revision.operation, result(revision.value) }
  end
  return revisions
end

function VERBS.revision(_, handle, given)
  local revision = handle:history(given[1])[given[2] + 1]
  for _, name in ipairs { "value", "actor", "run", "reason" } do revision[name] = result(revision[name]) end
  return revision
end

function VERBS.at(run, handle, given, options)
  run.handles[options.as] = handle:at(given[1])
end

function VERBS.diff(_, handle, given, options)
  local differences = State.array {}
  for difference in handle:diff(given[1], given[2], options.pattern) do
    differences[#differences + 1] = State.array { difference.key, result(difference.old), result(difference.new) }
  end
  return differences
end

function VERBS.revert_to(_, handle, given, options) return handle:revert_to(given[1], options.pattern) end

function VERBS.undo(_, handle, _, options)
  local undone = handle:undo(options)
  for index, refused in ipairs(undone.refused) do undone.refused[index] = State.array { refused.scope, refused.key } end
  return undone
end

function VERBS.save_watch(_, watch) return watch:save() end

function VERBS.close_watch(_, watch) return watch:close() end

function VERBS.fail() error(OWN, 0) end

function VERBS.open(run, _, given, options)
  run.handles[options.as or "_"] = run:open(given[1])
end

function VERBS.reopen(run, handle, given)
  handle:close()
  run.handles.state = run:open(given[1] or {})
end

function VERBS.shell(run, _, given)
  local status = os.execute("cd " .. run.directory .. " && " .. given[1])
  if status ~= true and status ~= 0 then wrong("%s: %s", given[1], tostring(status)) end
end

function VERBS.wait(_, _, given) State.sleep(given[1] / 1000) end

require "contract_keeping"(VERBS, { result = result, wrong = wrong, OWN = OWN })

local function has(list, name)
  for _, item in ipairs(list) do
    if item == name then return true end
  end
  return false
end

local VOCABULARY = read_json(SPEC .. "vocabulary.json")

function Run:steps(steps)
  local answer
  for _, step in ipairs(steps) do
    if not (step.once and self.round > 1) then answer = self:step(step) end
  end
  return answer
end

function Run:fits(verb, expected, answer)
  expected = self:expand(expected, true)
  local is_partial = has({ "entry", "verify", "next_change", "revision", "undo", "retention", "cleanup", "merge_from" }, verb)
  if not is_partial or expected == MISSING or answer == MISSING then return same(expected, answer) end
  for name, field in pairs(expected) do
    if not same(field, answer[name]) then return false end
  end
  return true
end

function Run:step(step)
  local verb
  for name in pairs(step) do
    if VOCABULARY.verbs[name] then
      if verb then wrong("%s has two verbs", show(step)) end
      verb = name
    end
  end
  local rules = VOCABULARY.verbs[verb] or wrong("%s has no verb", show(step))
  for name in pairs(step) do
    if name ~= verb and not has(VOCABULARY.fields, name) and not has(rules.options, name) then
      wrong("'%s' has no field '%s'", verb, name)
    end
  end
  if #step[verb] < rules.takes[1] or #step[verb] > rules.takes[2] then wrong("%s: number of arguments", show(step)) end

  local ok, answer = protected(self.call, self, verb, step, rules)
  if step.raises then
    if ok then wrong("%s gave %s", show(step), show(answer)) end
    local kind = answer == OWN and "own" or type(answer) == "table" and answer.kind
    if not kind then error(answer, 0) end
    if kind ~= step.raises then wrong("%s raised %s", show(step), tostring(answer)) end
    for _, part in ipairs(type(step.message_has) == "string" and { step.message_has } or step.message_has or {}) do
      if not answer.message:find(part, 1, true) then wrong("%s: no %s in %s", show(step), part, answer.message) end
    end
    return nil
  end
  if not ok then error(answer, 0) end
  if step.returns ~= nil and not self:fits(verb, step.returns, answer) then wrong("%s gave %s", show(step), show(answer)) end
  if step.differs ~= nil and self:fits(verb, step.differs, answer) then wrong("%s gave %s", show(step), show(answer)) end
  for field, name in pairs(type(step.save) == "table" and step.save or {}) do self.saved[name] = answer[field] end
  if type(step.save) == "string" then self.saved[step.save] = answer end
  return answer
end

function Run:call(verb, step, rules)
  local handle = self.handles[step.on or "state"] or wrong("no handle %s", step.on)
  for _, name in ipairs(step["in"] or {}) do handle = handle:scope(name) end
  local options = {}
  for _, name in ipairs(rules.options) do options[name] = self:expand(step[name]) end
  local given = verb == "transact" and step[verb] or self:expand(step[verb])
  return result(VERBS[verb](self, handle, given, options))
end

local function run_case(case, on_file, surface)
  local directory = os.tmpname()
  os.remove(directory)
  os.execute("mkdir " .. directory)
  local run = setmetatable({ directory = directory, settings = {}, saved = {}, handles = {}, round = 1 }, Run)
  run.wrap = surface == "futures" and awaited or function(state) return state end
  for name, value in pairs(case.config or {}) do run.settings[name] = value end
  if on_file then run.settings.persistence_path = directory .. "/store.db" end
  local function work()
    run.handles.state = run:open {}
    run:steps(case.steps)
  end
  protected = surface == "tasks" and protected_in_task or pcall
  local ok, e = xpcall(function() if surface == "tasks" then State.run(work) else work() end end, function(e)
    if type(e) == "table" then return e.wrong or e.kind and tostring(e) or show(e) end
    return debug.traceback(tostring(e))
  end)
  if run.handles.state then run.handles.state:close() end
  os.execute("rm -rf " .. directory)
  return ok, e
end

local passed, failed, skipped = 0, 0, 0
local listing = io.popen("ls " .. SPEC)
for file in listing:lines() do
  for _, case in ipairs(file:match("%.json$") and file ~= "vocabulary.json" and read_json(SPEC .. file) or {}) do
    for field in pairs(case) do assert(has(VOCABULARY.case, field), case.name .. ": no field " .. field) end
    if case.skip_in and case.skip_in[RUNNER] then
      skipped = skipped + 1
    elseif not arg[1] or case.name:find(arg[1], 1, true) then
      local ok = true
      local function try(store, surface)
        local fine, e = run_case(case, store == "file", surface)
        if not fine then print(("FAILED %s: %s (%s, %s)\n  %s"):format(file, case.name, store, surface, e)) end
        ok = ok and fine
      end
      if case.needs ~= "file" then try("memory", "methods") end
      try("file", "methods")
      try(case.needs or "memory", "tasks")
      try(case.needs or "memory", "futures")
      if ok then passed = passed + 1 else failed = failed + 1 end
    end
  end
end
listing:close()
print(("contract: %d cases passed, %d skipped in %s"):format(passed, skipped, RUNNER))
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0 and passed > 0 and 0 or 1)

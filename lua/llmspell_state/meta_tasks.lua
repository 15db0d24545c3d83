---@meta _

--- For editors (LuaLS) only: futures, tasks, and the functions of the module that make them.

---What something that is under way will come to. Every method `m` of a handle that may wait has a sister `m_async`, which
---begins at once and answers a future; `keys_async`, `items_async` and `diff_async` give whole lists (of keys; of
---`{ key, value }`; of differences).
---@class llmspell_state.Future
local Future = {}

---Waits for it, in a task by yielding, and answers its results or raises its error.
---@return any ...
function Future:await() end

---@return boolean
function Future:done() end

---Calls `call(true, results…)` or `call(false, e)` once it is finished, from whatever waits then (`await`, `run`, `poll`). What
---`call` raises comes out there.
---@param call fun(ok: boolean, ...: any)
---@return llmspell_state.Future self
function Future:on_done(call) end

---A future that the program finishes itself; made by `State.future()`.
---@class llmspell_state.Promise: llmspell_state.Future
local Promise = {}

---@param ... any results
---@return boolean first false when it was finished before
function Promise:resolve(...) end

---@param e any
---@return boolean first
function Promise:fail(e) end

---A function that runs in a coroutine of its own; made by `State.spawn`. In it the methods of handles yield instead of blocking.
---Where it must not yield (in 5.1 inside `pcall`, metamethods and iterators; everywhere inside `table.sort` and
---`string.gsub`, and in coroutines of the program's own) they block, and are right. What may take longer (`sleep`,
---`await`, `join`, a watch) has other tasks run meanwhile, which may block as well. From 16 inside of each other on it waits
---without them; waiting for a task, for a `State.future()` or for a watch without a timeout is `Invalid` there.
---@class llmspell_state.Task: llmspell_state.Future
local Task = {}

---As `await`. An error that is text has the traceback of the task behind it; others pass unchanged.
---@return any ...
function Task:join() end

---Ends the task with an error of kind `Cancelled` where it waits. A call of it that is under way may still take effect.
---@return boolean was_under_way
function Task:cancel() end

---The stack where the task failed, or waits.
---@return string
function Task:traceback() end

---@class llmspell_state
local module = {}

---Runs `f(...)` as a task, and everything it starts until all is done; answers what `f` returned. When `f` fails, the other
---tasks are cancelled. The error of a task that nobody has joined is raised at the end. Within a task: as `spawn(f, ...):join()`.
---@generic T
---@param f fun(...): T...
---@return T...
function module.run(f, ...) end

---Starts a task. It runs when the caller waits: in `run`, `await`, `join`, `poll` or the loop of a host.
---@param f fun(...)
---@return llmspell_state.Task
function module.spawn(f, ...) end

---Waits for all, and answers the first result of each; `task:join()` answers all of one. `gather` is for more than Lua takes as
---arguments.
---@param ... llmspell_state.Future|function
---@return any ...
function module.join(...) end

---Waits for all of a list, however long, and answers a list (with `n`) of the first result of each. A function is run as a task.
---The first error, in the order of the list, is raised once all are done.
---@param list (llmspell_state.Future|function)[]
---@return any[]
function module.gather(list) end

---Waits so long; in a task, others run meanwhile.
---@param seconds number
function module.sleep(seconds) end

---Runs `f(...)` as a task; what takes longer gets an error of kind `Cancelled`, which comes out here unless `f` catches it.
---@generic T
---@param seconds number
---@param f fun(...): T...
---@return T...
function module.timeout(seconds, f, ...) end

---A future for the program's own use: a task waits for it until a callback finishes it.
---@return llmspell_state.Promise
function module.future() end

---One round for a host with a loop of its own: waits at most so long, hands out what is done, runs the tasks that can go on.
---Raises the errors of callbacks and of tasks that nobody has joined. Adapters: `llmspell_state.loops.luv`, `.nvim`,
---`.cqueues`, `.copas`.
---@param timeout number? seconds; default 0
---@return boolean more whether tasks or calls are under way
function module.poll(timeout) end

---A descriptor that is readable when `poll` has something to do, sleeps included.
---@return integer
function module.fd() end

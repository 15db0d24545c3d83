-- The verbs of what is kept, how long, and in which copy. Adds them to VERBS; `language` is what contract.lua has for all verbs.
local State = require "llmspell_state"

return function(VERBS, language)
  local wrong = language.wrong

  for _, verb in ipairs { "default_ttl", "set_default_ttl", "retention", "set_retention", "usage", "cleanup" } do
    VERBS[verb] = function(_, handle, given) return handle[verb](handle, given[1]) end
  end

  function VERBS.touch(_, handle, given, options) return handle:touch(given[1], options.ttl) end

  function VERBS.fork(run, handle, given, options)
    run.handles[options.as] = handle:fork(given[1], given[2])
  end

  --- The functions that `resolve` knows, by key.
  local function resolver(answers)
    return function(conflict)
      local answer = answers[conflict.key]
      if answer == nil then return nil end
      if answer == "ours" then return State.ours end
      if answer == "theirs" then return State.theirs end
      if answer == "delete" then return State.deleted end
      if answer == "sum" then return (conflict.ours or 0) + (conflict.theirs or 0) + (conflict.base or 0) end
      if answer == "fail" then error(language.OWN, 0) end
      return wrong("no answer %s", answer)
    end
  end

  function VERBS.merge_from(run, handle, given, options)
    local merged = handle:merge_from(run.handles[given[1]], options.resolve and resolver(options.resolve))
    for index, left in ipairs(merged.conflicts) do merged.conflicts[index] = State.array { left.path, left.key } end
    return merged
  end
end

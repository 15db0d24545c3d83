rockspec_format = "3.0"
package = "llmspell-state"
version = "0.1.0-1"
source = {
  url = "git+https://github.com/llmspell/llmspell-state.git",
  tag = "v0.1.0",
}
description = {
  summary = "Durable, shared, transactional state for scripts that run language-model agents",
  detailed = [[
    One store, a SQLite file, that Lua, Python and Rust programs hold open at the same time.
    Building it needs a Rust toolchain; `luarocks make lua/llmspell-state-0.1.0-1.rockspec` from the project's folder.
  ]],
  homepage = "https://github.com/llmspell/llmspell-state",
  license = "MIT OR Apache-2.0",
}
supported_platforms = { "unix" }
dependencies = { "lua >= 5.1, ~= 5.2, < 5.5" }
build = {
  type = "command",
  build_command = "rm -rf build/rock && sh scripts/build-lua.sh --release --out build/rock $(LUA)",
  install_command = "install -D -m 644 build/rock/*/llmspell_state/native.so $(LIBDIR)/llmspell_state/native.so"
    .. " && for module in init meta meta_keeping meta_tasks futures loop tasks methods loops/luv loops/nvim loops/cqueues loops/copas; do"
    .. " install -D -m 644 lua/llmspell_state/$module.lua $(LUADIR)/llmspell_state/$module.lua || exit 1; done",
}

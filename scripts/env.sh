#!/usr/bin/env bash
# Prints shell code that puts what `make build` made on the paths of python and of every Lua.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)

# A path that is set already stays behind ours; `;;` is Lua's own default.
lua_version() {
    local variable=$1 version=$2
    cat <<EOF
export LUA_PATH$variable='$root/lua/?.lua;$root/lua/?/init.lua;'"\${LUA_PATH$variable:-\${LUA_PATH:-;;}}"
export LUA_CPATH$variable='$root/build/lua/$version/?.so;'"\${LUA_CPATH$variable:-\${LUA_CPATH:-;;}}"
EOF
}

echo "export VIRTUAL_ENV='$root/.venv'"
echo "export PATH='$root/.venv/bin':\"\$PATH\""
lua_version _5_4 5.4
lua_version _5_3 5.3
lua_version "" 5.1   # Lua 5.1 and LuaJIT know only the plain names, and load the same module

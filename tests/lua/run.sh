#!/bin/sh
# The Lua tests in every interpreter.
set -u
cd "$(dirname "$0")/../.."
status=0
for lua in lua5.4 lua5.3 lua5.1 luajit; do
    "$lua" tests/lua/run.lua "$@" || status=1
done
exit $status

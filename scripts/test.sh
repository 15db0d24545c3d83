#!/usr/bin/env bash
# Runs every suite, also after one has failed, and ends with each runner's own count. Fails when a suite failed or ran
# no test at all.
set -uo pipefail
cd "$(dirname "$0")/.."
eval "$(scripts/env.sh)"
logs=build/test
rm -rf "$logs" && mkdir -p "$logs"
lua_interpreters=(lua5.4 lua5.3 lua5.1 luajit)
suites=()
failed=()

# suite NAME COMMAND…: a name is also a file name.
suite() {
    local name=$1 log=$logs/$1.log
    shift
    suites+=("$name")
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log"
    [ "${PIPESTATUS[0]}" = 0 ] && [ -n "$(counts "$log")" ] || failed+=("$name")
}

# The runner's closing lines; a run of nothing has none.
counts() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | grep -E '(^|[^0-9])[1-9][0-9]* passed'
}

if command -v cargo-nextest >/dev/null; then
    nextest=(--no-fail-fast --hide-progress-bar --status-level fail)
    suite rust cargo nextest run --workspace --exclude llmspell-state-crash --exclude llmspell-state-fuzz "${nextest[@]}"
    suite rust-crash cargo nextest run -p llmspell-state-crash -p llmspell-state-fuzz "${nextest[@]}"
else
    suite rust cargo test --workspace --exclude llmspell-state-crash --exclude llmspell-state-fuzz --lib --bins --tests --no-fail-fast --quiet
    suite rust-crash cargo test -p llmspell-state-crash -p llmspell-state-fuzz --lib --bins --tests --no-fail-fast --quiet
fi
suite rust-doc cargo test --workspace --exclude llmspell-state-crash --exclude llmspell-state-fuzz --exclude llmspell-state-models --doc --quiet
suite python pytest -q tests/python
for lua in "${lua_interpreters[@]}"; do
    suite "lua-$lua" "$lua" tests/lua/run.lua
    suite "contract-$lua" "$lua" tests/lua/contract.lua
done
suite interop pytest -q tests/interop
suite examples pytest -q examples
suite crash scripts/crash.sh run small

printf '\n== summary\n'
for name in "${suites[@]}"; do
    { counts "$logs/$name.log" || echo "no test passed"; } | sed "s/^/$name: /"
done
if [ ${#failed[@]} -gt 0 ]; then
    # Whoever has only the end of this output shall see why.
    for name in "${failed[@]}"; do
        printf '\n== the end of %s\n' "$name"
        tail -n 40 "$logs/$name.log"
    done
    echo "failed: ${failed[*]}"
    exit 1
fi

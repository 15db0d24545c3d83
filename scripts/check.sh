#!/usr/bin/env bash
# Format, lints, types, stubs and documentation: every step, also after one has failed. Nothing here changes a file.
set -uo pipefail
cd "$(dirname "$0")/.."
eval "$(scripts/env.sh)"

failed=()

step() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$1 $2")
}

step cargo fmt --all --check
# Apart from the harness, which switches on hooks that the product does not have.
step cargo clippy --workspace --exclude llmspell-state-crash --exclude llmspell-state-fuzz --all-targets -- -D warnings
step cargo clippy -p llmspell-state-crash -p llmspell-state-fuzz --all-targets -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude llmspell-state-crash --exclude llmspell-state-fuzz --exclude llmspell-state-models --no-deps --quiet
step ruff format --check .
step ruff check .
step mypy
step stubtest llmspell_state --concise
step scripts/stubs.sh --check
if command -v luacheck >/dev/null; then
    step luacheck --quiet --no-color lua tests/lua tests/crash examples benches
else
    echo "luacheck is not installed (Debian: lua-check): the Lua sources were not linted"
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf '\nfailed: %s\n' "${failed[*]}"
    exit 1
fi

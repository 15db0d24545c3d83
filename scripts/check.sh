#!/usr/bin/env bash
# Format, lints, types, stubs and documentation; nothing here changes a file.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(scripts/env.sh)"

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --workspace --no-deps --quiet
step ruff format --check .
step ruff check .
step mypy
step stubtest llmspell_state --concise
if command -v luacheck >/dev/null; then
    step luacheck --quiet lua tests/lua examples benches
else
    echo "luacheck is not installed (Debian: lua-check): the Lua sources were not linted"
fi

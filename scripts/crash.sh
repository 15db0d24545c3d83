#!/usr/bin/env bash
# The crash harness; see tests/crash/src/main.rs for what it can be asked.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet -p llmspell-state-crash
exec "${CARGO_TARGET_DIR:-target}/debug/crash" "$@"

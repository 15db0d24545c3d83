#!/usr/bin/env bash
# The core's own tests of what is pure Rust under miri, which notices undefined behaviour. Where miri is not installed: the same tests
# under valgrind's memory checker, which sees what the compiled code does, SQLite's and zstd's code included.
set -euo pipefail
cd "$(dirname "$0")/.."

# What does without SQLite and zstd, whose C code miri cannot run.
pure=(key:: value:: config:: store::cache:: store::commit:: a_change_of_any_column a_forged_deletion)

if cargo miri --version >/dev/null 2>&1; then
    # proptest keeps failures in files, which needs the real system; miri is a hundred times as slow as the machine.
    MIRIFLAGS="-Zmiri-disable-isolation" PROPTEST_CASES=16 \
        cargo miri test -p llmspell-state-persistence --lib -- "${pure[@]}"
    exit
fi
command -v valgrind >/dev/null ||
    { echo "miri: neither miri (rustup component add miri, on nightly) nor valgrind is installed: nothing was run" >&2; exit 1; }
echo "miri is not installed; running the same tests under $(valgrind --version)"
binary=$(cargo test -p llmspell-state-persistence --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -n "$binary" ] || { echo "miri: the core's tests do not build" >&2; exit 1; }
# One test thread, since valgrind runs only one at a time anyway.
PROPTEST_CASES=16 valgrind --quiet --error-exitcode=9 --leak-check=no "$binary" --test-threads=1 "${pure[@]}"

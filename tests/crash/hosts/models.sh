#!/usr/bin/env bash
# The schedule models and the fuzz targets, as the driver runs them. In the small size only what the other suites do not run
# anyway: nothing, unless a bug is planted. The last line is a JSON object of counts.
set -euo pipefail
cd "$(dirname "$0")/../../.."
size=${CRASH_SIZE:-small} seed=${CRASH_SEED:-1} dir=${CRASH_DIR:-build/fuzz}

if [ "$size" = small ] && [ -z "${LLMSPELL_SABOTAGE:-}" ]; then
    echo '{"schedules": "the Rust suite runs the models and replays the corpora"}'
    exit
fi

# One at a time, or the numbers of several are mixed up in a line. A planted bug is for the models that have none of their own.
skip=()
[ -z "${LLMSPELL_SABOTAGE:-}" ] || skip=(--skip noticed)
log=$(cargo test --quiet -p llmspell-state-models --test models -- --nocapture --test-threads=1 "${skip[@]}" 2>&1) ||
    { tail -40 <<<"$log"; exit 1; }
schedules=$(grep -oE 'orders: [0-9]+' <<<"$log" | awk '{ sum += $2; n++ } END { print sum ", \"models\": " n }')
if [ "$size" = small ]; then
    echo "{\"schedules\": $schedules}"
    exit
fi
# What libFuzzer learns outlives the run.
tests/crash/fuzz/run.sh "${CRASH_FUZZ_SECONDS:-60}" "$seed" build/fuzz | tee "$dir/fuzz.log" >&2
fuzzed=$(tail -1 "$dir/fuzz.log")
echo "{\"schedules\": $schedules, ${fuzzed#\{}"

#!/usr/bin/env bash
# run.sh SECONDS SEED DIR [TARGET…]: runs every target, or those named, for that long each, guided by coverage where cargo-fuzz is
# installed (it needs no nightly compiler: RUSTC_BOOTSTRAP), by random changes elsewhere. What libFuzzer learns stays in
# DIR, so that the next call goes on there. The last line is a JSON object of counts.
#
# To keep what was learned: run.sh keep DIR [TARGET…] adds a choice of the inputs that are needed to cover as much.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
target_dir=$PWD/${CARGO_TARGET_DIR:-target}
guided=$target_dir/fuzz/x86_64-unknown-linux-gnu/release/guided

build_plain() {
    cargo build --quiet -p llmspell-state-fuzz
    plain=$target_dir/debug/fuzz
}

build_guided() {
    cp Cargo.lock "$here/libfuzzer/Cargo.lock"
    # No sanitizer: the code is safe Rust, and without one it runs several times as often.
    (cd "$here/libfuzzer" && RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir . --sanitizer none --target-dir "$target_dir/fuzz" guided) >&2
}

build_plain
if [ "$1" = keep ]; then
    dir=$2
    shift 2
    [ $# -gt 0 ] || set -- pattern value update row delta config
    build_guided
    for target in "$@"; do
        "$plain" unpack "$target" "$dir/$target"
        rm -rf "$dir/$target.smallest" && mkdir "$dir/$target.smallest"
        FUZZ_TARGET=$target "$guided" -merge=1 "$dir/$target.smallest" "$dir/$target" 2>/dev/null
        "$plain" pack "$target" "$dir/$target.smallest"
    done
    exit
fi

seconds=$1 seed=$2 dir=$3
shift 3
[ $# -gt 0 ] || set -- pattern value update row delta config
executions=0 kept=0
if cargo fuzz --version >/dev/null 2>&1; then
    build_guided
    mkdir -p "$dir"
    for target in "$@"; do
        "$plain" unpack "$target" "$dir/$target"
        log=$dir/$target.log
        if ! FUZZ_TARGET=$target "$guided" -max_total_time="$seconds" -seed="$((seed % 4294967295 + 1))" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
            -print_final_stats=1 -verbosity=1 -artifact_prefix="$dir/$target-" "$dir/$target" >"$log" 2>&1; then
            echo "$target, seed $seed: an input that fails is beside $log"
            tail -40 "$log"
            exit 1
        fi
        ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        executions=$((executions + ran))
        kept=$((kept + $(find "$dir/$target" -type f | wc -l)))
        echo "$target: $ran executions guided by coverage"
    done
    echo "{\"fuzz executions\": $executions, \"corpus entries\": $kept}"
else
    for target in "$@"; do
        line=$("$plain" mutate "$target" "$seconds" "$seed")
        echo "$line"
        ran=${line#*: }
        executions=$((executions + ${ran% executions}))
    done
    echo "{\"fuzz executions\": $executions, \"coverage\": \"cargo-fuzz is not installed: random changes only\"}"
fi

#!/bin/sh
# Builds the Lua module: build-lua.sh [--release] [--out DIR] [5.1 | 5.3 | 5.4 | an interpreter]...
# Every version unless some are named; LuaJIT loads the one for 5.1. Result: DIR/<version>/llmspell_state/native.so,
# with DIR = build/lua.
set -eu
cd "$(dirname "$0")/.."

profile=dev
folder=debug
out=build/lua
versions=
while [ $# -gt 0 ]; do
    case $1 in
        --release) profile=release folder=release ;;
        --out) out=$2 && shift ;;
        5.1 | 5.3 | 5.4) versions="$versions $1" ;;
        *) versions="$versions $("$1" -e 'io.write(_VERSION:match("%d+%.%d+"))')" ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}
for version in ${versions:-5.1 5.3 5.4}; do
    module=$out/$version/llmspell_state/native.so
    built_as=$out/$version/profile
    # All versions share one target folder, so that SQLite is compiled once; cargo would link anew at every change of version.
    if [ -f "$module" ] && [ "$(cat "$built_as" 2>/dev/null)" = "$profile" ] &&
        [ -z "$(find Cargo.toml Cargo.lock core/Cargo.toml core/src bindings/lua -newer "$module" -type f | head -n 1)" ]; then
        continue
    fi
    cargo build --quiet --profile "$profile" -p llmspell-state-lua --lib --no-default-features \
        --features "module,lua$(echo "$version" | tr -d .)"
    mkdir -p "$(dirname "$module")"
    # By a new name first: a process may have the old module loaded, and must keep its file.
    cp "$target/$folder/libllmspell_state_lua.so" "$module.new"
    mv "$module.new" "$module"
    echo "$profile" >"$built_as"
    echo "built $module ($profile)"
done

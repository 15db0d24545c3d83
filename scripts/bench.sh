#!/usr/bin/env bash
# Release builds, then every peer that this machine can install, then the measurement. Leaves the release builds in place;
# the next `make build` puts the usual ones back.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(scripts/env.sh)"

rm -f build/python.stamp build/lua.stamp
PIP_QUIET=1 maturin develop --release --quiet
scripts/build-lua.sh --release

while read -r peer; do
    case $peer in '' | '#'*) continue ;; esac
    pip install --quiet --disable-pip-version-check "$peer" || echo "bench: $peer cannot be installed; it is left out"
done <benches/requirements.txt

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server lua-cjson lua-sql-sqlite3 \
        >/dev/null || echo "bench: redis or the Lua peers cannot be installed; they are left out"
fi

# What was built is still on its way to the disk, for which every sync that is measured would wait.
sync
python benches
cargo bench --quiet -p llmspell-state-persistence --bench paths

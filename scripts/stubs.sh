#!/usr/bin/env bash
# Writes python/llmspell_state/_native.pyi from the compiled module; with --check only says whether it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
eval "$(scripts/env.sh)"

stub=python/llmspell_state/_native.pyi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

maturin generate-stubs --features stubs --profile dev --out "$made" --quiet
# What the generator leaves out: imports for the types that signatures give as text, and that instances of two of these
# classes cannot be one object.
sed -i -e '0,/^from /s//import asyncio\nimport collections.abc\nimport datetime\nimport os\nimport typing\nfrom typing_extensions import disjoint_base\nfrom /' \
    -e '/^@final/{n;b}' -e 's/^class /@disjoint_base\n&/' "$made/llmspell_state/_native.pyi"
if [ "${1:-}" = --check ]; then
    diff -u "$stub" "$made/llmspell_state/_native.pyi" || { echo "stubs: run scripts/stubs.sh" >&2; exit 1; }
else
    cp "$made/llmspell_state/_native.pyi" "$stub"
fi

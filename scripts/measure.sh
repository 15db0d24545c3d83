#!/usr/bin/env bash
# What is measured in Rust alone: a soak with retention, forks of large scopes. Prints the figures; quote them with the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --release -p llmspell-state-persistence --test merge --test soak -- --ignored --nocapture --test-threads 1 measured

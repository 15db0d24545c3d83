# Every habit is one command. From a fresh clone with Rust and Python: `make demo`, `make test`.
# What takes time leaves a stamp in build/, so a repeated call does only what changed.

MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON  := .venv/bin/python
ENV     := eval "$$(scripts/env.sh)" &&
RUST    := Cargo.toml Cargo.lock $(shell find core/src -name '*.rs') core/Cargo.toml
FOLDER  ?= .
HOURS   ?= 8

.PHONY: help setup build test test-crash test-crash-long reliability check format demo bench miri env clean

help: ## What can be asked for
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 18

setup: build/setup.stamp ## Python tools in .venv, Lua interpreters from the system's packages
build: build/python.stamp build/lua.stamp ## The Python package in .venv, the Lua modules in build/lua

build/setup.stamp: pyproject.toml scripts/setup.sh
	scripts/setup.sh
	@mkdir -p build && touch $@

build/python.stamp: build/setup.stamp $(RUST) $(shell find bindings/python -name '*.rs' -o -name '*.toml')
	$(ENV) PIP_QUIET=1 maturin develop --quiet
	@touch $@

build/lua.stamp: build/setup.stamp $(RUST) scripts/build-lua.sh $(shell find bindings/lua -name '*.rs' -o -name '*.toml')
	scripts/build-lua.sh
	@touch $@

test: build ## Every test in every language, ending with each runner's own count
	scripts/test.sh

test-crash: build ## Try to lose data for some minutes: kills, power cuts, faults, damage, races
	scripts/crash.sh run middle
	scripts/crash.sh sabotage

test-crash-long: build ## The same for HOURS, going on where the last call stopped
	scripts/crash.sh long $(HOURS)

reliability: ## RELIABILITY.md from what those runs have counted
	scripts/crash.sh report

check: build ## Format, lints, types, stubs, documentation
	scripts/check.sh

format: build/setup.stamp ## Lay out all sources
	cargo fmt --all
	$(ENV) ruff format . && ruff check --fix .

demo: build ## Index FOLDER's words with Python and Lua processes at once, killing some of them
	$(ENV) python examples/word_index --store build/word_index.db --fresh $(FOLDER)

bench: build/setup.stamp ## Measure against peers, release builds, into benches/RESULTS.md (BENCH_QUICK=1: minutes)
	scripts/bench.sh

miri: build/setup.stamp ## The core's pure Rust under miri, or under valgrind where there is no miri
	scripts/miri.sh

env: ## eval "$(make -s env)": then python, lua5.4, luajit, … find what was built
	@scripts/env.sh

clean: ## Remove everything that was built or installed here
	rm -rf build target .venv

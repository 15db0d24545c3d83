#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks: the Python tools of pyproject.toml's `dev` group
# into .venv, and the Lua interpreters through apt when it may.
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
    command -v "$1" >/dev/null || { echo "setup: $1 is missing; $2" >&2; exit 1; }
}
need cargo "install Rust 1.89 or newer"
need cc "install a C compiler (Debian: gcc): SQLite is compiled from source"
need python3 "install Python 3.10 or newer"

[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "setup: .venv has a Python older than 3.10; remove .venv and put a newer python3 first on PATH" >&2; exit 1; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'   # knows dependency groups
.venv/bin/python -m pip install --quiet --disable-pip-version-check --group dev

missing=()
for package in lua5.4 lua5.3 lua5.1 luajit; do
    command -v "$package" >/dev/null || missing+=("$package")
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    command -v luacheck >/dev/null || missing+=(lua-check)
    # Event loops that the Lua tests run tasks in; without them those tests are skipped.
    command -v nvim >/dev/null || missing+=(neovim)
    for package in lua-luv lua-cqueues lua-copas; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
elif [ ${#missing[@]} -gt 0 ]; then
    echo "setup: the tests need Lua interpreters that are missing here. As root: apt-get install ${missing[*]}" >&2
    exit 1
fi

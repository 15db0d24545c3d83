"""The Python worker of the storm: does what its script says, and tells of every operation before and after it.

The script is a file of lines with words between spaces; ``storm.lua`` and ``src/bin/storm.rs`` read the same:
``open PATH NAME=VALUE…``, ``peek N`` (look at the file with another SQLite before every Nth operation), then one
operation a line, as ``SLOT OPERATION WORDS…``. It answers ``o`` once the store is open, ``a SLOT`` before an operation,
``k SLOT RESULT`` after it, ``e`` after all, ``x TEXT`` when something failed.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmspell_state import Scope, State, Transaction

FOLLOWED = 40
"""Changes that a watch takes at a time."""
KEEP_ALL = {"max_versions": None, "max_age": None}
"""The whole log is looked at afterwards."""


def say(*words: object) -> None:
    # One write a line: what was told before the process dies is told whole.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def filled(tag: str, size: str) -> dict[str, str]:
    pad = int(size)
    unit = tag * (pad // len(tag) + 1) if pad < 4000 else "".join(str(n * n) for n in range(pad))
    return {"tag": tag, "pad": unit[:pad]}


class Worker:
    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.open()

    def open(self) -> None:
        self.state = State(self.path, retention=KEEP_ALL, **self.settings)
        self.shared = self.state.scope("shared")

    def set(self, own: Scope, key: str, tag: str, size: str) -> object:
        return own.set(key, filled(tag, size))

    def many(self, own: Scope, tag: str, size: str, *keys: str) -> object:
        return own.set_many({key: filled(tag, size) for key in keys})

    def both(self, own: Scope, tag: str, size: str, first: str, second: str, gone: str, by: str) -> object:
        def change(root: Transaction) -> Any:
            mine = root.scope(own.name)
            mine.set(first, filled(tag, size))
            mine.delete(gone)
            count = root.scope("shared").increment("counter", int(by))
            mine.set(second, filled(tag, size))
            return count

        return self.state.transact(change)

    def trim(self, own: Scope, key: str, tag: str) -> object:
        with self.state.transaction() as root:
            root.scope("shared").set("list", [])
            root.scope(own.name).set(key, filled(tag, "0"))
        return "-"

    def modify(self, _: Scope, tag: str) -> object:
        new = self.shared.modify("modified", lambda old: {"tag": tag, "n": old["n"] + 1}, {"n": 0})
        return new["n"]

    def increment(self, _: Scope, by: str) -> object:
        return self.shared.increment("counter", int(by))

    def append(self, _: Scope, tag: str) -> object:
        return self.shared.append("list", tag)

    def merge(self, _: Scope, member: str, tag: str) -> object:
        self.shared.merge("merged", {member: tag})
        return "-"

    def delete(self, own: Scope, key: str) -> object:
        return int(own.delete(key))

    def clear(self, own: Scope, pattern: str) -> object:
        return own.clear(pattern)

    def child(self, own: Scope, name: str, key: str, tag: str) -> object:
        return own.scope(name).set(key, filled(tag, "0"))

    def follow(self, own: Scope) -> object:
        with own.watch("*", 0, "w") as watch:
            for _ in range(FOLLOWED):
                if watch.next(0) is None:
                    break
            watch.save()
        return own.named_watches()["w"]

    def reopen(self, _: Scope) -> object:
        self.state.close()
        self.open()
        return "-"


def peek(path: str) -> None:
    """Opens and closes the store's file without our library, as a curious script would."""
    connection = sqlite3.connect(path)
    connection.execute("SELECT count(*) FROM entry").fetchone()
    connection.close()
    with Path(path).open("rb") as file:
        file.read(100)


def setting(text: str) -> Any:
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def main() -> None:
    lines = Path(sys.argv[1]).read_text().splitlines()
    _, path, *settings = lines.pop(0).split()
    every = int(lines.pop(0).split()[1]) if lines[0].startswith("peek ") else 0
    worker = Worker(path, {name: setting(value) for name, value in (pair.split("=") for pair in settings)})
    say("o")
    for number, line in enumerate(lines, 1):
        if every and number % every == 0:
            peek(path)
        slot, operation, *words = line.split()
        say("a", slot)
        do: Callable[..., object] = getattr(worker, operation)
        say("k", slot, do(worker.state.scope(f"s{slot}"), *words))
    worker.state.close()
    say("e")


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        say("x", f"{type(error).__name__}: {error}".replace("\n", " "))
        sys.exit(1)

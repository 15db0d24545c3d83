"""The Python worker of the stages that record histories: ``STAGE STORE OPTIONS ID SEED CALLS JOURNAL``.

It makes the calls that ``src/stages/linear/work.rs`` and ``src/stages/serial/work.rs`` make, and writes what it was
told as ``src/check/journal.rs`` reads it: a line for each call, and one more before each that may change something.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from time import monotonic_ns
from typing import Any

from llmspell_state import ConflictError, Scope, State, Transaction

NAMES = ["r0", "r1", "r2", "r3", "c0", "c1"]
COUNTERS = 4
KEYS = ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
SUMS = ["n0", "n1"]
KEEP_ALL = {"max_versions": None, "max_age": None}
"""The whole log is looked at afterwards."""
PATTERNS = ["*", "a*", "b*", "?1", "a1", "n*"]


class Journal:
    def __init__(self, path: str) -> None:
        self.file = Path(path).open("wb", buffering=1 << 16)  # noqa: SIM115 - open as long as the process lives

    def trying(self, call: dict[str, Any]) -> None:
        """Out of this process before the call is made, so that a kill loses no write."""
        self.done(call)
        self.file.flush()

    def done(self, call: dict[str, Any], *, changed: bool = False) -> None:
        self.file.write(json.dumps(call).encode() + b"\n")
        if changed:
            self.file.flush()


class Worker:
    def __init__(self, state: State, number: int, seed: int, journal: Journal) -> None:
        self.state, self.number, self.journal = state, number, journal
        self.random = random.Random(seed * 1_000_003 + number)
        self.written = 0
        self.known = [0] * len(NAMES)

    def value(self) -> int:
        self.written += 1
        return (self.number << 24) + self.written

    # Calls on single keys.

    def single(self) -> None:
        key = self.random.randrange(len(NAMES))
        if self.random.random() < 0.6:
            self.read(key)
        elif key >= COUNTERS:
            self.change({"add": [key, None]}, lambda: {"add": [key, self.state.increment(NAMES[key])]})
        elif self.random.random() < 0.75:
            self.write(key)
        elif key == 0:
            self.change({"delete": [key, None]}, lambda: {"delete": [key, self.state.delete(NAMES[key])]})
        else:
            self.delete(key)

    def change(self, what: dict[str, Any], call: Any) -> None:
        start = monotonic_ns()
        self.journal.trying({"span": [start, None], "what": what})
        told = call()
        self.journal.done({"span": [start, monotonic_ns()], "what": told}, changed=True)

    def read(self, key: int) -> None:
        start, name = monotonic_ns(), NAMES[key]
        kind = self.random.randrange(4)
        what: dict[str, Any]
        if kind == 0:
            value = self.state.get(name)
            what = {"read": [key, None if value is None else [value, None]]}
        elif kind == 1:
            entry = self.state.entry(name)
            self.known[key] = 0 if entry is None else entry.version
            what = {"read": [key, None if entry is None else [entry.value, entry.version]]}
        elif kind == 2:
            what = {"exists": [key, self.state.exists(name)]}
        else:
            found = self.state.get_many(NAMES)
            what = {
                "many": [[place, [found[name], None] if name in found else None] for place, name in enumerate(NAMES)]
            }
        self.journal.done({"span": [start, monotonic_ns()], "what": what})

    def write(self, key: int) -> None:
        name, value, expected = NAMES[key], self.value(), self.known[key]

        def wrote(version: int | None, expected: int | None = None) -> dict[str, Any]:
            return {"write": {"key": key, "value": value, "version": version, "expected": expected}}

        def swap() -> dict[str, Any]:
            try:
                return wrote(self.state.set(name, value, if_version=expected), expected)
            except ConflictError:
                return {"refused": [key, expected]}

        def replace() -> dict[str, Any]:
            self.state.modify(name, lambda _: value)
            return wrote(None)

        kind = self.random.randrange(3)
        self.change(wrote(None), [lambda: wrote(self.state.set(name, value)), swap, replace][kind])

    def delete(self, key: int) -> None:
        expected = self.known[key]

        def delete() -> dict[str, Any]:
            try:
                done = self.state.delete(NAMES[key], if_version=expected)
            except ConflictError:
                return {"refused": [key, expected]}
            return {"delete_if": [key, expected, True]} if done else {"exists": [key, False]}

        self.change({"delete_if": [key, expected, None]}, delete)

    # Transactions.

    def look(self, handle: Scope | Transaction, scope: str) -> dict[str, Any]:
        key, kind = self.random.choice(KEYS + SUMS), self.random.randrange(6)
        if kind == 0:
            return {"get": [scope + key, handle.get(key)]}
        if kind == 1:
            return {"exists": [scope + key, handle.exists(key)]}
        if kind == 2:
            found = handle.get_many(KEYS)
            return {"get_many": [[scope + key for key in KEYS], [[scope + key, value] for key, value in found.items()]]}
        listing: dict[str, Any] = {"scope": scope, "pattern": self.random.choice(PATTERNS), "reverse": False}
        if kind == 5:
            return {"count": [listing, handle.count(listing["pattern"])]}
        listing["reverse"] = self.random.random() < 0.3
        if self.random.random() < 0.3:
            listing["limit"] = self.random.randrange(4)
        bounds = {"limit": listing.get("limit"), "reverse": listing["reverse"]}
        rows: Iterable[object] = (handle.keys if kind == 3 else handle.items)(listing["pattern"], **bounds)
        return {"keys" if kind == 3 else "items": [listing, list(rows)]}

    def act(self, handle: Transaction, scope: str) -> dict[str, Any]:
        key, kind = self.random.choice(KEYS), self.random.randrange(12)
        if kind < 6:
            value = self.value()
            handle.set(key, value)
            return {"set": [scope + key, value]}
        if kind < 8:
            return {"delete": [scope + key, handle.delete(key)]}
        if kind < 11:
            key, by = self.random.choice(SUMS), self.random.randrange(1, 3)
            return {"increment": [scope + key, by, handle.increment(key, by)]}
        pattern = self.random.choice(PATTERNS)
        return {"clear": [{"scope": scope, "pattern": pattern, "reverse": False}, handle.clear(pattern)]}

    def transaction(self) -> None:
        start = monotonic_ns()
        root = self.state.begin()
        begin = [start, monotonic_ns()]
        handles = [("", root), ("in/", root.scope("in"))]
        reads_only = self.random.random() < 0.2
        acts = []
        for _ in range(self.random.randrange(1, 6)):
            scope, handle = self.random.choice(handles)
            reads = reads_only or self.random.random() < 0.6
            acts.append(self.look(handle, scope) if reads else self.act(handle, scope))
        run: dict[str, Any] = {"begin": begin, "acts": acts, "end": [monotonic_ns(), None], "outcome": "unknown"}
        if self.random.random() < 0.1:
            root.rollback()
            run["outcome"] = "failed"
        else:
            self.journal.trying(run)
            try:
                run["outcome"] = {"committed": root.commit()}
            except ConflictError:
                run["outcome"] = "failed"
        run["end"][1] = monotonic_ns()
        self.journal.done(run, changed=True)


def main() -> None:
    stage, path, options, number, seed, calls, journal = sys.argv[1:]
    with State(path, retention=KEEP_ALL, **json.loads(options)) as state:
        worker = Worker(state, int(number), int(seed), Journal(journal))
        call = worker.single if stage == "linear" else worker.transaction
        for _ in range(int(calls)):
            call()
        worker.journal.file.close()


main()

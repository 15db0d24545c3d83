"""The Python side of the tests across languages: obeys one command a line (words between tabs), answers with JSON.

``peer.lua`` and the Rust program ``peer`` obey the same commands.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llmspell_state import State, StateError

DEEP: list[Any] = []
for _ in range(127):
    DEEP = [DEEP]

KINDS: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "int": -7,
    "big": 2**53,
    "float": 0.1,
    "huge": 1.7976931348623157e308,
    "tiny": 5e-324,
    "minus_zero": -0.0,
    "text": 'aé日😀\0\n"\\',
    "empty_text": "",
    "binary": b"\xff\x00\xfe\x80",
    "array": [1, "two", None, [True]],
    "empty_array": [],
    "object": {"a": {"b": [{}]}, "é": None, "": 1},
    "empty_object": {},
    "dollar": {"$binary": "AAE=", "$set": 1},
    "deep": DEEP,
}


def describe(value: Any) -> list[Any]:
    """A value as ``[kind, …]``, the same in every language: text and bytes as hexadecimal digits."""
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, int):
        return ["int", str(value)]
    if isinstance(value, float):
        return ["float", repr(value)]
    if isinstance(value, str):
        return ["text", value.encode().hex()]
    if isinstance(value, bytes):
        return ["binary", value.hex()]
    if isinstance(value, list):
        return ["array", [describe(item) for item in value]]
    return ["object", {key.encode().hex(): describe(member) for key, member in value.items()}]


class Peer:
    state: State

    def open(self, path: str, options: str) -> Any:
        self.state = State(path, **json.loads(options))
        return "ok"

    def count(self, verb: str, times: str) -> Any:
        key = f"counter:{verb}"
        for _ in range(int(times)):
            if verb == "increment":
                self.state.increment(key)
            elif verb == "modify":
                self.state.modify(key, lambda old: old + 1, 0)
            else:
                self.state.transact(lambda tx: tx.set(key, tx.get(key, 0) + 1))
        return "ok"

    def set(self, key: str, number: str) -> Any:
        return self.state.set(key, int(number))

    def get(self, key: str) -> Any:
        return self.state.get(key, "missing")

    def write(self, prefix: str) -> Any:
        for kind, value in KINDS.items():
            self.state[f"{prefix}:{kind}"] = value
        return "ok"

    def read(self, prefix: str) -> Any:
        return {key: describe(value) for key, value in self.state.items(f"{prefix}:*")}

    def scoped(self, name: str, key: str, number: str) -> Any:
        return self.state.scope(name).set(key, int(number))

    def inside(self, name: str, key: str) -> Any:
        return self.state.scope(name).get(key, "missing")

    def scopes(self) -> Any:
        return self.state.scopes()

    def delete(self, key: str) -> Any:
        return self.state.delete(key)

    def keys(self) -> Any:
        return list(self.state.keys())

    def close(self) -> Any:
        self.state.close()
        return "ok"


def main() -> None:
    peer = Peer()
    for line in sys.stdin:
        command, *words = line.rstrip("\n").split("\t")
        try:
            answer = getattr(peer, {"in": "inside"}.get(command, command))(*words)
        except StateError as error:
            answer = {"error": error.kind, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

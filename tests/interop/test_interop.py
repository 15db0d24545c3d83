"""Processes of every language on one file at the same time."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import State

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TIMES = 10_000
# Counts are exact in every mode. A commit that waits for the disk takes far longer, so one verb does, unless asked.
OTHERS_SYNC = "FULL" if os.environ.get("LLMSPELL_STATE_FULL") == "1" else "NORMAL"


def rust_peer() -> list[str]:
    """The Rust program, built if need be."""
    build = ["cargo", "build", "--quiet", "-p", "llmspell-state-tests", "--bin", "peer", "--message-format=json"]
    output = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    made = [json.loads(line) for line in output.splitlines()]
    return [next(part["executable"] for part in made if part.get("executable"))]


COMMANDS: dict[str, list[str]] = {
    "python": [sys.executable, str(HERE / "peer.py")],
    **{lua: [lua, str(HERE / "peer.lua")] for lua in ("lua5.4", "lua5.3", "lua5.1", "luajit")},
}
LANGUAGES = ["rust", "python", "lua5.4", "luajit"]
WITHOUT_INTEGERS = ("lua5.1", "luajit")


class Peer:
    """A process that obeys ``peer.py``'s commands."""

    def __init__(self, language: str) -> None:
        self.language = language
        command = COMMANDS[language]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write("\t".join(str(word) for word in words) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"{self.language} ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        self.tell(*words)
        return self.hear()

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture(scope="session", autouse=True)
def every_language() -> None:
    COMMANDS["rust"] = rust_peer()
    missing = [language for language, command in COMMANDS.items() if not shutil.which(command[0])]
    assert not missing, f"{missing} not found; make setup installs them"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


class Peers:
    """Makes peers with the store open, and ends them after the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: list[Peer] = []

    def make(self, language: str, **options: Any) -> Peer:
        peer = Peer(language)
        self.made.append(peer)
        assert peer.ask("open", self.path, json.dumps(options)) == "ok"
        return peer


@pytest.fixture
def peers(path: Path) -> Iterator[Peers]:
    peers = Peers(path)
    yield peers
    for peer in peers.made:
        peer.end()


@pytest.mark.parametrize(
    ("verb", "sync_mode"), [("increment", "FULL"), ("modify", OTHERS_SYNC), ("transact", OTHERS_SYNC)]
)
def test_eight_processes_of_two_languages_lose_no_count(verb: str, sync_mode: str, peers: Peers, path: Path) -> None:
    crowd = [peers.make(language, sync_mode=sync_mode) for language in ["python"] * 4 + ["lua5.4"] * 2 + ["luajit"] * 2]
    began = time.monotonic()
    for peer in crowd:
        peer.tell("count", verb, TIMES)
    assert [peer.hear() for peer in crowd] == ["ok"] * len(crowd)
    print(f"{verb}: {len(crowd) * TIMES} in {time.monotonic() - began:.1f} s")
    with State(path) as state:
        assert state[f"counter:{verb}"] == len(crowd) * TIMES


def test_processes_of_three_languages_count_together_with_rust(peers: Peers, path: Path) -> None:
    crowd = [peers.make(language) for language in ("rust", "python", "lua5.3", "lua5.1")]
    for verb in ("increment", "modify", "transact"):
        for peer in crowd:
            peer.tell("count", verb, 500)
        assert [peer.hear() for peer in crowd] == ["ok"] * len(crowd)
    with State(path) as state:
        assert dict(state.items("counter:*")) == dict.fromkeys(
            ["counter:increment", "counter:modify", "counter:transact"], 500 * len(crowd)
        )


def plain(description: list[Any]) -> Any:
    """A description without the differences that the value model allows."""
    kind, *rest = description
    if kind == "base64":
        return ["binary", base64.b64decode(rest[0]).hex()]
    if kind == "float":
        return ["float", float(rest[0]).hex()]
    if kind == "array":
        return ["array", [plain(item) for item in rest[0]]]
    if kind == "object":
        return ["object", {key: plain(member) for key, member in rest[0].items()}]
    return description


@pytest.mark.parametrize("writer", ["rust", "python", "lua5.4", "lua5.3", "lua5.1", "luajit"])
def test_every_kind_of_value_is_the_same_in_every_language(writer: str, peers: Peers) -> None:
    sys.path.insert(0, str(HERE))
    try:
        from peer import KINDS, describe
    finally:
        sys.path.remove(str(HERE))
    peers.make(writer).ask("write", writer)
    expected = {f"{writer}:{kind}": plain(describe(value)) for kind, value in KINDS.items()}
    for reader in COMMANDS:
        found = peers.make(reader).ask("read", writer)
        assert {key: plain(value) for key, value in found.items()} == expected, f"{reader} reads {writer}"


def test_whole_floats_and_large_integers_keep_their_kind_where_the_language_has_it(peers: Peers, path: Path) -> None:
    with State(path) as state:
        state.set_many({"v:float": 2.0, "v:large": 2**63 - 1, "v:small": -(2**63)})
    for reader in ("rust", "python", "lua5.4", "lua5.3"):
        found = peers.make(reader).ask("read", "v")
        assert found["v:float"][0] == "float", reader
        assert reader.startswith("lua") or found["v:large"] == ["int", str(2**63 - 1)], reader
    for reader in WITHOUT_INTEGERS:
        answer = peers.make(reader).ask("read", "v")
        assert answer["error"] == "Invalid", f"{reader} rounded an integer: {answer}"


@pytest.mark.parametrize("times", [1000])
def test_a_write_is_seen_at_the_next_read_of_every_other_process(times: int, peers: Peers) -> None:
    crowd = [peers.make(language) for language in LANGUAGES]
    for number in range(times):
        writer = crowd[number % len(crowd)]
        assert writer.ask("set", "ball", number) > number
        for reader in crowd:
            assert reader.ask("get", "ball") == number, f"{reader.language} after {writer.language}"


def test_a_delete_is_seen_at_the_next_read_of_every_other_process(peers: Peers) -> None:
    crowd = [peers.make(language) for language in LANGUAGES]
    for number in range(100):
        first, second = crowd[number % len(crowd)], crowd[(number + 1) % len(crowd)]
        first.ask("set", "a", number)
        assert [peer.ask("get", "a") for peer in crowd] == [number] * len(crowd)
        assert second.ask("delete", "a") is True
        assert [peer.ask("get", "a") for peer in crowd] == ["missing"] * len(crowd)
        assert first.ask("delete", "a") is False


def test_scopes_made_in_one_language_are_there_in_the_others(peers: Peers) -> None:
    crowd = [peers.make(language) for language in LANGUAGES]
    for number, peer in enumerate(crowd):
        peer.ask("scoped", f"of {peer.language}", "k", number)
    names = sorted(f"of {language}" for language in LANGUAGES)
    for peer in crowd:
        assert peer.ask("scopes") == names
        assert [peer.ask("in", f"of {language}", "k") for language in LANGUAGES] == list(range(len(LANGUAGES)))
        assert peer.ask("keys") == []


def test_keys_of_every_alphabet_are_found_and_sorted_alike(peers: Peers) -> None:
    crowd = [peers.make(language) for language in LANGUAGES]
    keys = ["Z", "a", "é", "日", "\ufffd", "😀", "a b", "a::b", "100%"]
    for number, key in enumerate(keys):
        crowd[number % len(crowd)].ask("set", key, number)
    for peer in crowd:
        assert peer.ask("keys") == sorted(keys, key=str.encode)
        assert [peer.ask("get", key) for key in keys] == list(range(len(keys)))


@pytest.mark.parametrize("second", ["rust", "python", "lua5.4", "luajit"])
@pytest.mark.parametrize("first", ["rust", "python", "lua5.4"])
def test_a_second_process_of_any_language_is_told_busy(first: str, second: str, peers: Peers) -> None:
    holder = peers.make(first, exclusive=True)
    holder.ask("set", "a", 1)
    other = Peer(second)
    peers.made.append(other)
    for exclusive in (True, False):
        answer = other.ask("open", peers.path, json.dumps({"exclusive": exclusive, "busy_timeout_ms": 50}))
        assert answer["error"] == "Busy", answer
    assert holder.ask("get", "a") == 1
    assert holder.ask("close") == "ok"
    assert other.ask("open", peers.path, "{}") == "ok"
    assert other.ask("get", "a") == 1


def test_a_store_that_others_use_cannot_be_had_alone(peers: Peers) -> None:
    holder = peers.make("python")
    holder.ask("set", "a", 1)
    for language in ("rust", "lua5.4"):
        other = Peer(language)
        peers.made.append(other)
        answer = other.ask("open", peers.path, json.dumps({"exclusive": True, "busy_timeout_ms": 50}))
        assert answer["error"] == "Busy", answer
    assert holder.ask("set", "a", 2) > 0


def test_a_killed_process_holds_up_nobody(peers: Peers, path: Path) -> None:
    for language in LANGUAGES:
        peer = peers.make(language)
        peer.ask("set", language, 1)
        peer.tell("count", "transact", 1_000_000)
        time.sleep(0.2)
        peer.process.kill()
        peer.process.wait()
        with State(path) as state:
            assert state[language] == 1
            before = state["counter:transact"]
            assert state.increment("counter:transact") == before + 1


def test_the_same_file_opened_twice_in_one_process_is_one_store(path: Path) -> None:
    with State(path) as one, State(os.fspath(path)) as two:
        one["a"] = 1
        assert two["a"] == 1
        assert one.store_id == two.store_id
        one.close()
        two["a"] = 2
        assert two["a"] == 2
    with State(path) as again:
        assert again["a"] == 2

"""`verify` reads everything and says in words what is wrong."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import sqlite3
from pathlib import Path

import pytest
from llmspell_state import ClosedError, CorruptError, DataLossError, State, Verification


def test_a_sound_store_has_no_problems(state: State) -> None:
    state.update({f"k{n}": n for n in range(10)})
    state.scope("a")["k"] = 1
    state.delete("k0")
    found = state.verify()
    assert isinstance(found, Verification)
    assert (found.ok, found.problems) == (True, ())
    assert (found.version, found.changes, found.keys, found.scopes) == (state.version, 12, 10, 2)


def test_what_was_found_is_data(state: State) -> None:
    found = state.verify()
    assert pickle.loads(pickle.dumps(found)) == found
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.version = 1  # type: ignore[misc]


def test_damage_is_told_and_not_raised(path: Path) -> None:
    with State(path) as state:
        state.update({"k": "a value that somebody changes", "other": 1})
    foreign = sqlite3.connect(path, isolation_level=None)
    assert foreign.execute("UPDATE log SET time = time + 1 WHERE key = 'k'").rowcount == 1
    # Writes every page anew, without a check of ours: what is left is the check of the row.
    foreign.execute("VACUUM")
    foreign.close()
    with State(path) as state:
        found = state.verify()
        assert not found.ok
        assert any("does not match its check" in problem for problem in found.problems)
        assert not any('"other"' in problem for problem in found.problems)


def test_a_flipped_byte_anywhere_is_told(path: Path) -> None:
    with State(path, enable_compression=False) as state:
        state["first"] = "x" * 20_000
        state.update({f"k{n}": n for n in range(500)})
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"xxxx") + 100] ^= 1
    path.write_bytes(damaged)
    with State(path) as state:
        assert any("does not match its check" in problem for problem in state.verify().problems)
        with pytest.raises(CorruptError, match="page"):
            state["first"]
        assert state["k7"] == 7


def test_an_older_copy_is_opened_only_by_those_who_accept_it(path: Path) -> None:
    copy = path.with_name("copy.db")
    for n in range(2):
        with State(path) as state:
            state["n"] = n
        if n == 0:
            shutil.copy(path, copy)
    shutil.copy(copy, path)
    with pytest.raises(DataLossError):
        State(path)
    with State(path, accept_rollback=True) as state:
        assert state["n"] == 0
        state["n"] = 2
    with State(path) as state:
        assert state["n"] == 2


def test_a_closed_state_is_not_verified(state: State) -> None:
    state.close()
    with pytest.raises(ClosedError):
        state.verify()

"""What a user sees of the package itself: names, documentation, types, examples."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from importlib import resources
from pathlib import Path

import llmspell_state
import pytest
from llmspell_state import Scope, State, Transaction

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_in_the_documentation_is_true():
    assert doctest.testmod(llmspell_state).attempted > 0
    assert doctest.testmod(llmspell_state).failed == 0


@pytest.mark.parametrize("handle", [State, Scope, Transaction])
def test_everything_public_is_documented(handle):
    assert inspect.getdoc(handle)
    for name, member in inspect.getmembers(handle):
        if not name.startswith("_") and (callable(member) or inspect.isdatadescriptor(member)):
            assert inspect.getdoc(member), name


@pytest.mark.parametrize("verb", ["get", "set", "delete", "keys", "modify", "increment", "transact", "count"])
def test_signatures_are_shown(verb):
    parameters = inspect.signature(getattr(State, verb)).parameters
    assert {"key", "pattern", "fn"} & parameters.keys()
    assert parameters.get("pattern") is None or parameters["pattern"].default == "*"


def test_the_package_is_typed():
    files = {file.name for file in resources.files(llmspell_state).iterdir()}
    assert {"py.typed", "_native.pyi"} <= files


def test_every_exported_name_is_there():
    assert all(hasattr(llmspell_state, name) for name in llmspell_state.__all__)
    assert llmspell_state.__all__ == sorted(llmspell_state.__all__, key=lambda name: (not name.isupper(), name))


def test_scope_and_transaction_are_what_the_verbs_give():
    with State() as state:
        assert type(state.scope("a")) is Scope
        assert type(state.scope("a").scope("b")) is Scope
        assert type(state.transaction()) is Transaction
        assert state.transact(type) is Transaction
        assert type(Scope(state)) is Scope


def test_a_subclass_of_state_opens_as_itself(path):
    class Memory(State):
        def remember(self, text: str) -> int:
            return self.append("texts", text)

    with Memory(path) as memory:
        assert type(memory) is Memory
        assert memory.remember("a") == 1
    with Memory.from_config({"persistence_path": str(path)}) as memory:
        assert type(memory) is Memory
        assert memory.remember("b") == 2


@pytest.mark.parametrize("example", ["quickstart.py", "agent_memory.py"])
def test_the_examples_run(example):
    done = subprocess.run(
        [sys.executable, EXAMPLES / example], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout

"""What ends in the middle of something: a state inside its transaction, an entry on its way to another process."""

import copy
import pickle
from pathlib import Path

import pytest
from llmspell_state import ClosedError, InvalidError, State


def test_a_transaction_whose_state_was_closed_inside_says_so(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    state = State(path)
    with pytest.raises(ClosedError), state.transaction() as tx:
        tx["a"] = 1
        state.close()
    state = State(path)

    def close_inside(tx: object) -> str:
        tx["a"] = 1  # type: ignore[index]
        state.close()
        return "done"

    with pytest.raises(ClosedError):
        state.transact(close_inside)
    with State(path) as again:
        assert "a" not in again


def test_an_exception_is_not_hidden_by_a_closed_state() -> None:
    state = State()
    with pytest.raises(ZeroDivisionError), state.transaction():
        state.close()
        raise ZeroDivisionError


def test_an_entry_can_be_copied_and_sent_to_another_process() -> None:
    with State() as state:
        state["a"] = {"b": [1]}
        entry = state.entry("a")
        assert pickle.loads(pickle.dumps(entry)) == entry
        assert copy.deepcopy(entry) == entry


def test_a_path_object_is_a_setting_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with State.from_config({"persistence_path": path, "sync_mode": "NORMAL"}) as state:
        state["a"] = 1
    assert path.exists()
    with pytest.raises(InvalidError):
        State(path, persistence_path=str(path))
    with pytest.raises(InvalidError):
        State("a\ud800b")

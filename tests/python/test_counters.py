"""Changes that are computed in the store: exact, or refused with the value unchanged."""

from __future__ import annotations

import math

import pytest
from llmspell_state import ConflictError, InvalidError, State


def test_increment_starts_at_zero_and_keeps_the_type(state: State):
    assert state.increment("n") == 1
    assert state.increment("n", 5) == 6
    assert state.increment("n", -10) == -4
    assert type(state["n"]) is int
    assert state.increment("n", 0.5) == -3.5
    assert type(state["n"]) is float


@pytest.mark.parametrize("value", ["1", [1], {}, None, True, b"1"])
def test_increment_of_something_else_is_refused_and_changes_nothing(state: State, value):
    state["k"] = value
    with pytest.raises(InvalidError):
        state.increment("k")
    assert state["k"] == value


@pytest.mark.parametrize(
    ("value", "by"), [(2**63 - 1, 1), (-(2**63), -1), (1.7e308, 1.7e308), (0, math.nan), (0, math.inf)]
)
def test_increment_past_the_range_is_refused_and_changes_nothing(state: State, value, by):
    state["k"] = value
    with pytest.raises(InvalidError):
        state.increment("k", by)
    assert state["k"] == value


@pytest.mark.parametrize("by", ["1", None, True, [1], 2**63, 1j])
def test_increment_by_something_else_is_refused(state: State, by):
    with pytest.raises(InvalidError, match="by"):
        state.increment("k", by)
    assert "k" not in state


def test_append_answers_the_length_and_takes_every_value(state: State):
    assert state.append("l", b"x") == 1
    assert state.append("l", {"a": (1,)}) == 2
    assert state["l"] == [b"x", {"a": [1]}]
    state["k"] = {"not": "a list"}
    with pytest.raises(InvalidError):
        state.append("k", 1)
    assert state["k"] == {"not": "a list"}


def test_merge_follows_rfc_7386(state: State):
    state["k"] = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert state.merge("k", {"a": {"b": None, "e": 3}, "d": [2]}) == {"a": {"c": 2, "e": 3}, "d": [2]}
    assert state.merge("new", {"a": None, "b": 1}) == {"b": 1}
    assert state.merge("k", "text") == "text"


def test_modify_gives_the_value_and_stores_the_result(state: State):
    assert state.modify("k", lambda value: value) is None
    assert state.modify("k", lambda value: [value, 1]) == [None, 1]
    assert state.modify("l", lambda items: [*items, 1], default=[]) == [1]
    assert state["l"] == [1]


def test_a_default_that_the_function_changes_is_not_changed(state: State):
    default: list[int] = []

    def add(items: list[int]) -> list[int]:
        items.append(1)
        return items

    assert state.modify("a", add, default) == [1]
    assert state.modify("b", add, default) == [1]
    assert default == []


def test_an_exception_in_modify_changes_nothing(state: State):
    state["k"] = 1
    with pytest.raises(ZeroDivisionError):
        state.modify("k", lambda value: value / 0)
    with pytest.raises(KeyboardInterrupt):
        state.modify("k", interrupted)
    with pytest.raises(TypeError):
        state.modify("k", "not a function")
    assert state["k"] == 1


def interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_modify_runs_again_when_another_writer_was_faster(state: State):
    seen = []

    def slow(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            state["k"] = 10
        return value + 1

    state["k"] = 0
    assert state.modify("k", slow) == 11
    assert seen == [0, 10]


def test_compare_and_set_has_one_winner(state: State):
    first = state.set("k", 1, if_version=0)
    with pytest.raises(ConflictError):
        state.set("k", 2, if_version=0)
    second = state.set("k", 2, if_version=first)
    assert second > first
    with pytest.raises(ConflictError):
        state.delete("k", if_version=first)
    assert state.delete("k", if_version=second)
    with pytest.raises(ConflictError):
        state.set("k", 3, if_version=second)
    assert state.set("k", 3, if_version=0)


def test_an_entry_tells_version_and_times(state: State):
    version = state.set("k", [1])
    entry = state.entry("k")
    assert (entry.value, entry.version, entry.expires) == ([1], version, None)
    assert entry.created == entry.updated
    assert entry.created.tzinfo is not None
    state["k"] = [2]
    again = state.entry("k")
    assert again.version == state.version > version
    assert again.created == entry.created <= again.updated
    assert state.entry("missing") is None

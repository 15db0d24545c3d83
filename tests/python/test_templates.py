"""What a reader gets is its own: no change to it is ever seen by another reader, however the value was read."""

from __future__ import annotations

import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from llmspell_state import State

VALUE = {
    "list": [1, [2, {"deep": [3]}], "text"],
    "empty": [[], {}],
    "dict": {"a": {"b": {"c": [None, True, 1.5]}}},
    "bytes": b"\0\1",
    "none": None,
}


def spoil(value: object) -> None:
    """Changes every container in a value."""
    if isinstance(value, list):
        for item in value:
            spoil(item)
        value.append("spoilt")
        value.reverse()
    elif isinstance(value, dict):
        for member in value.values():
            spoil(member)
        value.clear()
        value["spoilt"] = True


READERS = {
    "get": lambda state: state.get("k"),
    "index": lambda state: state["k"],
    "entry": lambda state: state.entry("k").value,
    "get_many": lambda state: state.get_many(["k"])["k"],
    "items": lambda state: dict(state.items())["k"],
    "values": lambda state: next(iter(state.values())),
    "transaction": lambda state: state.begin()["k"],
    "modify": lambda state: state.modify("k", lambda value: value),
    "setdefault": lambda state: state.setdefault("k", None),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_result_changes_no_later_one(state: State, reader):
    state["k"] = VALUE
    for _ in range(5):
        value = READERS[reader](state)
        assert value == VALUE
        assert list(value) == list(VALUE)
        spoil(value)
    for read in READERS.values():
        assert read(state) == VALUE


def test_two_results_share_no_container(state: State):
    state["k"] = VALUE
    for _ in range(3):
        one, two = state["k"], state["k"]
        assert one is not two
        assert one["list"] is not two["list"]
        assert one["dict"]["a"]["b"] is not two["dict"]["a"]["b"]
        assert one["empty"][0] is not two["empty"][0]


def test_a_change_is_seen_by_the_next_read_however_hot_the_key(state: State):
    for n in range(20):
        state["k"] = {"n": n, "l": [n]}
        for _ in range(4):
            assert state["k"] == {"n": n, "l": [n]}
    del state["k"]
    assert state.get("k") is None


def test_a_value_changed_by_modify_in_place_is_stored_and_not_shared(state: State):
    state["k"] = {"l": []}
    for _ in range(3):
        state.get("k")

    def add(value):
        value["l"].append(1)
        return value

    result = state.modify("k", add)
    assert result == state["k"] == {"l": [1]}
    spoil(result)
    assert state["k"] == {"l": [1]}


def test_no_two_keys_share_what_one_name_may_hold(state: State):
    """Names of members are remembered; values are not."""
    for n in range(3000):
        state[f"k{n % 7}"] = {f"name{n}": [n], "same": [n]}
        assert state[f"k{n % 7}"] == {f"name{n}": [n], "same": [n]}


def test_threads_that_read_and_spoil_one_key_see_it_whole(state: State):
    state["k"] = VALUE

    def read(_: int) -> bool:
        for _ in range(300):
            value = state["k"]
            if value != VALUE:
                return False
            spoil(value)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_reading_leaks_no_reference(state: State):
    state["k"] = VALUE
    for _ in range(5):
        state["k"]
    leaf = state["k"]["list"][2]
    before = sys.getrefcount(leaf)
    for _ in range(1000):
        state["k"]
    assert sys.getrefcount(leaf) == before


def test_a_template_goes_with_the_store():
    state = State()
    state["k"] = ["a text that is nowhere else" * 3]
    for _ in range(3):
        value = state["k"]
    leaf = value[0]
    shared = sys.getrefcount(leaf)
    state.close()
    with State() as other:
        other["k"] = 1  # what was let go while the interpreter was not held is let go now
    alone = sys.getrefcount(leaf)
    assert alone == shared - 1


def test_a_handle_can_be_referred_to_weakly(state: State):
    scope = state.scope("a")
    reference = weakref.ref(scope)
    assert reference() is scope
    del scope
    assert reference() is None

"""Handles behave as Python's mappings do."""

from __future__ import annotations

from collections.abc import MutableMapping

import pytest
from llmspell_state import InvalidTypeError, Scope, State, Transaction


@pytest.fixture(params=["state", "scope", "transaction"])
def mapping(request, state):
    """A mapping of each kind, empty."""
    if request.param == "transaction":
        with state.transaction() as tx:
            yield tx
    else:
        yield state if request.param == "state" else state.scope("inner")


def test_handles_are_mutable_mappings(mapping):
    assert isinstance(mapping, MutableMapping)
    assert issubclass(State, Scope)


def test_items_are_set_read_and_deleted_by_index(mapping):
    mapping["a"] = [1]
    assert mapping["a"] == [1]
    assert "a" in mapping
    del mapping["a"]
    assert "a" not in mapping


def test_a_missing_key_by_index_is_a_key_error_with_the_key(mapping):
    with pytest.raises(KeyError) as missing:
        mapping["nope"]
    assert missing.value.args == ("nope",)
    with pytest.raises(KeyError):
        del mapping["nope"]


def test_get_tells_stored_none_from_missing(mapping):
    mapping["a"] = None
    assert mapping.get("a", 7) is None
    assert mapping.get("b", 7) == 7
    assert mapping.get("b") is None
    assert "a" in mapping


def test_length_and_truth_are_those_of_a_mapping(mapping):
    assert len(mapping) == 0
    assert not mapping
    mapping.update({"a": 1}, b=2)
    assert len(mapping) == 2
    assert mapping


def test_iteration_is_sorted_by_bytes_in_both_directions(mapping):
    mapping.update({"b": 1, "é": 2, "B": 3, "a": 4})
    assert list(mapping) == ["B", "a", "b", "é"]
    assert list(reversed(mapping)) == ["é", "b", "a", "B"]


def test_views_select_by_pattern_place_number_and_direction(mapping):
    mapping.update({f"k{n}": n for n in range(6)}, other=0)
    assert list(mapping.keys("k*", after="k1", limit=2)) == ["k2", "k3"]
    assert list(mapping.values("k*", after="k1", reverse=True)) == [0]
    assert list(mapping.items("k[45]")) == [("k4", 4), ("k5", 5)]
    assert list(mapping.keys(limit=0)) == []
    assert len(mapping.keys("k*", after="k3")) == 2
    assert len(mapping.items("k*")) == 6


def test_views_can_be_iterated_over_again_and_read_anew(mapping):
    keys = mapping.keys()
    assert list(keys) == []
    mapping["a"] = 1
    assert list(keys) == ["a"]
    assert list(keys) == ["a"]


def test_views_know_what_they_contain(mapping):
    mapping.update({"a": 1, "b": [2]})
    keys = mapping.keys()
    assert "a" in keys
    assert "a" not in mapping.keys("b*")
    assert [2] in mapping.values()
    assert ("b", [2]) in mapping.items()
    assert mapping.keys() & {"a", "z"} == {"a"}
    assert mapping.keys() == {"a", "b"}


def test_a_mapping_copies_into_a_dict_and_from_one(mapping):
    given = {"a": 1, "b": {"c": [2]}}
    mapping.update(given)
    assert dict(mapping) == given
    assert {**mapping} == given


def test_update_takes_what_dict_update_takes(mapping):
    mapping.update({"a": 1})
    mapping.update([("b", 2), ("c", 3)])
    mapping.update(d=4)
    mapping.update()
    assert dict(mapping) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_pop_removes_and_gives_the_value_or_the_default(mapping):
    mapping["a"] = [1]
    assert mapping.pop("a") == [1]
    assert "a" not in mapping
    assert mapping.pop("a", "none") == "none"
    assert mapping.pop("a", None) is None
    with pytest.raises(KeyError):
        mapping.pop("a")


def test_popitem_empties_a_mapping(mapping):
    mapping.update(a=1, b=2)
    assert sorted([mapping.popitem(), mapping.popitem()]) == [("a", 1), ("b", 2)]
    with pytest.raises(KeyError):
        mapping.popitem()


def test_setdefault_stores_only_what_is_missing(mapping):
    assert mapping.setdefault("a", [1]) == [1]
    assert mapping.setdefault("a", [2]) == [1]
    assert mapping.setdefault("b") is None
    assert mapping["a"] == [1]
    assert "b" in mapping


def test_clear_says_how_many_there_were(mapping):
    mapping.update(a=1, b=2, c=3)
    assert mapping.clear("[ab]") == 2
    assert mapping.clear() == 1
    assert mapping.clear() == 0


def test_equality_and_hash_are_those_of_the_handle(state):
    other = state.scope("a")
    assert state.scope("a") != other
    assert other == other
    assert {other: 1}[other] == 1
    assert state != dict(state)


def test_a_key_that_is_no_str_is_never_turned_into_one(mapping):
    for key in (1, None, True, 1.5, ("a",), b"a"):
        with pytest.raises(InvalidTypeError, match="key takes a str"):
            mapping[key] = 1
        with pytest.raises(TypeError):
            mapping.get(key)
        with pytest.raises(ValueError):
            assert key in mapping
    assert len(mapping) == 0


def test_a_key_may_be_of_a_subclass_of_str(mapping):
    class Name(str):
        __slots__ = ()

    mapping[Name("a")] = 1
    assert mapping["a"] == 1
    assert [type(key) for key in mapping] == [str]


def test_get_many_gives_what_is_found_under_the_keys_asked_for(mapping):
    mapping.update(a=1, b=None)
    assert mapping.get_many(["b", "x", "a", "b"]) == {"b": None, "a": 1}
    assert mapping.get_many(key for key in ("a",)) == {"a": 1}
    assert mapping.get_many([]) == {}
    for keys in ("ab", 5, [1]):
        with pytest.raises(InvalidTypeError):
            mapping.get_many(keys)


def test_set_many_takes_a_mapping_only_and_all_of_it_or_nothing(mapping):
    mapping.set_many({"a": 1, "b": 2})
    for wrong in ([("c", 3)], 5, {"c": 3, "d": object()}, {"c": 3, 4: 4}, {"c": 3, "": 4}):
        with pytest.raises(ValueError):
            mapping.set_many(wrong)
    assert dict(mapping) == {"a": 1, "b": 2}


def test_scopes_of_one_name_are_one_scope(state):
    state.scope("a").scope("b")["k"] = 1
    assert state.scope("a").scope("b")["k"] == 1
    assert list(state) == [] and list(state.scope("a")) == []
    assert state.scopes() == ["a"]
    assert state.scope("a").scopes() == ["b"]
    assert state.scope("a").scope("b").name == "b"


def test_a_transaction_reaches_scopes(state):
    with state.transaction() as tx:
        tx.scope("a")["k"] = 1
        tx["k"] = 2
        assert isinstance(tx.scope("a"), Transaction)
    assert state.scope("a")["k"] == 1
    assert state["k"] == 2

"""What is particular to times to live in Python; the rest is in ``tests/spec/expiry.json``."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from llmspell_state import MISSING, ConflictError, InvalidError, InvalidTypeError, State, View

ALMOST = timedelta(seconds=5)
"""How far off a time may be on a machine that is busy."""

BAD_TYPES = [True, "5", b"5", 5j, Decimal(5), Fraction(5), [5], datetime.now(timezone.utc), object()]
BAD_NUMBERS = [
    0,
    0.0,
    -1,
    -0.5,
    math.nan,
    -math.inf,
    1e12,
    10**400,
    -(10**400),
    timedelta(0),
    timedelta(-1),
    timedelta.max,
]


def left(state: Any, key: str) -> timedelta:
    """How long a key has still to live."""
    return state.entry(key).expires - datetime.now(timezone.utc)


@pytest.mark.parametrize("ttl", [3600, 3600.0, timedelta(hours=1), timedelta(seconds=3599, microseconds=999_999)])
def test_a_time_to_live_is_a_number_of_seconds_or_a_timedelta(state: State, ttl: Any) -> None:
    state.set("a", 1, ttl=ttl)
    state.set_many({"b": 1}, ttl=ttl)
    state["c"] = 1
    assert state.touch("c", ttl) is True
    with state.transaction() as tx:
        tx.set("d", 1, ttl=ttl)
        tx.set_many({"e": 1}, ttl=ttl)
        tx["f"] = 1
        assert tx.touch("f", ttl) is True
    for key in "abcdef":
        assert abs(left(state, key) - timedelta(hours=1)) < ALMOST, key


def test_infinity_is_for_ever_and_none_is_as_the_scope_says(state: State) -> None:
    state.set_default_ttl(timedelta(minutes=1))
    assert state.default_ttl() == 60.0 and type(state.default_ttl()) is float
    state.set_many({"a": 1, "b": 1}, ttl=math.inf)
    state.set("c", 1, ttl=None)
    state.touch("b")
    assert state.entry("a").expires is None
    assert left(state, "b") < timedelta(minutes=1) + ALMOST and left(state, "c") < timedelta(minutes=1) + ALMOST
    assert state.set_default_ttl(math.inf) < state.set_default_ttl() == state.version
    assert state.default_ttl() is None


@pytest.mark.parametrize("ttl", BAD_TYPES, ids=repr)
def test_what_is_no_time_is_a_type_error(state: State, ttl: Any) -> None:
    calls = [
        lambda: state.set("k", 2, ttl=ttl),
        lambda: state.set_many({"k": 2}, ttl=ttl),
        lambda: state.touch("k", ttl),
        lambda: state.set_default_ttl(ttl),
        lambda: state.transact(lambda tx: tx.set("k", 2, ttl=ttl)),
        lambda: state.transact(lambda tx: tx.set_many({"k": 2}, ttl=ttl)),
        lambda: state.transact(lambda tx: tx.touch("k", ttl)),
    ]
    version = state.set("k", 1)
    for call in calls:
        with pytest.raises(InvalidTypeError, match="ttl takes a number of seconds or a timedelta, not "):
            call()
    assert state["k"] == 1 and state.version == version


@pytest.mark.parametrize("ttl", BAD_NUMBERS, ids=lambda ttl: repr(ttl)[:30])
def test_a_time_that_cannot_be_is_a_value_error(state: State, ttl: Any) -> None:
    calls = [
        lambda: state.set("k", 2, ttl=ttl),
        lambda: state.set_many({"k": 2}, ttl=ttl),
        lambda: state.touch("k", ttl),
        lambda: state.set_default_ttl(ttl),
        lambda: state.transact(lambda tx: tx.touch("k", ttl)),
    ]
    version = state.set("k", 1)
    for call in calls:
        with pytest.raises(InvalidError, match="ttl is ") as raised:
            call()
        assert isinstance(raised.value, ValueError) and not isinstance(raised.value, TypeError)
    assert state["k"] == 1 and state.version == version


def test_a_time_to_live_goes_with_a_version(state: State) -> None:
    version = state.set("lease", "me", ttl=1_000, if_version=0)
    with pytest.raises(ConflictError):
        state.set("lease", "you", ttl=1_000, if_version=0)
    state.set("lease", "me still", ttl=2_000, if_version=version)
    assert left(state, "lease") > timedelta(seconds=1_500)
    with state.transaction() as tx:
        tx.set("lease", "me ever", ttl=math.inf, if_version=state.entry("lease").version)
    assert state.entry("lease").expires is None


def test_a_mapping_does_not_show_what_has_expired(state: State) -> None:
    state.set_many({"a": 1, "b": 2}, ttl=0.5)
    state["c"] = 3
    tx = state.transaction()
    tx["own"] = 4
    assert len(state) == 3
    time.sleep(0.55)
    assert len(state) == 1 and list(state) == ["c"] and dict(state) == {"c": 3} and list(reversed(state)) == ["c"]
    assert "a" not in state and "a" not in state.keys("*") and list(state.values()) == [3]
    for gone in (lambda: state["a"], lambda: state.pop("a")):
        with pytest.raises(KeyError):
            gone()
    assert state.get("a") is None and state.pop("a", 7) == 7
    with pytest.raises(KeyError):
        del state["a"]
    assert state.setdefault("a", 5) == 5 and state.entry("a").expires is None
    assert "b" not in tx and len(tx) == 2 and sorted(tx) == ["c", "own"]
    tx.rollback()
    assert state.popitem() == ("a", 5) and state.popitem() == ("c", 3)
    with pytest.raises(KeyError):
        state.popitem()


def test_updates_leave_the_time_to_live(state: State) -> None:
    state.set_many({"n": 1, "list": [], "dict": {}}, ttl=1_000)
    state.modify("n", lambda n: n + 1)
    state.append("list", 1)
    with state.transaction() as tx:
        tx.modify("n", lambda n: n + 1)
        tx.merge("dict", {"a": 1})
    assert all(state.entry(key).expires is not None for key in state)
    state["n"] = 4
    assert state.entry("n").expires is None


def test_what_has_expired_is_told(state: State) -> None:
    watch = state.watch("k")
    state.set("k", 1, ttl=1_000)
    state.touch("k", 0.03)
    told = [watch.next(10) for _ in range(3)]
    assert [(change.operation, change.value, change.old) for change in told] == [
        ("set", 1, MISSING),
        ("touch", 1, 1),
        ("expire", MISSING, 1),
    ]
    assert [(r.operation, r.value) for r in state.history("k")] == [("expire", MISSING), ("touch", 1), ("set", 1)]


def test_a_view_has_no_verb_that_writes() -> None:
    writing = ["touch", "set", "set_many", "set_default_ttl", "set_retention", "fork", "merge_from", "cleanup"]
    assert not [name for name in writing if hasattr(View, name)]

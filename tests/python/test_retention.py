"""What is particular to retention in Python; the rest is in ``tests/spec/retention.json``."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections import OrderedDict
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from llmspell_state import (
    Cleanup,
    ClosedError,
    InvalidError,
    InvalidTypeError,
    NotFoundError,
    RetentionPolicy,
    State,
    Usage,
)


def test_a_policy_is_a_value() -> None:
    policy = RetentionPolicy(max_age=timedelta(days=30), cleanup_interval=timedelta(minutes=1))
    assert policy == RetentionPolicy() and hash(policy) == hash(RetentionPolicy())
    assert (policy.max_age, policy.cleanup_interval) == (2_592_000.0, 60.0)
    assert repr(RetentionPolicy()) == (
        "RetentionPolicy(max_age=2592000.0, max_versions=100, max_bytes=None, "
        "trim_watched=False, cleanup_interval=60.0)"
    )
    assert replace(policy, max_versions=None) == RetentionPolicy(max_versions=None) != policy
    assert pickle.loads(pickle.dumps(policy)) == copy.deepcopy(policy) == policy
    with pytest.raises(FrozenInstanceError):
        policy.max_versions = 1
    with pytest.raises(TypeError):
        RetentionPolicy(max_versoins=5)


@pytest.mark.parametrize(
    "policy",
    [
        RetentionPolicy(max_age=timedelta(hours=1), max_versions=2, max_bytes=1_000),
        {"max_age": 3600, "max_versions": 2, "max_bytes": 1_000},
        MappingProxyType({"max_age": timedelta(hours=1), "max_versions": 2.0, "max_bytes": 1_000}),
        OrderedDict(
            max_age=3600.0, max_versions=2, max_bytes=1_000, trim_watched=False, cleanup_interval=timedelta(0, 60)
        ),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_policy_is_given_as_such_or_as_a_mapping(state: State, path: Path, policy: Any) -> None:
    expected = RetentionPolicy(max_age=3600.0, max_versions=2, max_bytes=1_000)
    version = state.set_retention(policy)
    assert version == state.version and state.retention() == expected
    state.set_retention(None)
    assert state.retention() == RetentionPolicy()
    other = path.with_name("other.db")
    with State(other, retention=policy) as opened:
        assert opened.retention() == opened.scope("a").retention() == expected
        settings = opened.config
    with State.from_config(settings) as again:
        assert again.retention() == expected
    with State.from_config({"retention": policy}) as in_memory:
        assert in_memory.retention() == expected


def test_no_bound_is_none(state: State) -> None:
    keep_all = RetentionPolicy(max_age=None, max_versions=None)
    state.set_retention(keep_all)
    assert state.retention() == keep_all
    state.set_retention({"max_age": None, "max_versions": None})
    assert state.retention() == keep_all
    with State(retention=keep_all) as opened:
        assert opened.retention() == keep_all


@pytest.mark.parametrize(
    "policy", [5, "all", True, [("max_versions", 5)], timedelta(1), object(), RetentionPolicy], ids=repr
)
def test_what_is_no_policy_is_a_type_error(state: State, policy: Any) -> None:
    for call in (lambda: state.set_retention(policy), lambda: State(retention=policy)):
        with pytest.raises(InvalidTypeError, match="retention takes a RetentionPolicy or a mapping of its parts, not "):
            call()
    assert state.retention() == RetentionPolicy()


@pytest.mark.parametrize(
    ("part", "bad"),
    [
        *[("max_age", bad) for bad in (-1, math.nan, math.inf, "5", True, [], 5j, timedelta(-1), object())],
        *[("max_versions", bad) for bad in (0, -1, 1.5, math.inf, math.nan, "5", True, timedelta(1), 10**30)],
        *[("max_bytes", bad) for bad in (-1, 1.5, math.inf, "5", True, b"5")],
        *[("trim_watched", bad) for bad in (None, 1, "yes")],
        *[("cleanup_interval", bad) for bad in (None, 0, 0.01, -1, math.inf, math.nan, "5", timedelta(0))],
    ],
)
def test_a_part_that_cannot_be_is_named(state: State, part: str, bad: Any) -> None:
    for policy in ({part: bad}, RetentionPolicy(**{part: bad})):
        for call in (lambda policy=policy: state.set_retention(policy), lambda policy=policy: State(retention=policy)):
            with pytest.raises(InvalidError, match=part):
                call()
    assert state.retention() == RetentionPolicy()


@pytest.mark.parametrize("policy", [{"max_versoins": 5}, {5: 5}, {"": 5}, {"a\ud800": 5}])
def test_an_unknown_part_is_refused(state: State, policy: Any) -> None:
    for call in (lambda: state.set_retention(policy), lambda: State(retention=policy)):
        with pytest.raises(InvalidError, match="retention"):
            call()


def test_cleaning_up_tells_what_it_did(state: State) -> None:
    state.set_retention({"max_versions": 1})
    before = state.set("k", "old")
    state.set("k", "new")
    done = state.cleanup()
    assert done == Cleanup(expired=0, trimmed=1) and repr(done) == "Cleanup(expired=0, trimmed=1)"
    with pytest.raises(NotFoundError, match="retention"):
        state.at(before)["k"]
    assert state["k"] == "new" and state.verify().ok


def test_usage_counts_what_is_and_what_was(state: State) -> None:
    before = state.usage()
    assert before == Usage(keys=0, live_bytes=0, history_bytes=0, changes=0)
    inner = state.scope("inner")
    inner["k"] = "1234"
    inner["k"] = "12"
    state.set("gone", 1)
    del state["gone"]
    assert inner.usage() == Usage(keys=1, live_bytes=4, history_bytes=6, changes=2)
    assert state.usage() == Usage(keys=1, live_bytes=4, history_bytes=7, changes=4)
    with pytest.raises(FrozenInstanceError):
        before.keys = 1


def test_threads_write_while_others_clean_up(path: Path) -> None:
    with State(path, sync_mode="NORMAL", retention=RetentionPolicy(max_versions=2)) as state:
        done = threading.Event()
        trimmed, failed = [], []

        def clean() -> None:
            try:
                while not done.is_set():
                    trimmed.append(state.cleanup().trimmed)
            except BaseException as error:
                failed.append(error)

        def write(worker: int) -> None:
            try:
                scope = state.scope(f"s{worker % 2}")
                for n in range(100):
                    state.increment("count")
                    scope.set(f"k{n % 5}", n, ttl=0.001 if n % 3 else None)
                    scope.history("k0")
            except BaseException as error:
                failed.append(error)

        writers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        cleaners = [threading.Thread(target=clean) for _ in range(2)]
        for thread in [*cleaners, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in cleaners:
            thread.join()
        assert failed == [] and sum(trimmed) > 0
        state.cleanup()
        assert state["count"] == 400 and len(state.history("count")) == 2
        verification = state.verify()
        assert verification.ok, verification.problems


def test_a_closed_state_says_so() -> None:
    with State() as state:
        scope = state.scope("a")
    calls = [state.cleanup, state.usage, state.retention, state.default_ttl, scope.set_retention, scope.set_default_ttl]
    calls += [lambda: scope.touch("k", 5), lambda: scope.fork("a", "b"), lambda: scope.merge_from(scope)]
    for call in calls:
        with pytest.raises(ClosedError):
            call()

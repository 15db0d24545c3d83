"""What is particular to history in Python; the rest is in ``tests/spec/history.json``."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import FrozenInstanceError
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import (
    MISSING,
    ClosedError,
    Difference,
    ForkedError,
    InvalidError,
    InvalidTypeError,
    NotFoundError,
    Revision,
    Scope,
    State,
    Undone,
    View,
)

LATER = datetime(9999, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def view(state: State) -> View:
    """Two keys, and a scope, that are all gone since."""
    state.update(a=1, b=[2])
    version = state.scope("inner").set("c", 3)
    state.clear()
    state.scope("inner").clear()
    return state.at(version)


def test_a_revision_has_types_of_python(state: State) -> None:
    run = state.as_run(actor="planner", run="r1", reason="as asked")
    version = run.set("a", {"n": [1, b"\x00"]})
    state.delete("a")
    deleted, made = state.history("a")
    assert isinstance(made, Revision)
    assert (made.version, made.operation, made.value) == (version, "set", {"n": [1, b"\x00"]})
    assert (made.actor, made.run, made.reason) == ("planner", "r1", "as asked")
    assert datetime.now(timezone.utc) - made.time < timedelta(minutes=1)
    assert (deleted.operation, deleted.value, deleted.actor) == ("delete", MISSING, None)
    with pytest.raises(FrozenInstanceError):
        made.version = 1  # type: ignore[misc]


def test_history_gives_values_of_the_callers_own(state: State) -> None:
    state["a"] = [1]
    state.history("a")[0].value.append(2)
    assert state.history("a")[0].value == [1]


def test_history_tells_a_hundred_changes_unless_told(state: State) -> None:
    for n in range(150):
        state["a"] = n
    assert [revision.value for revision in state.history("a")] == list(range(149, 49, -1))
    assert len(state.history("a", 150)) == len(state.history("a", limit=2**64 - 1)) == 150


def test_a_run_is_a_scope_whose_transactions_and_scopes_are_of_it(state: State) -> None:
    run = state.as_run(run="r1")
    assert isinstance(run, Scope) and run.name == state.name
    with run.scope("inner").transaction() as tx:
        tx["a"] = 1
    assert state.scope("inner").history("a")[0].run == "r1"


def test_a_run_stands_before_the_actor_of_the_state(path: Path) -> None:
    with State(path, actor="worker") as state, state.watch() as watch:
        state["a"] = 1
        state.as_run(run="r1", reason="because")["a"] = 2
        state.as_run(actor="planner")["a"] = 3
        told = [(r.actor, r.run, r.reason) for r in state.history("a")]
        assert told == [("planner", None, None), ("worker", "r1", "because"), ("worker", None, None)]
        seen = [watch.next(60) for _ in range(3)]
        assert [(change.actor, change.run, change.reason) for change in seen if change] == told[::-1]


def test_a_run_turns_objects_into_values_as_its_state_does() -> None:
    with State(default=str) as state:
        run = state.as_run(run="r1")
        run["a"] = Path("x")
        assert run["a"] == "x"


def test_a_view_is_a_mapping_that_cannot_be_written(view: View) -> None:
    assert isinstance(view, Mapping) and not isinstance(view, MutableMapping)
    assert dict(view) == {"a": 1, "b": [2]} and {**view} == dict(view)
    assert len(view) == view.count() == 2 and view.count("a*") == 1 and view
    assert "a" in view and "c" not in view and view.exists("b") and not view.exists("c")
    assert view["a"] == 1 and view.get("c") is None and view.get("c", 7) == 7
    assert view.get_many(["b", "c"]) == {"b": [2]}
    assert list(view) == ["a", "b"] and list(reversed(view)) == ["b", "a"]
    for missing in ("c", "inner"):
        with pytest.raises(KeyError) as error:
            view[missing]
        assert error.value.args == (missing,)
    with pytest.raises(TypeError):
        view["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        del view["a"]  # type: ignore[attr-defined]
    for verb in ("set", "update", "pop", "clear", "increment", "setdefault", "transaction"):
        assert not hasattr(view, verb)


def test_the_listings_of_a_view_select_as_those_of_a_scope(view: View) -> None:
    assert list(view.keys("*", after="a")) == ["b"] and list(view.keys("[b]")) == ["b"]
    assert list(view.values(reverse=True)) == [[2], 1]
    assert list(view.items(limit=1)) == [("a", 1)]
    keys = view.keys()
    assert list(keys) == list(keys) == ["a", "b"] and len(keys) == 2 and keys & {"a", "z"} == {"a"}
    assert ("b", [2]) in view.items() and [2] in view.values()
    assert repr(view.items("a*", limit=1)) == f"<View at version {view.version}>.items('a*', limit=1)"


def test_an_entry_of_the_past_has_the_version_of_then(state: State) -> None:
    first = state.set("a", 1)
    second = state.set("a", 2)
    state["a"] = 3
    entry = state.at(second).entry("a")
    assert entry is not None and (entry.value, entry.version) == (2, second)
    assert entry.created <= entry.updated and entry.expires is None
    assert state.at(first - 1).entry("a") is None


def test_a_view_gives_values_of_the_callers_own(view: View) -> None:
    for _ in range(3):
        view["b"].append(3)
        next(iter(view.values("b"))).append(3)
    assert view["b"] == [2]


def test_a_view_reaches_the_scopes_inside(view: View) -> None:
    inner = view.scope("inner")
    assert isinstance(inner, View) and dict(inner) == {"c": 3} and inner.version == view.version
    with pytest.raises(NotFoundError):
        view.scope("nobody")


def test_a_view_says_what_it_is_and_is_equal_to_itself_only(state: State, view: View) -> None:
    other = state.at(view.version)
    assert repr(view) == f"<View at version {view.version}>"
    assert view == view and view != other and view != dict(view) and len({view, other}) == 2
    assert "__dict__" not in dir(view)


def test_a_view_cannot_be_pickled(view: View) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(view)


def test_a_moment_may_be_a_date_of_any_time_zone(state: State) -> None:
    for n in range(3):
        state["a"] = n
        time.sleep(0.005)
    for revision in state.history("a"):
        for zone in (timezone.utc, timezone(timedelta(hours=-9, minutes=-30))):
            moment = revision.time.astimezone(zone)
            assert state.at(moment)["a"] == revision.value
            assert state.at(moment + timedelta(microseconds=999))["a"] == revision.value
            assert state.at(moment - timedelta(microseconds=1)).get("a", -1) == revision.value - 1
            assert state.at(moment).version == revision.version
    assert state.at(LATER)["a"] == 2
    assert state.at(datetime(1, 1, 1, tzinfo=timezone.utc)).version == 0
    first = state.history("a")[-1].time
    assert list(state.diff(first, LATER)) == [Difference("a", 0, 2)]
    state.revert("a", first)
    assert state["a"] == 0
    assert state.revert_to(first - timedelta(milliseconds=1)) == 1 and "a" not in state


@pytest.mark.parametrize(
    "call",
    [
        lambda state, when: state.at(when),
        lambda state, when: state.diff(when),
        lambda state, when: state.diff(0, when),
        lambda state, when: state.revert("a", when),
        lambda state, when: state.revert_to(when),
    ],
)
def test_a_moment_that_is_none_is_refused(state: State, call: Any) -> None:
    state["a"] = 1
    with pytest.raises(InvalidError, match=r"takes a datetime with a time zone.* has none"):
        call(state, datetime(2026, 1, 1))
    for wrong in ("1", True, 1.0, date(2026, 1, 1), timedelta(1)):
        with pytest.raises(InvalidTypeError, match=r"takes an int, which is a version, or a datetime, not"):
            call(state, wrong)
    for outside in (-1, 2**64):
        with pytest.raises(InvalidError, match=r"takes an int from 0 to 2\*\*64 - 1"):
            call(state, outside)
    with pytest.raises(InvalidError, match="newest commit"):
        call(state, 2)
    assert state.version == 1


def test_differences_are_an_iterator_that_threads_may_share(state: State) -> None:
    version = state.set_many({f"k{n:03}": n for n in range(300)})
    state.set_many({f"k{n:03}": -n for n in range(300)})
    told = state.diff(version)
    assert isinstance(told, Iterator) and iter(told) is told
    assert isinstance(next(told), Difference) and next(told) == Difference("k002", 2, -2)
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.extend(one.key for one in told)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys) == [f"k{n:03}" for n in range(3, 300)]


def test_what_was_undone_and_what_was_not_is_told(state: State) -> None:
    run = state.as_run(run="bad")
    run["a"] = 1
    run.scope("notes").scope("deep")["b"] = 1
    state.scope("notes").scope("deep")["b"] = 2
    undone = state.undo(run="bad")
    assert undone == Undone(state.version, 1, ((("notes", "deep"), "b"),))
    assert "a" not in state and hash(undone) == hash(undone)
    assert state.undo(run="bad", actor=None, since=state.version) == Undone(state.version, 0, ())
    with pytest.raises(TypeError):
        state.undo("bad")  # type: ignore[misc]


def test_undoing_is_a_change_of_whoever_undoes(state: State) -> None:
    state["a"] = 1
    state.as_run(actor="agent", run="bad")["a"] = 2
    state.as_run(actor="operator", run="repair", reason="the agent was fooled").undo(run="bad")
    newest = state.history("a", 1)[0]
    assert (newest.value, newest.actor, newest.reason) == (1, "operator", "the agent was fooled")
    assert state.undo(run="repair").keys == 1 and state["a"] == 2


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        *[("as_run", {name: 1}) for name in ("actor", "run", "reason")],
        *[("as_run", {name: "a\ud800"}) for name in ("actor", "run", "reason")],
        *[("undo", {name: 1}) for name in ("actor", "run")],
        ("undo", {"since": -1, "run": "r"}),
        ("undo", {"since": datetime.now(timezone.utc), "run": "r"}),
        ("history", {"key": 1}),
        ("history", {"limit": -1, "key": "a"}),
        ("history", {"limit": True, "key": "a"}),
        ("diff", {"pattern": None, "since": 0}),
        ("revert", {"key": b"a", "when": 0}),
        ("revert_to", {"pattern": 1, "when": 0}),
    ],
)
def test_arguments_of_the_wrong_type_are_named(state: State, verb: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(given))):
        getattr(state, verb)(**given)


def test_what_was_made_of_a_state_is_closed_with_it(state: State) -> None:
    version = state.set("a", 1)
    state["a"] = 2
    view, told, run = state.at(version), state.diff(version), state.as_run(run="r1")
    keys = iter(view)
    state.close()
    for call in (
        lambda: view["a"],
        lambda: list(view),
        lambda: view.scope("b"),
        lambda: next(told),
        lambda: next(keys),
        lambda: run.undo(run="r1"),
        lambda: run.revert("a", version),
        lambda: run.revert_to(version),
        lambda: run.as_run(),
        lambda: run.at(LATER),
    ):
        with pytest.raises(ClosedError):
            call()
    assert view.version == version


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_past_is_refused_in_a_fork(path: Path) -> None:
    with State(path) as state:
        version = state.set("a", 1)
        state["a"] = 2
        view, told = state.at(version), state.diff(version)
        for call in (
            lambda: view["a"],
            lambda: len(view),
            lambda: next(told),
            lambda: state.history("a"),
            lambda: state.undo(run="r1"),
            lambda: state.revert("a", version),
        ):
            child = os.fork()
            if child == 0:
                try:
                    call()
                except ForkedError:
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        assert next(told).new == 2 and view["a"] == 1


def test_threads_share_a_view_while_others_write(state: State) -> None:
    version = state.set_many({f"k{n:03}": n for n in range(200)})
    view = state.at(version)
    expected = dict(view)
    found: list[bool] = []

    def read() -> None:
        found.extend(dict(view) == expected and view["k007"] == 7 for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(200):
        state[f"k{n:03}"] = "new"
    for thread in threads:
        thread.join()
    assert found == [True] * 20

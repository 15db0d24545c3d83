"""What is particular to forks of scopes, and merging them, in Python; the rest is in ``tests/spec/fork.json``."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import date
from typing import Any

import llmspell_state
import pytest
from llmspell_state import (
    DELETE,
    LEAVE,
    MISSING,
    OURS,
    THEIRS,
    ClosedError,
    ConflictError,
    InvalidError,
    InvalidTypeError,
    MergeConflict,
    Merged,
    NotFoundError,
    Resolution,
    Scope,
    State,
    aio,
)


@pytest.fixture
def agent(state: State) -> Scope:
    return state.scope("agent")


@pytest.fixture
def trial(state: State, agent: Scope) -> Scope:
    """A fork that conflicts in `a`, and in `gone` and `new`, where one side has nothing."""
    agent.update(a=1, gone=1, quiet=1)
    trial = state.fork("agent", "trial")
    trial.update(a=2, new="theirs", quiet=2)
    del trial["gone"]
    agent.update(a=3, gone=3, new="ours")
    return trial


def test_a_fork_is_a_scope_of_its_own(state: State, agent: Scope) -> None:
    agent["k"] = 1
    trial = state.fork(scope="agent", name="trial")
    assert type(trial) is Scope and trial.name == "trial" and trial["k"] == 1
    with pytest.raises(NotFoundError):
        state.fork("nobody", "x")
    with pytest.raises(ConflictError):
        state.fork("agent", "trial")
    for bad in ((5, "x"), ("agent", None), ("agent", b"x")):
        with pytest.raises(InvalidTypeError, match="^scope takes a str" if bad[0] == 5 else "^name takes a str"):
            state.fork(*bad)


def test_a_fork_keeps_the_hook_and_the_origin() -> None:
    with State(default=lambda value: f"<{value!r}>") as state:
        state.scope("agent")["k"] = 1
        trial = state.as_run(run="r1").fork("agent", "trial")
        trial["k"] = 5j
        assert trial["k"] == "<5j>" and trial.history("k")[0].run == "r1"
        state.scope("agent")["k"] = 2
        state.scope("agent").as_run(run="r2").merge_from(trial, lambda _: 7j)
        assert state.scope("agent")["k"] == "<7j>" and state.scope("agent").history("k")[0].run == "r2"


def test_what_merging_answers_is_a_value(agent: Scope, trial: Scope, state: State) -> None:
    merged = agent.merge_from(trial)
    assert merged == Merged(state.version, 1, (((), "a"), ((), "gone"), ((), "new")))
    assert repr(merged).startswith("Merged(version=") and hash(merged)
    assert dict(agent) == {"a": 3, "gone": 3, "new": "ours", "quiet": 2}
    with pytest.raises(FrozenInstanceError):
        merged.keys = 5


def test_a_resolver_sees_what_is_missing_as_such(agent: Scope, trial: Scope) -> None:
    seen: list[MergeConflict] = []

    def resolve(conflict: MergeConflict) -> Resolution:
        seen.append(conflict)
        return LEAVE

    agent.merge_from(trial, resolve=resolve)
    assert sorted(seen, key=lambda conflict: conflict.key) == [
        MergeConflict((), "a", 1, 3, 2),
        MergeConflict((), "gone", 1, 3, MISSING),
        MergeConflict((), "new", MISSING, "ours", "theirs"),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: OURS, {"a": 3, "gone": 3, "new": "ours"}),
        (lambda _: THEIRS, {"a": 2, "new": "theirs"}),
        (lambda _: DELETE, {}),
        (lambda _: LEAVE, {"a": 3, "gone": 3, "new": "ours"}),
        (lambda _: MISSING, {}),
        (lambda conflict: conflict.theirs, {"a": 2, "new": "theirs"}),
        (lambda conflict: conflict.ours, {"a": 3, "gone": 3, "new": "ours"}),
        (lambda _: None, {"a": None, "gone": None, "new": None}),
        (lambda _: date(2024, 1, 2), {"a": "2024-01-02", "gone": "2024-01-02", "new": "2024-01-02"}),
        (lambda _: "OURS", {"a": "OURS", "gone": "OURS", "new": "OURS"}),
        (lambda _: False, {"a": False, "gone": False, "new": False}),
    ],
)
def test_an_answer_is_a_resolution_or_a_value(
    agent: Scope, trial: Scope, answer: Callable[[MergeConflict], object], expected: dict[str, object]
) -> None:
    merged = agent.merge_from(trial, answer)
    assert dict(agent) == {**expected, "quiet": 2}
    assert bool(merged.conflicts) == (answer(None) is LEAVE if answer.__code__.co_varnames == ("_",) else False)


def test_resolutions_are_names_that_cannot_be_stored(state: State) -> None:
    for resolution in (OURS, THEIRS, DELETE, LEAVE):
        assert isinstance(resolution, Resolution) and resolution
        assert getattr(llmspell_state, repr(resolution)) is resolution
        assert copy.deepcopy(resolution) is pickle.loads(pickle.dumps(resolution)) is resolution
        for value in (resolution, {"a": [resolution]}):
            with pytest.raises(InvalidError, match="cannot be stored"):
                state["k"] = value


def test_an_answer_that_cannot_be_stored_ends_the_merge(agent: Scope, trial: Scope) -> None:
    before = dict(agent)
    for bad in (5j, {"a": OURS}, {1: 2}, float("nan"), "a\ud800"):
        with pytest.raises(InvalidError):
            agent.merge_from(trial, lambda _, bad=bad: bad)
    assert dict(agent) == before


class OwnError(BaseException):
    """What nobody catches by mistake."""


def test_what_a_resolver_raises_ends_the_merge(agent: Scope, trial: Scope) -> None:
    before = dict(agent)

    def resolve(_: MergeConflict) -> object:
        raise OwnError

    with pytest.raises(OwnError):
        agent.merge_from(trial, resolve)
    with pytest.raises(OwnError):
        agent.merge_from(trial, lambda conflict: OURS if conflict.key == "a" else resolve(conflict))
    assert dict(agent) == before


def test_only_a_plain_function_resolves(agent: Scope, trial: Scope) -> None:
    async def resolve(_: MergeConflict) -> object:
        return OURS

    with pytest.raises(InvalidTypeError, match="resolve takes a plain function, not an async one"):
        agent.merge_from(trial, resolve)
    for bad in (5, "ours", OURS):
        with pytest.raises(InvalidTypeError, match="resolve takes a function"):
            agent.merge_from(trial, bad)
    assert agent["quiet"] == 1


def test_only_a_fork_of_the_scope_is_merged(state: State, agent: Scope, trial: Scope) -> None:
    for bad in (None, "trial", {"a": 1}, state.transaction(), agent.at(state.version), aio.State()):
        with pytest.raises(InvalidTypeError, match="fork takes a Scope, not "):
            agent.merge_from(bad)
    for other in (state, agent, state.scope("other")):
        with pytest.raises(InvalidError, match="fork"):
            agent.merge_from(other)
    with State(state.path, sync_mode="NORMAL") as opened:
        with pytest.raises(InvalidError, match="another opening"):
            agent.merge_from(opened.scope("trial"))
        with pytest.raises(InvalidError, match="another opening"):
            agent.merge_from(opened.scope("trial"), lambda _: OURS)
    with pytest.raises(ClosedError):
        opened.scope("agent")


def test_a_resolver_may_use_the_state(agent: Scope, trial: Scope) -> None:
    def resolve(conflict: MergeConflict) -> object:
        return [agent.get(conflict.key), trial.get(conflict.key)]

    agent.merge_from(trial, resolve)
    assert agent["a"] == [3, 2]


def test_a_key_that_changes_meanwhile_is_asked_about_again(agent: Scope, trial: Scope) -> None:
    asked: list[tuple[str, Any]] = []

    def resolve(conflict: MergeConflict) -> object:
        asked.append((conflict.key, conflict.ours))
        if len(asked) < 3:
            writer = threading.Thread(target=agent.increment, args=("a", 10))
            writer.start()
            writer.join()
        return THEIRS if conflict.key != "a" else conflict.ours + conflict.theirs

    merged = agent.merge_from(trial, resolve)
    assert agent["a"] == 25 and merged.conflicts == ()
    assert [ours for key, ours in asked if key == "a"][-1] == 23
    assert sum(key == "new" for key, _ in asked) == 1


def test_a_conflict_tells_the_scopes_that_lead_to_it(state: State) -> None:
    state.scope("agent").scope("notes")["k"] = 1
    trial = state.fork("agent", "trial")
    trial.scope("notes")["k"] = 2
    state.scope("agent").scope("notes")["k"] = 3
    paths: list[Any] = []
    merged = state.scope("agent").merge_from(trial, lambda conflict: paths.append(conflict.path) or LEAVE)
    assert paths == [("notes",)] and merged.conflicts == ((("notes",), "k"),)

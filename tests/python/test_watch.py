"""What is particular to watching in Python; the rest is in ``tests/spec/watch.json``."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import MISSING, Change, ClosedError, ForkedError, InvalidError, InvalidTypeError, State, Watch


def test_a_change_has_types_of_python(state: State) -> None:
    watch = state.watch("a")
    version = state.set("a", {"n": [1, b"\x00"]})
    change = watch.next()
    assert isinstance(change, Change)
    assert (change.key, change.operation, change.value, change.old) == ("a", "set", {"n": [1, b"\x00"]}, MISSING)
    assert (change.version, change.actor, change.ends_commit) == (version, None, True)
    assert datetime.now(timezone.utc) - change.time < timedelta(minutes=1)
    with pytest.raises(FrozenInstanceError):
        change.key = "b"  # type: ignore[misc]


def test_missing_is_one_false_object_wherever_it_goes(state: State) -> None:
    assert pickle.loads(pickle.dumps(MISSING)) is copy.deepcopy(MISSING) is type(MISSING)() is MISSING
    assert not MISSING and repr(MISSING) == "MISSING"
    with pytest.raises(InvalidError, match="Missing cannot be stored"):
        state.set("a", MISSING)


def test_a_watch_is_an_iterator_that_ends_when_it_is_closed(state: State) -> None:
    with state.watch() as watch:
        state.update(a=1, b=2)
        assert [next(watch).key, next(watch).key] == ["a", "b"]
        assert iter(watch) is watch
    assert watch.closed
    assert list(watch) == [] and watch.next(0) is None


def test_closing_a_watch_ends_the_wait_of_another_thread(state: State) -> None:
    watch = state.watch()
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.extend(watch))
    thread.start()
    state["a"] = 1
    while not told:
        pass
    watch.close()
    thread.join()
    assert [change.key for change in told] == ["a"]


def test_closing_the_state_ends_the_wait_of_another_thread(state: State) -> None:
    watch = state.watch()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            watch.next()
        except ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    state.close()
    thread.join()
    assert len(ended) == 1


def test_threads_share_a_watch(state: State) -> None:
    watch = state.watch()
    state.set_many({f"k{n:04}": n for n in range(1000)})
    told: list[Change] = []

    def take() -> None:
        while (change := watch.next(0.2)) is not None:
            told.append(change)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(change.key for change in told) == [f"k{n:04}" for n in range(1000)]


def test_ctrl_c_ends_the_wait_for_a_change(state: State) -> None:
    watch = state.watch()
    sender = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        sender.start()
        watch.next(60)
    sender.join()
    state["a"] = 1
    assert next(watch).key == "a"


def test_a_watch_sees_what_another_process_writes(path: Path) -> None:
    with State(path) as state, state.watch(name="indexer") as watch:
        program = "import sys; from llmspell_state import State; State(sys.argv[1], actor='other')['a'] = 1"
        with subprocess.Popen([sys.executable, "-c", program, path]):
            change = watch.next(60)
        assert change is not None and (change.value, change.actor) == (1, "other")
        watch.save()
        assert state.named_watches() == {"indexer": change.version} and watch.version == change.version


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that there are threads is the point
def test_a_watch_on_which_another_thread_waits_is_refused_in_a_fork(path: Path) -> None:
    with State(path) as state:
        watch = state.watch()
        thread = threading.Thread(target=lambda: list(watch))
        thread.start()
        for call in (watch.next, watch.save, watch.close, lambda: watch.next(0)) * 5:
            state["a"] = 1
            child = os.fork()
            if child == 0:
                try:
                    call()
                except ForkedError:
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        watch.close()
        thread.join()


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), 10**400])
def test_a_timeout_that_is_no_time_is_refused(state: State, timeout: float) -> None:
    with pytest.raises(InvalidError, match="timeout"):
        state.watch().next(timeout)


@pytest.mark.parametrize("timeout", ["1", True, timedelta(seconds=1)])
def test_a_timeout_of_another_type_is_refused(state: State, timeout: Any) -> None:
    with pytest.raises(InvalidTypeError, match="timeout takes a number of seconds"):
        state.watch().next(timeout)


def test_a_timeout_may_be_longer_than_any_clock(state: State) -> None:
    watch = state.watch(since=0)
    state["a"] = 1
    assert isinstance(watch.next(float("inf")), Change)


@pytest.mark.parametrize("given", [{"since": -1}, {"since": 1.0}, {"name": 1}, {"pattern": None}])
def test_what_is_watched_must_be_of_the_right_type(state: State, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=next(iter(given))):
        state.watch(**given)


def test_a_watch_says_what_it_is(state: State) -> None:
    state["a"] = 1
    watch = state.watch(name="indexer")
    assert isinstance(watch, Watch) and repr(watch) == "<Watch 'indexer' at version 1>"
    watch.close()
    assert repr(state.watch()) == "<Watch at version 1>" and repr(watch) == "<Watch 'indexer' closed>"

"""Handles end in every order: closed, dropped, collected, forked, or with the interpreter itself."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref

import pytest
from llmspell_state import ClosedError, ForkedError, State


def test_everything_of_a_closed_state_is_closed(state: State):
    state.update({f"k{n}": n for n in range(1000)})
    scope, tx, listing = state.scope("a"), state.begin(), iter(state.items())
    next(listing)
    assert not state.closed and not scope.closed
    state.close()
    assert state.closed and scope.closed
    for call in (
        lambda: state["k1"],
        lambda: state.get("k1"),
        lambda: state.set("k", 1),
        lambda: state.set("k", 1, if_version=0),
        lambda: state.set_many({"k": 1}),
        lambda: state.get_many(["k1"]),
        lambda: state.delete("k1"),
        lambda: state.clear(),
        lambda: state.count(),
        lambda: list(state),
        lambda: state.increment("n"),
        lambda: state.modify("n", lambda value: value),
        lambda: state.transaction(),
        lambda: state.transact(lambda tx: None),
        lambda: state.scopes(),
        lambda: state.version,
        lambda: scope.get("k"),
        lambda: scope.scope("b").get("k"),
        lambda: tx.get("k1"),
        lambda: tx.commit(),
        lambda: list(listing),
    ):
        with pytest.raises(ClosedError):
            call()
    state.close()


def test_closing_one_of_two_openings_closes_that_one(path):
    one, two = State(path), State(path)
    one.close()
    with pytest.raises(ClosedError):
        one.get("k")
    two["k"] = 1
    two.close()


def test_a_scope_keeps_its_store_open():
    scope = State().scope("a")
    gc.collect()
    scope["k"] = 1
    assert scope["k"] == 1


def test_a_dropped_state_lets_go_of_its_file(path):
    State(path, sync_mode="NORMAL")["k"] = 1
    gc.collect()
    with State(path, sync_mode="OFF") as state:  # would be refused while another opening is alive
        assert state["k"] == 1


def test_a_hook_that_refers_to_its_state_is_collected():
    class Holder:
        def __init__(self) -> None:
            self.state = State(default=self.hook)

        def hook(self, value: object) -> str:
            return str(value)

    holder = Holder()
    holder.state["k"] = {1}
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_handles_are_neither_pickled_nor_copied(state: State):
    for handle in (state, state.scope("a"), state.begin()):
        with pytest.raises(TypeError):
            pickle.dumps(handle)
        with pytest.raises(TypeError):
            copy.copy(handle)


def test_an_iterator_sees_the_moment_at_which_it_began(state: State):
    state.update({f"k{n:04}": n for n in range(1000)})
    listing = iter(state.items())
    assert next(listing) == ("k0000", 0)
    state.update({f"k{n:04}": -1 for n in range(0, 2000, 2)})
    state.delete("k0999")
    assert list(listing) == [(f"k{n:04}", n) for n in range(1, 1000)]


def test_an_iterator_that_ended_stays_ended(state: State):
    listing = iter(state.keys())
    assert list(listing) == []
    state["a"] = 1
    assert list(listing) == []


def test_handles_of_a_parent_are_refused_in_a_fork(path):
    state = State(path)
    state["k"] = 1
    scope, tx = state.scope("a"), state.begin()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (lambda: state["k"], lambda: state.set("k", 2), lambda: scope.get("k"), lambda: tx.get("k")):
                try:
                    call()
                except ForkedError:
                    continue
                os._exit(2)
            with State(path) as own:
                own.increment("k")
            del state, scope, tx
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert state["k"] == 2
    state["k"] = 3
    tx.rollback()
    state.close()
    with State(path) as again:
        assert again["k"] == 3


@pytest.mark.parametrize(
    "end",
    ["", "state.close()", "del state", "import os; os._exit(0)", "raise SystemExit", "import threading; thread(state)"],
)
def test_the_interpreter_ends_cleanly_with_a_store_open(path, end):
    program = f"""
import threading
from llmspell_state import State
def thread(state):
    def work():
        while True:
            state.increment("in flight")
    threading.Thread(target=work, daemon=True).start()
state = State({str(path)!r}, sync_mode="NORMAL")
state["k"] = {{"a": [1]}}
for _ in range(5): state["k"]
tx = state.begin()
tx["never"] = 1
listing = iter(state.items())
next(listing)
{end}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with State(path, sync_mode="NORMAL") as state:
        assert state["k"] == {"a": [1]}
        assert "never" not in state


@pytest.mark.parametrize(
    "call",
    [
        "state.set('n', 1)",
        "state.modify('n', lambda value: 1)",
        "state.transact(lambda tx: tx.set('n', 1))",
        "state.append('list', 1); state['n'] = state.entry('list').value[0]",
        "state['n'] = 1 if state.get_many(['k']) == {'k': 1} else 0",
        "state['n'] = len(list(state.items()))",
    ],
)
def test_a_finalizer_at_the_end_of_the_interpreter_can_make_every_call(path, call):
    program = f"""
import gc, threading
from llmspell_state import State
state = State({str(path)!r}, sync_mode="NORMAL")
state["k"] = 1
class Last:
    def __init__(self):
        self.state, self.me = state, self
    def __del__(self):
        state = self.state
        {call}
gc.disable()
Last()
threading.Thread(target=lambda: [state.increment("in flight") for _ in range(10**9)], daemon=True).start()
while not state.get("in flight"): pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with State(path, sync_mode="NORMAL") as state:
        assert state["n"] in (1, 2)


def test_a_thread_that_waits_for_another_process_does_not_keep_the_interpreter(path):
    program = f"""
import sqlite3, subprocess, sys, threading
from llmspell_state import State
state = State({str(path)!r}, busy_timeout_ms=120_000)
state["k"] = 1
hold = "import sqlite3, sys; store = sqlite3.connect(sys.argv[1], isolation_level=None); " \\
    "store.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
holder = subprocess.Popen([sys.executable, "-c", hold, state.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
holder.stdout.readline()
threading.Thread(target=lambda: state.set("k", 2), daemon=True).start()
state.get("k")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with State(path, sync_mode="NORMAL") as state:
        assert state["k"] == 1

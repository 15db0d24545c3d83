"""A fork while other threads are in the middle of something, and blocks that the child leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from llmspell_state import ForkedError, State

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that there are threads is the point


def refused_in_children(work: Callable[[], None], call: Callable[[], object]) -> None:
    """Forks again and again while a thread works; every child must be refused, and not wait."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                try:
                    call()
                except ForkedError:
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_a_listing_that_another_thread_was_reading_is_refused_in_a_fork(path: Path) -> None:
    with State(path, sync_mode="NORMAL") as state:
        state.update({f"k{n:05}": "x" * 1000 for n in range(2000)})
        listing = [iter(state.values())]

        def read() -> None:
            if next(listing[0], None) is None:
                listing[0] = iter(state.values())

        refused_in_children(read, lambda: list(listing[0]))


@pytest.mark.parametrize("verb", ["get", "rollback", "commit"])
def test_a_transaction_that_another_thread_was_using_is_refused_in_a_fork(path: Path, verb: str) -> None:
    with State(path, sync_mode="NORMAL") as state:
        state.update({f"k{n:05}": n for n in range(500)})
        tx = state.begin()
        arguments = ("k00001",) if verb == "get" else ()
        refused_in_children(lambda: list(tx.keys()), lambda: getattr(tx, verb)(*arguments))
        tx.rollback()


@pytest.mark.parametrize("block", ["State(path)", "state.begin()", "state.transaction()"])
def test_a_child_of_a_fork_exits_out_of_the_blocks_of_its_parent(path: Path, block: str) -> None:
    program = f"""
import os, sys
from llmspell_state import State
path = {str(path)!r}
state = State(path)
with {block} as inside:
    inside["k"] = 1
    child = os.fork()
    if child == 0:
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert state["k"] == 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_block_that_a_child_of_a_fork_falls_out_of_says_so(path: Path) -> None:
    program = f"""
import os, sys
from llmspell_state import ForkedError, State
child = None
try:
    with State({str(path)!r}) as state:
        child = os.fork()
except ForkedError:
    sys.exit(7)
if child == 0:
    sys.exit(8)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (7, "")

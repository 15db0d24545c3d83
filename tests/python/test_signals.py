"""Ctrl-C while a write waits for another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmspell_state import State

HOLD = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
PATIENCE_MS = 120_000


@contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """Another process writes until the function is called."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder.stdin.close


@contextmanager
def interrupted() -> Iterator[None]:
    """The block is to end in Ctrl-C, long before the patience of a write is at its end."""
    sender = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sender.start()
        yield
    sender.join()
    assert time.monotonic() - begin < PATIENCE_MS / 1000 / 2


@pytest.mark.parametrize(
    "write",
    [
        lambda state: state.set("never", 1),
        lambda state: state.update(never=1),
        lambda state: state.modify("never", lambda _: 1),
        lambda state: state.transact(lambda tx: tx.set("never", 1)),
        lambda state: state.scope("never"),
    ],
)
def test_a_write_that_waits_for_another_process_is_interrupted_and_changes_nothing(path: Path, write) -> None:
    with State(path, busy_timeout_ms=PATIENCE_MS) as state:
        state["k"] = 1
        with held(path), interrupted():
            write(state)
        assert list(state) == ["k"] and state.scopes() == []
        state["k"] = 2
    with State(path) as again:
        assert dict(again) == {"k": 2}


def test_a_write_behind_that_of_another_thread_is_interrupted_alone(path: Path) -> None:
    with State(path, busy_timeout_ms=PATIENCE_MS) as state, held(path) as release:
        other = threading.Thread(target=state.set, args=("other", 1))
        other.start()
        with interrupted():
            state.set("never", 1)
        assert other.is_alive()
        release()
        other.join()
        assert dict(state) == {"other": 1}


def test_a_write_in_front_of_that_of_another_thread_is_interrupted_alone(path: Path) -> None:
    with State(path, busy_timeout_ms=PATIENCE_MS) as state, held(path) as release:
        other = threading.Timer(0.1, state.set, args=("other", 1))
        with interrupted():
            other.start()
            state.set("never", 1)
        assert other.is_alive()
        release()
        other.join()
        assert dict(state) == {"other": 1}


def test_a_write_goes_on_waiting_when_the_handler_returns(path: Path) -> None:
    handled = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: handled.set())
    try:
        with State(path, busy_timeout_ms=PATIENCE_MS) as state, held(path) as release:
            sender = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
            releaser = threading.Thread(target=lambda: (handled.wait(), release()))
            sender.start()
            releaser.start()
            state["k"] = 1
            assert handled.is_set()
            assert state["k"] == 1
            releaser.join()
    finally:
        signal.signal(signal.SIGINT, before)

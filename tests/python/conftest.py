"""Every test that takes `state` runs twice: in memory and on a file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from llmspell_state import State

# A shell that runs the tests in the background ignores Ctrl-C on their behalf, and Python then leaves it at that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made; nothing is there yet."""
    return tmp_path / "agent.db"


@pytest.fixture(params=["memory", "file"])
def state(request: pytest.FixtureRequest, path: Path) -> Iterator[State]:
    with State(path if request.param == "file" else None, sync_mode="NORMAL") as state:
        yield state

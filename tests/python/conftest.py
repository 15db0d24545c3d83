"""Every test that takes `state` runs twice: in memory and on a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from llmspell_state import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made; nothing is there yet."""
    return tmp_path / "agent.db"


@pytest.fixture(params=["memory", "file"])
def state(request: pytest.FixtureRequest, path: Path) -> Iterator[State]:
    with State(path if request.param == "file" else None, sync_mode="NORMAL") as state:
        yield state

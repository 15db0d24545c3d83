"""An agent that tries something in a fork: what was good is merged, what was not is forgotten or taken back.

Its session goes away by itself, and of its past only as much is kept as is told.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

from llmspell_state import LEAVE, MISSING, MergeConflict, RetentionPolicy, Scope, State


def attempt(trial: Scope) -> None:
    """What the agent tries: a language model would say what."""
    trial["plan"] = ["search", "compare", "buy"]
    trial["tone"] = "cheerful"
    trial.append("notes", "the shop closes at six")
    del trial["draft"]


def resolve(conflict: MergeConflict) -> object:
    """Notes of both sides are kept; about the rest somebody has to decide."""
    if conflict.key == "notes" and MISSING not in (conflict.ours, conflict.theirs):
        return conflict.ours + [note for note in conflict.theirs if note not in conflict.ours]
    return LEAVE


def main(path: Path) -> None:
    with State(path, retention=RetentionPolicy(max_age=timedelta(days=90), max_versions=20)) as state:
        agent = state.scope("agent")
        agent.update(plan=["search"], tone="polite", notes=["budget: 40"], draft="Hello")

        # A session that nobody touches for half an hour is gone.
        agent.set("session", {"user": "alice"}, ttl=timedelta(minutes=30))
        assert agent.touch("session", 1800)
        session = agent.entry("session")
        assert session is not None and session.expires is not None
        print(f"the session ends at {session.expires:%H:%M:%S} UTC")

        # The fork is a copy that costs next to nothing; the agent goes on meanwhile.
        trial = state.fork("agent", "trial")
        attempt(trial)
        agent.append("notes", "alice likes blue")
        agent["tone"] = "formal"
        assert agent["plan"] == ["search"] and trial["plan"] == ["search", "compare", "buy"]

        before = state.version
        merged = agent.as_run(actor="planner", run="merge-1").merge_from(trial, resolve)
        print(f"{merged.keys} keys merged; both have changed", [key for _, key in merged.conflicts])
        assert agent["plan"] == ["search", "compare", "buy"] and agent["tone"] == "formal" and "draft" not in agent
        assert agent["notes"] == ["budget: 40", "alice likes blue", "the shop closes at six"]

        # On second thoughts: the whole merge is one run, so it is taken back as one.
        undone = agent.undo(run="merge-1")
        print(f"{undone.keys} keys are as they were at version {before}")
        assert agent["plan"] == ["search"] and agent["draft"] == "Hello" and "session" in agent
        assert [*agent.diff(before)] == []

        usage = agent.usage()
        print(f"{usage.keys} keys of {usage.live_bytes} bytes, and {usage.history_bytes} bytes of their past")
        print(state.cleanup())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder, "agent.db"))

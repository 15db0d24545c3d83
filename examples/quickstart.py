"""The whole library in one screen; run it twice, and the second run finds what the first one left."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from llmspell_state import ConflictError, State, Transaction


def main(path: Path) -> None:
    with State(path) as state:  # State() alone is in memory
        runs = state.increment("runs")

        # A store is a dictionary whose values are JSON and bytes.
        state["user:123"] = {"name": "Alice", "score": 100}
        state["user:456"] = {"name": "Bob", "score": 80}
        for key, user in state.items("user:*"):
            print(key, user["name"])
        assert [*state.keys("user:*")] == ["user:123", "user:456"]

        # A transaction commits at the end of its block and rolls back on an exception.
        with state.transaction() as tx:
            tx["user:123"] = {**tx["user:123"], "score": 90}
        assert state["user:123"]["score"] == 90

        # transact() runs again when another writer was faster.
        def transfer(tx: Transaction) -> None:
            tx.merge("user:123", {"score": tx["user:123"]["score"] - 5})
            tx.merge("user:456", {"score": tx["user:456"]["score"] + 5})

        state.transact(transfer)
        assert sum(user["score"] for user in state.values("user:*")) == 170

        # Compare-and-set by version.
        entry = state.entry("user:123")
        assert entry is not None
        state.set("user:123", {**entry.value, "seen": True}, if_version=entry.version)
        try:
            state.set("user:123", "too late", if_version=entry.version)
        except ConflictError as conflict:
            print("conflict:", conflict)

        # Scopes are isolated from each other and from the state.
        tenant = state.scope("tenant:a")
        tenant["config"] = {"theme": "dark"}
        assert "config" not in state
        assert state.scopes() == ["tenant:a"]

    with State(path) as again:
        assert again["runs"] == runs
        assert again.scope("tenant:a")["config"] == {"theme": "dark"}
    print(f"run {runs} is in {path.name}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder, "agent.db"))
            main(Path(folder, "agent.db"))

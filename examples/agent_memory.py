"""An agent's memory: sessions with messages, tools whose results are kept, a budget that several workers share.

The workers are threads here; separate processes, in Python or Lua, would share the same file in the same way.
"""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from llmspell_state import Scope, State, Transaction

BUDGET = 1_000
STEPS = 20
WORKERS = 4


@dataclass
class Message:
    role: str
    text: str
    at: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class OutOfBudget(Exception):
    """The workers have spent what there was."""


class Memory:
    """What one agent remembers; any number of workers may hold one for the same agent."""

    def __init__(self, state: Scope, agent: str) -> None:
        self.store = state.scope("agents").scope(agent)
        self.tools = self.store.scope("tools")

    def say(self, session: str, message: Message) -> int:
        """Adds a message to a session and returns how many there are."""
        return self.store.append(f"session:{session}", message)

    def recall(self, session: str, last: int) -> list[dict[str, Any]]:
        """The last messages of a session."""
        messages: list[dict[str, Any]] = self.store.get(f"session:{session}", [])
        return messages[-last:]

    def tool(self, name: str, argument: str) -> Any:
        """Runs a tool, or gives what it said to the same argument before."""
        key = f"{name}:{hashlib.sha256(argument.encode()).hexdigest()}"
        result = self.tools.get(key)
        if result is None:
            result = self.tools.setdefault(key, {"argument": argument, "words": len(argument.split())})
        return result

    def spend(self, tokens: int) -> int:
        """Takes tokens out of the budget, never more than there are, and returns what is left."""

        def take(tx: Transaction) -> int:
            left: int = tx.get("budget", BUDGET) - tokens
            if left < 0:
                raise OutOfBudget(f"{tokens} tokens wanted, {left + tokens} left")
            tx["budget"] = left
            tx.increment("spent", tokens)
            return left

        return self.store.transact(take)


def work(memory: Memory, worker: int) -> int:
    """One worker's steps; returns the tokens it spent."""
    spent = 0
    for step in range(STEPS):
        question = f"What is step {step % 5} about?"
        try:
            memory.spend(cost := 10 + worker)
        except OutOfBudget:
            break
        spent += cost
        memory.say("shared", Message("user", question))
        memory.say("shared", Message("assistant", f"{memory.tool('count', question)['words']} words"))
    return spent


def main(path: Path) -> None:
    with State(path) as state:
        memory = Memory(state, "planner")
        with ThreadPoolExecutor(WORKERS) as pool:
            spent = sum(pool.map(lambda worker: work(memory, worker), range(WORKERS)))

    with State(path, create=False) as state:  # another day
        memory = Memory(state, "planner")
        messages = memory.recall("shared", last=4)
        for message in messages:
            print(f"{message['at'][11:19]} {message['role']:>9}: {message['text']}")
        left = memory.store.get("budget", BUDGET)
        print(f"{spent} tokens spent, {left} left, {memory.tools.count()} tool results kept")

        assert left >= 0
        assert memory.store["spent"] == spent == BUDGET - left
        assert len(messages) == 4
        assert memory.tools.count("count:*") == 5


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder, "memory.db"))

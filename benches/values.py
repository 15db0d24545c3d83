"""What is stored while measuring: the same documents for everybody, told apart by a number."""

import random
from typing import Any

import orjson

SMALL = {"name": "Alice", "score": 100}
TOPICS = [
    "planning",
    "retrieval",
    "memory",
    "tools",
    "budget",
    "review",
    "context",
    "handover",
    "summary",
    "checkpoint",
]


def small(number: int) -> dict[str, Any]:
    """About 30 bytes of JSON."""
    return {"name": f"user{number}", "score": number}


def document(number: int, size: int) -> dict[str, Any]:
    """An agent's conversation of about `size` bytes of JSON: nested, with text, floats, booleans and nulls."""
    chance = random.Random(number)
    made: dict[str, Any] = {"id": number, "agent": f"agent-{number % 97}", "messages": []}
    length = len(orjson.dumps(made))
    while length < size - 60:
        message = {
            "role": chance.choice(["user", "assistant", "tool"]),
            "text": " ".join(chance.choices(TOPICS, k=min(24, max(2, (size - length - 150) // 9)))),
            "score": round(chance.random(), 4),
            "tokens": chance.randrange(2000),
            "final": chance.random() < 0.2,
            "parent": None,
            "tags": chance.sample(TOPICS, 2),
        }
        made["messages"].append(message)
        length += len(orjson.dumps(message)) + 1
    return made


def of_size(size: str, number: int = 0) -> dict[str, Any]:
    """The value called "small", "1 KB" or "10 KB"."""
    if size == "small":
        return small(number)
    return document(number, {"1 KB": 1024, "10 KB": 10240}[size])

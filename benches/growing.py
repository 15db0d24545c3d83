"""One value that grows: a conversation that is set again after every turn, with every turn kept."""

import importlib.util
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from cases import OURS
from measure import Case, Effort, say

SAVER = "LangGraph SqliteSaver"
TURNS = 1000
READ_BACK = 50
VOCABULARY = 20_000
Turn = dict[str, str]


def conversation(turns: int) -> list[Turn]:
    """Messages of about 100 to 400 bytes each; words come as often as in a natural text (Zipf's law)."""
    chance = random.Random(7)
    syllables = [c + v + e for c in "bcdfghklmnprstvw" for v in "aeiou" for e in ("", "n", "r", "st")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(VOCABULARY)]
    weights = list(accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
    made = []
    for number in range(turns):
        said = chance.choices(words, cum_weights=weights, k=chance.randint(10, 40))
        made.append({"role": "assistant" if number % 2 else "user", "content": " ".join(said).capitalize() + "."})
    return made


def keep_ours(folder: Path, turns: list[Turn], settings: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds per turn, and for reading the last ones back."""
    from llmspell_state import State

    with State(folder / "ours.db", sync_mode="NORMAL", **settings) as state:
        took = each_turn(turns, lambda said: state.set("chat", said))
    with State(folder / "ours.db", **settings) as state:
        start = time.perf_counter()
        found = [revision.value for revision in state.history("chat", READ_BACK)]
        read = (time.perf_counter() - start) * 1e3
        assert state.verify().ok
    check(turns, found)
    return took, read


def keep_saver(folder: Path, turns: list[Turn]) -> tuple[float, float]:
    """The same with a checkpoint a turn, which holds the channel's whole value."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.sqlite import SqliteSaver

    thread: dict[str, Any] = {"configurable": {"thread_id": "chat", "checkpoint_ns": ""}}
    with SqliteSaver.from_conn_string(str(folder / "saver.db")) as saver:
        saver.setup()
        saver.conn.execute("PRAGMA synchronous = NORMAL")
        config = thread

        def put(said: list[Turn]) -> None:
            nonlocal config
            version = f"{len(said):032}"
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": said}
            checkpoint["channel_versions"] = {"messages": version}
            metadata = {"source": "loop", "step": len(said), "parents": {}}
            config = saver.put(config, checkpoint, metadata, {"messages": version})

        took = each_turn(turns, put)
    with SqliteSaver.from_conn_string(str(folder / "saver.db")) as saver:
        start = time.perf_counter()
        kept = saver.list(thread, limit=READ_BACK)
        found = [checkpoint.checkpoint["channel_values"]["messages"] for checkpoint in kept]
        read = (time.perf_counter() - start) * 1e3
    check(turns, found)
    return took, read


def each_turn(turns: list[Turn], keep: Callable[[list[Turn]], Any]) -> float:
    """Milliseconds per turn of keeping the conversation after every one."""
    said: list[Turn] = []
    start = time.perf_counter()
    for turn in turns:
        said.append(turn)
        keep(said)
    return (time.perf_counter() - start) / len(turns) * 1e3


def check(turns: list[Turn], found: list[list[Turn]]) -> None:
    """The last conversations must be there, the newest first."""
    assert found == [turns[: len(turns) - back] for back in range(READ_BACK)]


def growing(_effort: Effort) -> Iterator[Case]:
    """A conversation of a thousand turns: file, time per turn, and the last fifty versions read back."""
    turns = conversation(TURNS)
    kinds: dict[str, Callable[[Path], tuple[float, float]]] = {
        OURS: lambda folder: keep_ours(folder, turns, {}),
        # What the cache does not have is not compared with what comes.
        f"{OURS}, stored whole": lambda folder: keep_ours(folder, turns, {"cache_size_mb": 0}),
    }
    if importlib.util.find_spec("langgraph") and importlib.util.find_spec("langgraph.checkpoint.sqlite"):
        kinds[SAVER] = lambda folder: keep_saver(folder, turns)
    text = sum(len(turn["content"]) for turn in turns)
    size = Case(f"disk, conversation of {TURNS:,} turns", "KiB", note=f"{text >> 10} KiB said, every turn kept, closed")
    took = Case(f"conversation of {TURNS:,} turns, set of a turn, NORMAL", "ms")
    read = Case(f"conversation of {TURNS:,} turns, last {READ_BACK} versions", "ms")
    for name, keep in kinds.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            took.medians[name], read.medians[name] = keep(Path(place))
            used = sum(file.stat().st_blocks * 512 for file in Path(place).iterdir())
            size.medians[name] = used / 1024
    for case in (size, took, read):
        say(f"{case.name}: " + ", ".join(f"{name} {value:,.4g} {case.unit}" for name, value in case.medians.items()))
        yield case

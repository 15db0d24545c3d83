"""Threads that call the state, with functions that do whatever functions can do: raise, call the state, close it, drop
it, collect garbage, run out of stack, be traced. Every count is exact, nothing hangs.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmspell_state import ClosedError, InvalidError, State
from python_common import Case, Ended, check, run_all, say

THREADS = 4
CALLS = 60


class OwnError(Exception):
    """What a callback raises."""


def together(work: Callable[[random.Random, Counter[str]], None], rng: random.Random) -> Counter[str]:
    """Runs a function in several threads, each with a generator and counts of its own, and adds up the counts."""
    counts: list[Counter[str]] = [Counter() for _ in range(THREADS)]
    broken: list[BaseException] = []

    def run(seed: float, own: Counter[str]) -> None:
        try:
            work(random.Random(seed), own)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(rng.random(), own)) for own in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    total = sum(counts, Counter())
    say(f"calls {total.total()}")
    return total


def agree(state: State, counts: Counter[str]) -> None:
    found = {key: state.get(key, 0) for key in counts}
    assert found == dict(counts), f"{found} is stored, {dict(counts)} was done"


def mixed(state: State, rng: random.Random, counts: Counter[str], inside: Callable[[], None]) -> None:
    """One write that calls `inside` while it is under way, counted when it is done."""
    verb = rng.choice(("modified", "transacted", "hooked", "in block"))

    def add(value: int | None) -> int:
        inside()
        return (value or 0) + 1

    def add_in(tx: Any) -> None:
        tx[verb] = add(tx.get(verb))

    def one(_: object) -> int:
        inside()
        return 1

    if verb == "modified":
        state.modify(verb, add)
    elif verb == "transacted":
        state.transact(add_in, attempts=1000)
    elif verb == "hooked":
        state.set(f"hooked:{threading.get_ident()}:{counts[verb]}", object(), default=one)
        state.increment(verb)
    else:
        state.transact(lambda tx: tx.modify(verb, add), attempts=1000)
    counts[verb] += 1


def functions_that_raise(path: Path, rng: random.Random) -> None:
    def work(rng: random.Random, counts: Counter[str]) -> None:
        def inside() -> None:
            if rng.random() < 0.3:
                raise OwnError

        for _ in range(CALLS):
            try:
                mixed(state, rng, counts, inside)
            except OwnError:
                counts["raised"] += 1

    with State(path, sync_mode="NORMAL") as state:
        counts = together(work, rng)
        assert counts.pop("raised") > 0
        agree(state, counts)


def functions_that_call_the_state(path: Path, rng: random.Random) -> None:
    def work(rng: random.Random, counts: Counter[str]) -> None:
        own = f"own {rng.random()}"

        def inside() -> None:
            state.increment(own)
            counts[own] += 1
            list(state.items())
            assert state.scope("s").transact(lambda tx: tx.increment("n")) > 0
            with State(path, sync_mode="NORMAL") as other:
                other.count()

        for _ in range(CALLS // 3):
            mixed(state, rng, counts, inside)

    with State(path, sync_mode="NORMAL") as state:
        agree(state, together(work, rng))


def functions_that_close_the_state(path: Path, rng: random.Random) -> None:
    def work(rng: random.Random, counts: Counter[str]) -> None:
        for _ in range(CALLS // 3):
            state = State(path, sync_mode="NORMAL")
            try:
                mixed(state, rng, counts, state.close)
            except ClosedError:
                counts["closed"] += 1

    counts = together(work, rng)
    assert counts.pop("closed") > 0
    with State(path, sync_mode="NORMAL") as state:
        agree(state, counts)


def functions_that_close_it_for_everybody(path: Path, rng: random.Random) -> None:
    stored: Counter[str] = Counter()
    for _ in range(5):
        state = State(path, sync_mode="NORMAL")

        def work(rng: random.Random, counts: Counter[str], state: State = state) -> None:
            for n in range(CALLS // 3):
                try:
                    mixed(state, rng, counts, state.close if n == 10 else lambda: None)
                except ClosedError:
                    return

        stored += together(work, rng)
    with State(path, sync_mode="NORMAL") as state:
        for key, count in stored.items():
            # A call that was answered by Closed may have been done: the first half of "hooked" is a write of its own.
            assert state[key] >= count, f"{key}: {count} was acknowledged, {state[key]} is there"


def functions_that_drop_everything(path: Path, rng: random.Random) -> None:
    def work(rng: random.Random, counts: Counter[str]) -> None:
        for _ in range(CALLS // 3):
            kept = [State(path, sync_mode="NORMAL")]
            kept.append(iter(kept[0].items()))  # type: ignore[arg-type]
            cycle: list[Any] = [kept[0].begin(), kept[0].scope("s")]
            cycle.append(cycle)
            del cycle

            def inside(kept: list[Any] = kept) -> None:
                kept.clear()
                gc.collect(rng.randrange(3))

            mixed(kept[0], rng, counts, inside)

    counts = together(work, rng)
    gc.collect()
    with State(path, sync_mode="NORMAL") as state:
        agree(state, counts)


def garbage_everywhere(path: Path, rng: random.Random) -> None:
    gc.set_threshold(1, 1, 1)

    class Node:
        def __init__(self) -> None:
            self.me, self.handles = self, (state.scope("s"), state.begin(), iter(state.keys()))

        def __del__(self) -> None:
            assert self.handles[0].get("n", 0) >= 0
            state.increment("collected")

    def work(rng: random.Random, counts: Counter[str]) -> None:
        for _ in range(CALLS // 4):
            mixed(state, rng, counts, lambda: (Node(), None)[1])
            counts["made"] += 1
            state.get_many(["made", "collected"])

    with State(path, sync_mode="NORMAL") as state:
        counts = together(work, rng)
        gc.collect()
        assert state["collected"] >= counts.pop("made")
        agree(state, counts)
        gc.set_threshold(700, 10, 10)


def under_a_tracer(path: Path, rng: random.Random) -> None:
    seen: Counter[str] = Counter()

    def tracer(_frame: Any, event: str, _argument: Any) -> Any:
        seen[event] += 1
        return tracer

    def work(rng: random.Random, counts: Counter[str]) -> None:
        for _ in range(CALLS // 4):
            mixed(state, rng, counts, lambda: None)

    with State(path, sync_mode="NORMAL") as state:
        threading.settrace(tracer)
        counts = together(work, rng)
        threading.settrace(None)
        threading.setprofile(lambda *_: state.get("modified"))
        counts += together(work, rng)
        threading.setprofile(None)
        agree(state, counts)
        assert seen["call"] > 0


def a_tracer_that_raises(path: Path, rng: random.Random) -> None:
    def tracer(_frame: Any, event: str, _argument: Any) -> Any:
        if event == "line" and rng.random() < 0.02:
            raise OwnError
        return tracer

    counts: Counter[str] = Counter()
    with State(path, sync_mode="NORMAL") as state:
        state["sum"] = 0
        for _ in range(CALLS * 2):
            before = sys.gettrace()
            try:
                sys.settrace(tracer)
                state.modify("sum", lambda value: (value or 0) + 1)
                state.transact(lambda tx: tx.increment("sum"))
            except OwnError:
                counts["raised"] += 1
            finally:
                sys.settrace(before)
        assert counts["raised"] > 0 and 0 < state["sum"] <= CALLS * 4
    say(f"calls {CALLS * 2}")


def out_of_stack(path: Path, rng: random.Random) -> None:
    """Callbacks inside of callbacks, to the end of the stack: an exception, and nothing of it is stored."""

    def deeper(value: Any) -> int:
        return int(state.modify(f"depth {rng.randrange(4)}", deeper))

    def deeper_still(tx: Any) -> None:
        tx["never"] = 1
        state.transact(deeper_still)

    def work(_: random.Random, counts: Counter[str]) -> None:
        for call in (lambda: state.modify("depth", deeper), lambda: state.transact(deeper_still)):
            try:
                call()
            except RecursionError:
                counts["recursions"] += 1
            state.increment("recursions")

    with State(path, sync_mode="NORMAL") as state:
        assert together(work, rng)["recursions"] == 2 * THREADS
        assert list(state) == ["recursions"] and state["recursions"] == 2 * THREADS


def values_that_change_meanwhile(path: Path, rng: random.Random) -> None:
    shared: dict[str, Any] = {"list": list(range(50)), "dict": {f"n{n}": n for n in range(50)}, "bytes": bytearray(50)}

    def work(rng: random.Random, counts: Counter[str]) -> None:
        for n in range(CALLS):
            shared["list"].append(n)
            shared["dict"][f"m{n % 7}"] = [n]
            shared["dict"].pop(f"m{rng.randrange(7)}", None)
            del shared["list"][rng.randrange(20) :]
            try:
                state.set("value", shared, default=str)
                state.append("log", shared["list"])
            except (InvalidError, RuntimeError):  # RuntimeError is Python's own word for a dict that changed
                counts["refused"] += 1
            value = state.get("value", shared)
            assert value.keys() == {"list", "dict", "bytes"}
            counts["calls"] += 1

    with State(path, sync_mode="NORMAL") as state:
        together(work, rng)


def a_listing_that_threads_share(path: Path, rng: random.Random) -> None:
    def work(_: random.Random, counts: Counter[str]) -> None:
        for key, value in listing:
            assert key == f"k{value:05}"
            counts[key] += 1

    with State(path, sync_mode="NORMAL") as state:
        state.update({f"k{n:05}": n for n in range(3000)})
        listing = iter(state.items())
        assert together(work, rng) == Counter({f"k{n:05}": 1 for n in range(3000)})


def a_transaction_that_threads_share(path: Path, rng: random.Random) -> None:
    def work(rng: random.Random, counts: Counter[str]) -> None:
        own = rng.random()
        for n in range(CALLS):
            tx.increment("sum")
            tx[f"{own}:{n}"] = n
            tx.get("sum")
            counts["sum"] += 1

    with State(path, sync_mode="NORMAL") as state:
        with state.transaction() as tx:
            counts = together(work, rng)
        agree(state, counts)
        assert len(state) == THREADS * CALLS + 1


CASES = [
    Case(case)
    for case in (
        functions_that_raise,
        functions_that_call_the_state,
        functions_that_close_the_state,
        functions_that_close_it_for_everybody,
        functions_that_drop_everything,
        garbage_everywhere,
        under_a_tracer,
        a_tracer_that_raises,
        out_of_stack,
        values_that_change_meanwhile,
        a_listing_that_threads_share,
        a_transaction_that_threads_share,
    )
]


def run(directory: Path, seed: int, cases: list[Case]) -> dict[str, int]:
    calls = []

    def judge(_: Case, ended: Ended) -> None:
        calls.append(sum(int(line.split()[1]) for line in ended.lines if line.startswith("calls ")))
        check(calls[-1] > 0, "nothing was called")

    run_all(cases, directory, seed, judge)
    return {"calls with functions that misbehave": sum(calls)}

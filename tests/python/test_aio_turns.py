"""A thousand calls at once and a ticker in the same loop: what one turn does must stay short, however slow the disk is.

Times of the clock say more about the machine than about the library. So a tick counts as late by the time that the
loop's own thread was computing since the last one, as against the same tasks with bare futures.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llmspell_state.aio import State
from loops import run

TASKS = 1_000
AT_ONCE = 64
BOUND = 0.005
"""Seconds that a tick may be later than without the library; while calls are in flight, that it may be late."""
ATTEMPTS = range(4, 33)
"""At least so many, and at most. Whatever disturbs one of them only ever adds to its time."""

Call = Callable[[int], Awaitable[object]]


class Ticker:
    """Ticks each millisecond, and keeps the longest time that its thread was computing between two ticks."""

    async def __aenter__(self) -> Ticker:
        self.ticks, self.longest, self.is_over = 0, 0.0, False
        self.task = asyncio.create_task(self.tick())
        await asyncio.sleep(0.01)
        self.ticks, self.longest = 0, 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_over = True
        await self.task

    async def tick(self) -> None:
        while not self.is_over:
            start = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - start)
            self.ticks += 1


class Bare:
    """Calls that nobody does anything for: futures, resolved some in each turn as the library's are."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    def call(self, _: int) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.resolve)
        self.waiting.append(loop.create_future())
        return self.waiting[-1]

    def resolve(self) -> None:
        for future in self.waiting[:AT_ONCE]:
            future.set_result(None)
        del self.waiting[:AT_ONCE]
        if self.waiting:
            asyncio.get_running_loop().call_soon(self.resolve)


async def at_once(call: Call) -> None:
    async def one(at: int) -> None:
        await call(at)

    await asyncio.gather(*(one(at) for at in range(TASKS)))


async def one_after_another(call: Call) -> None:
    async def several(at: int) -> None:
        for _ in range(5):
            await call(at)

    await asyncio.gather(*(several(at) for at in range(TASKS)))


async def begun(call: Call) -> list[asyncio.Task[None]]:
    """Tasks that wait for as many calls, of which some begin in each turn."""

    async def one(at: int) -> None:
        await call(at)

    tasks = []
    for at in range(TASKS):
        tasks.append(asyncio.create_task(one(at)))
        if at % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
    return tasks


async def longest(shape: Callable[[Call], Awaitable[None]], call: Call) -> float:
    gc.collect()
    gc.disable()  # what all tests have left is nothing that a loop has to wait for here
    try:
        async with Ticker() as ticker:
            await shape(call)
    finally:
        gc.enable()
    return ticker.longest


@pytest.mark.parametrize("sync", ["NORMAL", "FULL"])
@pytest.mark.parametrize("shape", [at_once, one_after_another])
def test_a_ticker_is_hardly_later_beside_a_thousand_sets_than_beside_bare_futures(
    shape: Callable[[Call], Awaitable[None]], sync: str, path: Path
) -> None:
    async def main() -> None:
        async with State(path, sync_mode=sync) as state:
            ours, bare = [], []
            while len(ours) < ATTEMPTS.start or (len(ours) < ATTEMPTS.stop and min(ours) > min(bare) + BOUND):
                ours.append(await longest(shape, lambda at: state.set(f"k{at}", {"name": "Alice", "score": at})))
                bare.append(await longest(shape, Bare().call))
            assert min(ours) <= min(bare) + BOUND, (ours, bare)

    run(main())


WRITER = """
import sys
from llmspell_state import State
with State(sys.argv[1], sync_mode="NORMAL") as state:
    print("open", flush=True)
    for n in range(10**6):
        state.set_many({f"other{m}": n for m in range(20_000)})
"""


@contextmanager
def another_writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is nearly always in the middle of a commit."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("sync", ["NORMAL", "FULL"])
def test_a_ticker_is_not_late_while_thousands_of_sets_wait_for_the_disk(sync: str, path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode=sync, busy_timeout_ms=600_000) as state:
            with another_writer(path) as other:
                while True:
                    await asyncio.sleep(0.01)
                    os.kill(other.pid, signal.SIGSTOP)
                    first = asyncio.ensure_future(state.set("first", 0))
                    if not (await asyncio.wait([first], timeout=0.2))[0]:
                        break  # it was stopped amid a commit, as if the disk took for ever
                    os.kill(other.pid, signal.SIGCONT)
                ours: list[float] = []
                sets: list[asyncio.Task[None]] = []

                def change(at: int) -> Awaitable[object]:
                    return state.set(f"k{at}", {"name": "Alice", "score": at})

                async def hold(call: Call) -> None:
                    sets.extend(await begun(call))
                    await asyncio.sleep(0.05)
                    assert await state.get("missing", 5) == 5 and await state.count("k*") == 0

                # Should the loop itself wait for the disk, it is let go in the end, and is found out.
                rescue = threading.Timer(30, os.kill, (other.pid, signal.SIGCONT))
                rescue.start()
                try:
                    while len(ours) < ATTEMPTS.start or (len(ours) < ATTEMPTS.stop and min(ours) > BOUND):
                        ours.append(await longest(hold, change))
                    async with Ticker() as ticker:
                        await hold(change)
                        await asyncio.sleep(1)
                finally:
                    rescue.cancel()
                assert min(ours) <= BOUND, ours
                # A loop that waited for the disk just once would have waited the whole second.
                assert ticker.ticks > 20
                assert not first.done() and not any(task.done() for task in sets)
                os.kill(other.pid, signal.SIGCONT)
                other.kill()
                await asyncio.gather(first, *sets)
                assert await state.count("k*") == TASKS

    run(main())

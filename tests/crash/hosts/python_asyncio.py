"""Event loops: calls are cancelled at random moments, interpreters end and processes fork while calls are under way.
Nothing hangs, nothing is said, nothing acknowledged is lost, nothing is half done.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llmspell_state
import uvloop
from llmspell_state import ClosedError, ConflictError, ForkedError
from llmspell_state.aio import State, Transaction, Watch
from llmspell_state.aio.loop import later
from python_common import Case, Ended, Failed, check, check_writes, held, run_all, say


@dataclass(frozen=True)
class Size:
    """How often each thing is done in one turn."""

    cancels: int
    exits: int
    forks: int


SIZE = {"small": Size(600, 2, 8), "middle": Size(5_000, 50, 250), "long": Size(5_000, 50, 250)}[
    os.environ.get("CRASH_SIZE", "small")
]
"""There are two cases of cancels and of forks, and ten of exits."""
KEPT: list[Any] = []
"""A module global: its members live until the interpreter takes its modules apart."""


async def write_set(state: State, n: int) -> None:
    await state.set(f"set:{n}", n)


async def write_counter(state: State, n: int) -> None:
    await state.increment("counter")


async def write_pair(state: State, n: int) -> None:
    async def work(tx: Transaction) -> None:
        await tx.get("left")
        await tx.set_many({"left": n, "right": n})

    await state.transact(work)


async def write_batch(state: State, n: int) -> None:
    await state.set_many({"upper": n, "lower": n})


async def write_list(state: State, n: int) -> None:
    await state.append("list", n)


async def write_modified(state: State, n: int) -> None:
    await state.modify("modified", lambda _: n)


WRITERS = (write_set, write_counter, write_pair, write_batch, write_list, write_modified)


async def watch_on(state: State) -> None:
    with suppress(ClosedError):
        async for _ in state.watch():
            pass


@asynccontextmanager
async def writing(state: State, rng: random.Random) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that write and report each acknowledgement; the block begins when each has written something."""
    begun = asyncio.Semaphore(0)
    enough = rng.randrange(1, 8)

    async def work(write: Callable[[State, int], Awaitable[None]]) -> None:
        n = 0
        while True:
            await write(state, n)
            say(f"{write.__name__} {n}")
            if n == enough:
                begun.release()
            n += 1

    writers = rng.sample(WRITERS, 4)
    tasks = [asyncio.create_task(work(write)) for write in writers]
    KEPT.append(asyncio.create_task(watch_on(state)))
    for _ in writers:
        await begun.acquire()
    yield tasks


async def write_until(state: State, rng: random.Random, then: Callable[[], object]) -> None:
    """Does something while writes are under way, at a random moment."""
    async with writing(state, rng):
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        then()


def nothing() -> None:
    pass


def returns_amid_calls(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        await write_until(await State(path), rng, nothing)

    asyncio.run(main())


def leaves_the_block_of_the_state(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        async with State(path) as state, writing(state, rng) as tasks:
            for task in tasks:
                task.cancel()

    asyncio.run(main())


def exits_in_the_loop(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        await write_until(await State(path), rng, lambda: sys.exit(3))

    asyncio.run(main())


def leaves_at_once(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        await write_until(await State(path), rng, lambda: os._exit(4))

    asyncio.run(main())


def keeps_a_loop_that_was_never_closed(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        KEPT.append(await State(path))
        await write_until(KEPT[-1], rng, nothing)

    warnings.simplefilter("ignore", ResourceWarning)  # that nobody closes it is the point, nor ends its tasks
    loop = rng.choice([asyncio.new_event_loop, uvloop.new_event_loop])()
    loop.set_exception_handler(lambda *_: None)
    KEPT.append(loop)
    loop.run_until_complete(main())


def closes_the_loop_amid_calls(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        state = await State(path)
        KEPT.append(state)
        async with writing(state, rng) as tasks:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            handle = state._handle
            KEPT.extend(later(handle.set, f"late:{n}", n, None, None, None) for n in range(100))
            KEPT.extend(later(handle.verify) for _ in range(5))

    asyncio.run(main())


def is_interrupted(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        await write_until(await State(path), rng, lambda: signal.raise_signal(signal.SIGINT))
        await asyncio.sleep(60)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(5)


def ends_while_a_thread_runs_the_loop(path: Path, rng: random.Random) -> None:
    begun = threading.Event()

    async def main() -> None:
        state = await State(path)
        async with writing(state, rng):
            begun.set()
            await asyncio.sleep(60)

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    begun.wait()


def ends_while_another_process_holds_the_lock(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        state = await State(path)
        async with writing(state, rng):
            with held(path):
                await asyncio.sleep(0.01)
                sys.exit(3)

    asyncio.run(main())


def runs_a_loop_in_a_hook_of_the_exit(path: Path, rng: random.Random) -> None:
    async def main() -> None:
        state = await State(path)
        atexit.register(lambda: asyncio.run(write_last(state)))
        await write_until(state, rng, nothing)

    async def write_last(state: State) -> None:
        await state.set("last", path.name)

    uvloop.run(main())


EXITS = [
    Case(returns_amid_calls),
    Case(leaves_the_block_of_the_state),
    Case(exits_in_the_loop, 3),
    Case(leaves_at_once, 4),
    Case(keeps_a_loop_that_was_never_closed),
    Case(closes_the_loop_amid_calls),
    Case(is_interrupted, 5),
    Case(ends_while_a_thread_runs_the_loop),
    Case(ends_while_another_process_holds_the_lock, 3),
    Case(runs_a_loop_in_a_hook_of_the_exit),
]


class Victims:
    """Calls that are cancelled, and what must hold of the store whatever became of them."""

    def __init__(self, state: State, watch: Watch, rng: random.Random) -> None:
        self.state, self.watch, self.rng = state, watch, rng
        self.asked = self.sure = self.written = self.cancels = 0
        self.told: list[int] = []

    async def count(self) -> None:
        self.asked += 1
        await self.state.increment("count")
        self.sure += 1

    async def pair(self) -> None:
        n = self.asked
        await self.state.set_many({"left": n, "right": n})

    async def transfer(self) -> None:
        with suppress(ConflictError):
            async with self.state.transaction() as tx:
                await tx.increment("from", -1)
                await tx.count("f*")
                await tx.increment("to")

    async def transact(self) -> None:
        async def move(tx: Transaction) -> None:
            await tx.set("from", await tx.get("from", 0) + 1)
            await asyncio.sleep(0)
            await tx.set("to", await tx.get("to", 0) - 1)

        await self.state.transact(move)

    async def modify(self) -> None:
        async def push(value: list[int]) -> list[int]:
            await asyncio.sleep(0)
            return [*value, value[-1] + 1][-20:]

        await self.state.modify("list", push, [0])

    async def read(self) -> None:
        await self.state.get(f"missing:{self.asked}")
        await self.state.get_many(["left", "right"])
        async for _ in self.state.items():
            pass
        await (await self.state.scope("inner")).scopes()

    async def open(self) -> None:
        async with State.from_config(self.state.config) as own:
            await own.entry("left")

    async def take(self) -> None:
        self.told.append((await anext(self.watch)).value)

    async def take_in_time(self) -> None:
        change = await self.watch.next(self.rng.choice([0, 0.0005, 0.01]))
        if change is not None:
            self.told.append(change.value)

    async def one(self) -> None:
        """A number for the watch, and a call that is cancelled after some turns of the loop."""
        self.written += 1
        await self.state.set("watched", self.written)
        calls = [
            self.count,
            self.pair,
            self.transfer,
            self.transact,
            self.modify,
            self.read,
            self.take,
            self.take_in_time,
        ]
        task = asyncio.ensure_future(self.rng.choice([*calls, self.open])())
        for _ in range(self.rng.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        self.cancels += 1
        with suppress(asyncio.CancelledError):
            await task

    async def check(self) -> None:
        found = await self.state.get_many(["left", "right", "from", "to", "list", "count"])
        assert found.get("left") == found.get("right"), "half a commit"
        assert found.get("from", 0) + found.get("to", 0) == 0, "half a transaction"
        numbers = found.get("list", [0])
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a lost update"
        assert self.sure <= found.get("count", 0) <= self.asked, "a lost or a repeated increment"


async def cancel_at_random(path: Path, rng: random.Random) -> None:
    async with State(path, sync_mode="NORMAL", cache_size_mb=rng.choice([0, 64])) as state:
        async with state.watch("watched") as watch:
            victims = Victims(state, watch, rng)
            while victims.cancels < SIZE.cancels:
                await asyncio.gather(*(victims.one() for _ in range(10)))
                await victims.check()
            while (change := await watch.next(0)) is not None:
                victims.told.append(change.value)
            assert sorted(victims.told) == list(range(1, victims.written + 1)), "a change was lost or told twice"
    say(f"cancels {victims.cancels}")


def cancels(path: Path, rng: random.Random) -> None:
    asyncio.run(cancel_at_random(path, rng))


def cancels_on_uvloop(path: Path, rng: random.Random) -> None:
    uvloop.run(cancel_at_random(path, rng))


CANCELS = [Case(cancels), Case(cancels_on_uvloop)]


async def refused(call: Coroutine[Any, Any, Any]) -> None:
    try:
        await call
    except ForkedError:
        return
    raise AssertionError("a call of the parent's handle was not refused")


async def of_a_child(path: Path, calls: list[Callable[[], Coroutine[Any, Any, Any]]]) -> None:
    for call in calls:
        await refused(call())
    async with State(path) as own, own.watch("added") as watch:
        await asyncio.gather(own.increment("added"), own.get("known"), own.count())
        assert (await anext(watch)).operation == "set"


def fork(work: Callable[[], object]) -> None:
    """The child leaves at once: what asyncio does at its end would reach the parent's loop by its descriptors."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    say("forked")
    end = time.monotonic() + 30
    while (waited := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGABRT)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.002)  # a wait for the child alone would not end if it hangs
    assert waited[1] == 0, f"the child ended with status {os.waitstatus_to_exitcode(waited[1])}"


async def fork_amid_calls(path: Path, rng: random.Random) -> None:
    async with State(path, sync_mode="NORMAL", cache_size_mb=rng.choice([0, 64])) as state:
        await state.set("known", 1)
        watch, tx, inner = await state.watch(), await state.begin(), await state.scope("inner")
        listing = aiter(state.items())

        async def work() -> None:
            while True:
                await asyncio.gather(tx.count(), state.increment("n"), state.get_many(["known", "n"]), anext(watch))

        async def verify() -> None:
            while True:
                await state.verify()

        tasks = [asyncio.create_task(call()) for call in (work, work, verify)]
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: state.get("known"),
            lambda: state.set("never", 1),
            lambda: state.count(),
            lambda: inner.increment("never"),
            lambda: tx.set("never", 1),
            lambda: tx.count(),
            lambda: tx.commit(),
            lambda: watch.next(),
            lambda: watch.save(),
            lambda: anext(listing),
            lambda: state.close(),
        ]
        for _ in range(SIZE.forks):
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            fork(lambda: rng.choice([asyncio.run, uvloop.run])(of_a_child(path, rng.sample(calls, 4))))
        assert not any(task.done() for task in tasks), "a call of the parent has failed"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await state.get("added") == SIZE.forks and not await state.exists("never")


def forks_amid_calls(path: Path, rng: random.Random) -> None:
    asyncio.run(fork_amid_calls(path, rng))


def forks_amid_calls_on_uvloop(path: Path, rng: random.Random) -> None:
    uvloop.run(fork_amid_calls(path, rng))


FORKS = [Case(forks_amid_calls), Case(forks_amid_calls_on_uvloop)]
CASES = [*CANCELS, *EXITS, *FORKS]


def run(directory: Path, seed: int, cases: list[Case]) -> dict[str, int]:
    cancels, exits, forks, acknowledged = [], [], [], []

    def judge(case: Case, ended: Ended) -> None:
        cancels.append(sum(int(line.split()[1]) for line in ended.lines if line.startswith("cancels")))
        forks.append(sum(1 for line in ended.lines if line == "forked"))
        if case not in EXITS:
            check(cancels[-1] + forks[-1] > 0, "nothing happened")
            return
        exits.append(case)
        acknowledged.append(check_writes(ended.path, ended.lines))
        check(acknowledged[-1] > 0, "nothing was written")
        if case.run is runs_a_loop_in_a_hook_of_the_exit:
            with llmspell_state.State(ended.path) as state:
                if state.get("last") != ended.path.name:
                    raise Failed("the write of the hook is missing")

    run_all([case for case in cases if case not in EXITS], directory, seed, judge)
    for number in range(SIZE.exits):
        again = [case for case in cases if case in EXITS]
        run_all(again, directory / f"exits-{number}", seed + 100 * (number + 1), judge)
    return {
        "asyncio: cancels": sum(cancels),
        "asyncio: exits": len(exits),
        "asyncio: forks": sum(forks),
        "asyncio: acknowledged writes before an exit": sum(acknowledged),
    }

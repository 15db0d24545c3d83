"""Work in an event loop: many tasks that set, and hot reads that are awaited.

A peer without an asynchronous interface runs in the loop's threads, as `asyncio.to_thread` does.
"""

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from contenders import PEERS, Contender, LangGraph, Ours, Redis
from measure import Case, Effort, turns
from targets import BARE
from values import SMALL, small

OURS = Ours.name
TASKS = 64
OVERLAP = 1_000

Set = Callable[[str, Any], Awaitable[object]]
Call = Callable[[int], Awaitable[object]]
Clock = Callable[[], float]


async def ours(folder: Path, sync: str, stack: AsyncExitStack) -> Set:
    """This library's own asynchronous handle."""
    from llmspell_state.aio import State

    state = await stack.enter_async_context(State(folder / "ours.db", sync_mode=sync))
    return state.set


async def langgraph(folder: Path, sync: str, stack: AsyncExitStack) -> Set:
    """LangGraph's store, which gathers what comes within one turn of the loop."""
    from langgraph.store.sqlite.aio import AsyncSqliteStore

    store = await stack.enter_async_context(AsyncSqliteStore.from_conn_string(str(folder / "langgraph.db")))
    await store.setup()
    await store.conn.execute("PRAGMA journal_mode = WAL")
    await store.conn.execute(f"PRAGMA synchronous = {sync}")
    return lambda key, value: store.aput(("bench",), key, value)


async def redis(folder: Path, sync: str, stack: AsyncExitStack) -> Set:
    """redis' own asynchronous client."""
    from redis.asyncio import Redis as Client

    server = Redis(folder, sync)
    stack.callback(server.close)
    client = Client(unix_socket_path=str(folder / "redis.sock"))
    stack.push_async_callback(client.aclose)
    return lambda key, value: client.set(key, orjson.dumps(value))


async def in_threads(kind: type[Contender], folder: Path, sync: str, stack: AsyncExitStack) -> Set:
    """A blocking library."""
    contender = kind(folder, sync)
    stack.callback(contender.close)
    return partial(asyncio.to_thread, contender.set)


async def tasks_per_second(make: Callable[..., Awaitable[Set]], sync: str, seconds: float) -> float:
    """Sets per second of tasks that each await one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        async with AsyncExitStack() as stack:
            set_ = await make(Path(place), sync, stack)
            numbers, until = count(), 0.0

            async def work(at: int) -> int:
                done = 0
                while time.perf_counter() < until:
                    await set_(f"k{(at * 16 + done % 16):07}", small(next(numbers)))
                    done += 1
                return done

            async def all_tasks(how_long: float) -> float:
                nonlocal until
                start = time.perf_counter()
                until = start + how_long
                done = await asyncio.gather(*map(work, range(TASKS)))
                return sum(done) / (time.perf_counter() - start)

            await all_tasks(seconds / 4)  # files and threads are there now
            return await all_tasks(seconds)


def tasks_setting(effort: Effort) -> Iterator[Case]:
    """64 tasks of one loop setting small values."""
    makers: dict[str, Callable[..., Awaitable[Set]]] = {OURS: ours}
    own = {LangGraph: langgraph, Redis: redis}
    for kind in PEERS:
        if kind.is_available():
            makers[kind.name] = own.get(kind) or partial(in_threads, kind)
    for sync in ("NORMAL", "FULL"):
        seconds = max(0.3, effort.batch_seconds * 3)
        runs = {name: partial(run, tasks_per_second, make, sync, seconds) for name, make in makers.items()}
        yield turns(Case(f"{TASKS} asyncio tasks setting, {sync}, small", "/s"), runs, max(3, effort.rounds // 2))


def run(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a coroutine function in a loop of its own."""
    return asyncio.run(work(*arguments))


async def awaited_gets(effort: Effort) -> float:
    """Microseconds for one `await state.get()` of a hot key."""
    from llmspell_state.aio import State

    times = max(1, int(effort.batch_seconds * 300_000))
    async with State() as state:
        await state.set("user:123", SMALL)
        get = state.get
        for _ in range(100):
            await get("user:123")
        start = time.perf_counter()
        for _ in range(times):
            await get("user:123")
        return (time.perf_counter() - start) / times * 1e6


def awaited_get(effort: Effort) -> Iterator[Case]:
    """One cached key, awaited again and again."""
    yield turns(Case("await get, one hot key, small", "µs"), {OURS: partial(run, awaited_gets, effort)}, effort.rounds)


async def at_once(call: Call) -> None:
    """A thousand calls, gathered: they all begin in one turn of the loop."""

    async def one(at: int) -> None:
        await call(at)

    for _ in range(5):
        await asyncio.gather(*map(one, range(OVERLAP)))


async def some_a_turn(call: Call) -> None:
    """As many calls, of which some begin in each turn of the loop: the first are over before the last begin."""

    async def one(at: int) -> None:
        await call(at)

    for _ in range(5):
        tasks = []
        for at in range(OVERLAP):
            tasks.append(asyncio.create_task(one(at)))
            if at % TASKS == TASKS - 1:
                await asyncio.sleep(0)
        for task in tasks:
            await task


async def one_after_another(tasks: int, each: int, call: Call) -> None:
    """Tasks that each make one call after the other."""

    async def several(at: int) -> None:
        for _ in range(each):
            await call(at)

    await asyncio.gather(*map(several, range(tasks)))


async def latest_tick(shape: Callable[[Call], Awaitable[None]], call: Call, clock: Clock) -> float:
    """How late a ticker of one millisecond comes at the worst meanwhile, in milliseconds of a clock."""
    worst, ended = 0.0, False
    asleep = 0.001 if clock is time.perf_counter else 0.0
    gc.collect()
    gc.freeze()  # to look through all that the peers' modules hold takes a collection many milliseconds, whoever runs

    async def tick() -> None:
        nonlocal worst
        while not ended:
            start = clock()
            await asyncio.sleep(0.001)
            worst = max(worst, clock() - start - asleep)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    worst = 0.0
    await shape(call)
    ended = True
    await ticker
    return worst * 1e3


async def latest_tick_of_ours(shape: Callable[[Call], Awaitable[None]], clock: Clock, sync: str) -> float:
    """The same beside sets."""
    from llmspell_state.aio import State

    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        async with State(Path(place, "ours.db"), sync_mode=sync) as state:
            await state.set_many({f"k{at}": small(at) for at in range(OVERLAP)})
            return await latest_tick(shape, lambda at: state.set(f"k{at}", small(at + 1)), clock)


async def latest_tick_of_bare_futures(shape: Callable[[Call], Awaitable[None]], clock: Clock) -> float:
    """The same beside calls for which nobody does anything: what asyncio and the machine take, whatever the library."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []

    def call(_: int) -> asyncio.Future[None]:
        if not waiting:
            loop.call_soon(resolve)
        waiting.append(loop.create_future())
        return waiting[-1]

    def resolve() -> None:
        for future in waiting[:TASKS]:
            future.set_result(None)
        del waiting[:TASKS]
        if waiting:
            loop.call_soon(resolve)

    return await latest_tick(shape, call, clock)


def ticker(effort: Effort) -> Iterator[Case]:
    """How late a millisecond's ticker is while operations run in its loop.

    What begins at once begins in one turn of the loop: to make a thousand tasks and take their first steps lasts some
    milliseconds by itself, as the bare futures tell.
    """
    shapes = {
        f"{OVERLAP:,} sets, {TASKS} begun a turn": some_a_turn,
        f"{OVERLAP:,} sets at once": at_once,
        f"{OVERLAP:,} tasks setting": partial(one_after_another, OVERLAP, 5),
        f"{TASKS} tasks setting": partial(one_after_another, TASKS, 100),
    }
    # By the thread's own time nothing counts but what the loop itself has to do: others may take the processor from it.
    clocks = {"lateness of a 1 ms ticker": time.perf_counter, "lateness in the loop's own time": time.thread_time}
    for name, shape in shapes.items():
        for lateness, clock in clocks.items():
            runs = {
                f"{OURS}, {sync}": partial(run, latest_tick_of_ours, shape, clock, sync) for sync in ("NORMAL", "FULL")
            }
            runs[BARE] = partial(run, latest_tick_of_bare_futures, shape, clock)
            yield turns(Case(f"{lateness} beside {name}", "ms"), runs, max(5, effort.rounds))


ALL = [tasks_setting, awaited_get, ticker]

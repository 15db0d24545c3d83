"""Several loops, loops that are closed amid calls, the end of the interpreter, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import ForkedError
from llmspell_state.aio import State
from llmspell_state.aio.loop import later
from loops import LOOPS, run


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_handle_serves_loops_of_several_threads(path: Path) -> None:
    state = run(State(path, sync_mode="NORMAL").__aenter__())
    failed: list[BaseException] = []

    async def work(kind: str) -> None:
        for _ in range(50):
            await asyncio.gather(*(state.increment("n") for _ in range(4)), state.get_many([kind]))
        watch = await state.watch(since=0)
        assert (await anext(watch)).value == 1

    def thread(kind: str) -> None:
        try:
            run(work(kind), LOOPS[kind])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=thread, args=(kind,)) for kind in [*LOOPS, *LOOPS]]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failed
    assert run(state.get("n")) == 1200
    run(state.close())


def test_one_watch_serves_two_loops() -> None:
    async def opened() -> Any:
        state = await State()
        return state, await state.watch()

    state, watch = run(opened())
    told: list[int] = []

    async def take() -> None:
        async for change in watch:
            told.append(change.value)

    threads = [threading.Thread(target=run, args=(take(), make)) for make in LOOPS.values()]
    for thread in threads:
        thread.start()

    async def write() -> None:
        for n in range(300):
            await state.set("a", n)
        while len(told) < 300:
            await asyncio.sleep(0.001)
        await watch.close()

    run(write())
    for thread in threads:
        thread.join()
    assert sorted(told) == list(range(300))
    run(state.close())


@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_is_closed_amid_calls_takes_its_descriptor_along(kind: str, path: Path) -> None:
    def once() -> None:
        loop = LOOPS[kind]()

        async def begin() -> Any:
            state = await State(path, sync_mode="NORMAL")
            for n in range(50):
                later(
                    state._handle.set, f"k{n}", n, None, None, None
                )  # the futures alone, since tasks would be reported
                later(state._handle.count, "*")
                later(state._handle.verify)
            later(state._handle.watch, "*", None, "w")
            return state

        state = loop.run_until_complete(begin())
        loop.close()
        run(state.close())

    once()
    gc.collect()
    before = descriptors()
    for _ in range(20):
        once()
    gc.collect()
    assert descriptors() <= before + 1  # those of one store that is being closed may linger


def test_a_closed_loop_is_let_go() -> None:
    async def main() -> Any:
        async with State() as state:
            await state.count()
            return weakref.ref(asyncio.get_running_loop())

    loop = run(main())
    gc.collect()
    assert loop() is None


def test_alternating_loops_do_not_add_up() -> None:
    state = run(State().__aenter__())
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    for loop in (one, other):
        loop.run_until_complete(state.count())
    before = descriptors()
    for _ in range(100):
        one.run_until_complete(state.count())
        other.run_until_complete(state.count())
    assert descriptors() <= before  # fewer, if a store of before was still being closed
    one.close()
    other.close()
    run(state.close())


def test_a_call_outside_of_a_loop_is_refused() -> None:
    state = run(State().__aenter__())
    with pytest.raises(RuntimeError, match="no running event loop"):
        state.set("a", 1).send(None)
    run(state.close())


KEEP = "loop.run_until_complete(main(keep=True))"
EXITS = {
    "falls off the end": "asyncio.run(main())",
    "never closes": "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
    "never closes and keeps all": f"loop = asyncio.new_event_loop(); {KEEP}",
    "exits in the loop": "asyncio.run(main(exit=sys.exit))",
    "leaves at once": "asyncio.run(main(exit=os._exit))",
    "exits in a callback": "asyncio.run(main(exit=lambda code: asyncio.get_running_loop().call_soon(sys.exit, code)))",
    "in a thread": "thread = threading.Thread(target=lambda: asyncio.run(main())); thread.start(); thread.join()",
    "in a thread that goes on": "threading.Thread(target=work, daemon=True).start(); time.sleep(0.3)",
    "on uvloop": f"import uvloop; loop = uvloop.new_event_loop(); {KEEP}",
    "while polling": f"sys.path.insert(0, sys.argv[2]); import loops; loop = loops.PollingLoop(); {KEEP}",
}
WARNINGS = ["-W", "error", "-W", "ignore::ResourceWarning"]
"""That a loop was not closed is the point."""
PROGRAM = """
import asyncio, os, sys, threading, time
from llmspell_state.aio import State
from llmspell_state.aio.loop import later
kept = []
async def main(keep=False, exit=None, time=0):
    state = await State(sys.argv[1])
    tx, watch = await state.begin(), await state.watch(name="w")
    await tx.set("never", 1)
    handle = state._handle
    futures = [later(handle.set, f"k{n}", "x" * 1000, None, None, None) for n in range(300)]
    futures += [later(handle.count, "*"), later(watch._handle.ready), later(handle.scope, "inner")]
    futures += [later(call) for call in [handle.verify, handle.transaction] + [handle.version] * 50]
    if keep:
        kept.extend([state, tx, watch, futures])
    await asyncio.sleep(time)
    if exit:
        exit(0)
        await asyncio.sleep(1)
def work():
    asyncio.run(main(keep=True, time=60))
"""


@pytest.mark.parametrize("how", EXITS)
def test_the_interpreter_ends_quietly_amid_calls(how: str, path: Path) -> None:
    program = f"{PROGRAM}\n{EXITS[how]}"
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-X", "faulthandler", *WARNINGS, "-c", program, path, Path(__file__).parent],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (ended.returncode, ended.stderr) == (0, "")

    async def check() -> None:
        async with State(path) as state:
            assert (await state.verify()).ok and not await state.exists("never")

    run(check())


def child(work: Callable[[], object]) -> int:
    """The status with which a fork ends that does this."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        except ForkedError:
            status = 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # that there are threads is the point
def test_a_fork_amid_calls_is_refused_the_handles_and_may_open_its_own(path: Path) -> None:
    async def fresh() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            await state.set("child", await state.get("k0"))
            async with state.watch(since=0) as watch:
                assert (await anext(watch)).key == "k0"
            async with state.transaction() as tx:
                await tx.increment("children")

    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            await state.set("k0", 0)
            watch, tx, inner = await state.watch(), await state.begin(), await state.scope("inner")
            listing = aiter(state.items())
            calls: list[Callable[[], Any]] = [
                lambda: state.get("k0"),
                lambda: state.set("never", 1),
                lambda: state.count(),
                lambda: inner.scopes(),
                lambda: tx.get("k0"),
                lambda: tx.set("never", 1),
                lambda: tx.commit(),
                lambda: anext(watch),
                lambda: watch.close(),
                lambda: anext(listing),
                lambda: state.close(),
            ]

            async def work() -> None:
                n = 0
                while True:
                    n += 1
                    await asyncio.gather(state.set("k0", n), state.count(), state.get_many(["k0"]), tx.count())

            worker = asyncio.create_task(work())
            for call in calls:
                await asyncio.sleep(0.002)
                assert child(lambda call=call: asyncio.run(call())) == 2
            for _ in range(5):
                await asyncio.sleep(0.002)
                assert child(lambda: asyncio.run(fresh())) == 0
            worker.cancel()
            assert await state.get("children") == 5 and not await state.exists("never")

    run(main())

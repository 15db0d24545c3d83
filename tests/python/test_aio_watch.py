"""Watching from an event loop. What a watch tells is in ``tests/spec/watch.json``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import MISSING, Change, ClosedError, InvalidError, InvalidTypeError
from llmspell_state.aio import State
from loops import LOOPS, run


def test_a_watch_tells_changes_of_the_class_until_it_is_closed() -> None:
    async def main() -> None:
        async with State(actor="planner") as state:
            told = []
            async with state.watch("a*") as watch:
                await state.set("a1", 1)
                await state.set("b", 1)
                await state.delete("a1")
                async for change in watch:
                    told.append(change)
                    if len(told) == 2:
                        await watch.close()
            assert watch.closed and await watch.next() is None and [c async for c in watch] == []
            assert all(isinstance(change, Change) and change.actor == "planner" for change in told)
            assert [(c.operation, c.value, c.old) for c in told] == [("set", 1, MISSING), ("delete", MISSING, 1)]

    run(main())


def test_a_watch_that_was_only_made_has_begun() -> None:
    async def main() -> None:
        async with State() as state:
            watch = state.watch()
            await state.set("a", 1)
            assert (await anext(watch)).value == 1
            async for change in state.watch(since=0):
                assert change.value == 1
                break

    run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_a_watch_sees_what_another_process_writes(kind: str, path: Path) -> None:
    program = (
        "import sys; from llmspell_state import State; s = State(sys.argv[1]); [s.increment('a') for _ in range(50)]"
    )

    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state, state.watch(name="indexer") as watch:
            with subprocess.Popen([sys.executable, "-c", program, path]):
                told = [(await anext(watch)).value for _ in range(50)]
            assert told == list(range(1, 51))
            await watch.save()
            assert await state.named_watches() == {"indexer": watch.version} == {"indexer": 50}

    run(asyncio.wait_for(main(), 60), LOOPS[kind])


def test_a_watch_that_begins_after_another_process_wrote_begins_then(path: Path) -> None:
    program = "import sys; from llmspell_state import State; State(sys.argv[1])['a'] = 1"

    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            await state.get("a")
            subprocess.run([sys.executable, "-c", program, path], check=True)
            watch = state.watch()
            assert repr(watch) == "<Watch beginning>"
            assert (await watch) is watch and watch.version == 1
            await state.set("a", 2)
            assert (await anext(watch)).old == 1

    run(main())


def test_tasks_share_a_watch_and_end_with_it() -> None:
    async def main() -> None:
        async with State() as state, state.watch() as watch:
            told: list[Any] = []

            async def take() -> None:
                async for change in watch:
                    told.append(change.value)

            tasks = [asyncio.create_task(take()) for _ in range(5)]
            for n in range(100):
                await state.set("a", n)
            while len(told) < 100:
                await asyncio.sleep(0)
            await watch.close()
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
            assert sorted(told) == list(range(100))

    run(main())


def test_closing_the_state_ends_who_waits_for_a_change() -> None:
    async def main() -> None:
        state = await State()
        watch = await state.watch()
        tasks = [asyncio.create_task(anext(watch)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await state.close()
        for task in tasks:
            with pytest.raises(ClosedError):
                await task
        with pytest.raises(ClosedError):
            await anext(watch)
        await watch.close()

    run(asyncio.wait_for(main(), 60))


def test_a_watch_that_nobody_has_any_more_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with State() as state:
            for _ in range(100):
                watch = state.watch()
                task = asyncio.create_task(anext(watch))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                del watch, task
            await state.set("a", 1)

    run(main())


def test_no_time_is_time_enough_for_what_was_committed() -> None:
    async def main() -> None:
        async with State() as state:
            watch = await state.watch()
            assert await watch.next(0) is None
            await state.set("a", 1)
            assert (await watch.next(0)).value == 1
            assert await watch.next(0.01) is None

    run(main())


@pytest.mark.parametrize(
    ("timeout", "kind"), [(-1, InvalidError), (float("nan"), InvalidError), ("1", InvalidTypeError)]
)
def test_a_timeout_that_is_no_time_is_refused(timeout: Any, kind: type[Exception]) -> None:
    async def main() -> None:
        async with State() as state:
            with pytest.raises(kind, match="timeout takes a number of seconds"):
                await state.watch().next(timeout)

    run(main())


@pytest.mark.parametrize("given", [{"pattern": "["}, {"name": "__a"}, {"name": ""}])
def test_what_cannot_be_watched_is_refused_at_once(given: dict[str, str]) -> None:
    async def main() -> None:
        async with State() as state:
            with pytest.raises(InvalidError, match=next(iter(given))):
                state.watch(**given)

    run(main())

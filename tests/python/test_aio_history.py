"""What is particular to history for asyncio; the rest is in ``tests/spec/history.json``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import ClosedError, Difference, InvalidError, InvalidTypeError, NotFoundError, Undone
from llmspell_state.aio import Scope, State, View
from loops import run

LATER = datetime(9999, 1, 1, tzinfo=timezone.utc)


async def the_past(state: State) -> View:
    """Two keys, and a scope, that are all gone since."""
    await state.set_many({"a": 1, "b": [2]})
    inner = await state.scope("inner")
    version = await inner.set("c", 3)
    await state.clear()
    await inner.clear()
    return await state.at(version)


def test_a_view_reads_what_was() -> None:
    async def main() -> None:
        async with State() as state:
            view = await the_past(state)
            assert isinstance(view, View) and repr(view) == f"<View at version {view.version}>"
            assert await view.get("a") == 1 and await view.get("c") is None and await view.get("c", 7) == 7
            assert await view.exists("b") and not await view.exists("c")
            assert await view.count() == 2 and await view.count("a*") == 1
            assert await view.get_many(["b", "c"]) == {"b": [2]}
            entry = await view.entry("a")
            assert entry is not None and (entry.value, entry.version) == (1, view.version - 1)
            assert await view.entry("c") is None
            inner = await view.scope("inner")
            assert await inner.get("c") == 3 and inner.version == view.version
            with pytest.raises(NotFoundError):
                await view.scope("nobody")

    run(main())


def test_a_view_is_listed_by_async_for() -> None:
    async def main() -> None:
        async with State() as state:
            version = await state.set_many({f"k{n:05}": n for n in range(5_000)})
            await state.clear()
            view = await state.at(version)
            keys = view.keys()
            for _ in range(2):
                assert [key async for key in keys] == [f"k{n:05}" for n in range(5_000)]
            assert [value async for value in view.values("k0000?", reverse=True, limit=2)] == [9, 8]
            assert [item async for item in view.items(after="k04998")] == [("k04999", 4_999)]

    run(main())


def test_differences_are_listed_by_async_for_over_all_pages(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            version = await state.set_many({f"k{n:05}": n for n in range(1_000)})
            await state.set_many({f"k{n:05}": n + 1 for n in range(0, 1_000, 2)})
            told = state.diff(version)
            assert isinstance(told, AsyncIterator) and aiter(told) is told
            expected = [Difference(f"k{n:05}", n, n + 1) for n in range(0, 1_000, 2)]
            assert [difference async for difference in told] == expected
            assert [difference async for difference in told] == []
            assert [difference.key async for difference in state.diff(0, LATER, "k00[0]0[12]")] == ["k00001", "k00002"]

    run(main())


def test_tasks_share_differences() -> None:
    async def main() -> None:
        async with State() as state:
            await state.set_many({f"k{n:05}": n for n in range(1_000)})
            told = state.diff(0)

            async def take() -> list[str]:
                return [difference.key async for difference in told]

            keys = await asyncio.gather(*(take() for _ in range(5)))
            assert sorted(key for taken in keys for key in taken) == [f"k{n:05}" for n in range(1_000)]

    run(main())


def test_a_run_keeps_the_hook_of_its_state_and_is_told() -> None:
    async def main() -> None:
        async with State(default=str) as state:
            run = state.as_run(actor="planner", run="r1", reason="as asked")
            assert isinstance(run, Scope)
            async with state.watch() as watch:
                await run.set("a", Path("x"))
                async with run.transaction() as tx:
                    await tx.set("b", Path("y"))
                assert await state.get_many(["a", "b"]) == {"a": "x", "b": "y"}
                for _ in range(2):
                    change = await watch.next()
                    assert change and (change.actor, change.run, change.reason) == ("planner", "r1", "as asked")
            revision = (await state.history("b"))[0]
            assert (revision.value, revision.run) == ("y", "r1")
            assert datetime.now(timezone.utc) - revision.time < timedelta(minutes=1)

    run(main())


def test_changes_are_taken_back() -> None:
    async def main() -> None:
        async with State() as state:
            version = await state.set("a", 1)
            run = state.as_run(run="bad")
            await run.set("a", 2)
            await (await run.scope("notes")).set("b", 2)
            await (await state.scope("notes")).set("b", 3)
            assert await state.undo(run="bad") == Undone(await state.version(), 1, ((("notes",), "b"),))
            assert await state.get("a") == 1
            assert await state.revert("a", version + 1) == await state.version() and await state.get("a") == 2
            assert await state.revert_to(version) == 1 and await state.get("a") == 1
            assert await state.revert_to(datetime(1970, 1, 1, tzinfo=timezone.utc)) == 1
            assert not await state.exists("a")

    run(main())


def test_a_cancelled_undo_is_whole_or_nothing(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            bad = state.as_run(run="bad")
            for turn in range(20):
                await bad.set_many({f"k{n:03}": turn for n in range(200)})
                task = asyncio.create_task(state.undo(run="bad"))
                await asyncio.sleep(turn / 2_000)
                task.cancel()
                await asyncio.wait([task])
                await state.set("fence", turn)
                assert await state.count("k*") in (0, 200)
                await state.undo(run="bad")
                assert await state.count("k*") == 0 and (await state.verify()).ok

    run(main())


CALLS: list[Callable[[State, Any], Coroutine[Any, Any, Any]]] = [
    lambda state, when: state.at(when),
    lambda state, when: listed(state, when),
    lambda state, when: listed(state, 0, when),
    lambda state, when: state.revert("a", when),
    lambda state, when: state.revert_to(when),
]


async def listed(state: State, *moments: Any) -> list[Difference]:
    return [difference async for difference in state.diff(*moments)]


@pytest.mark.parametrize("call", CALLS)
def test_a_moment_that_is_none_is_refused(call: Callable[[State, Any], Coroutine[Any, Any, Any]]) -> None:
    async def main() -> None:
        async with State() as state:
            await state.set("a", 1)
            with pytest.raises(InvalidError, match="has none"):
                await call(state, datetime(2026, 1, 1))
            with pytest.raises(InvalidTypeError, match="takes an int, which is a version, or a datetime, not str"):
                await call(state, "1")
            with pytest.raises(InvalidError, match="newest commit"):
                await call(state, 2)
            assert await state.version() == 1

    run(main())


def test_what_was_made_of_a_state_is_closed_with_it() -> None:
    async def main() -> None:
        async with State() as state:
            version = await state.set("a", 1)
            await state.set("a", 2)
            view, told, run = await state.at(version), state.diff(version), state.as_run(run="r1")
        calls = [view.get("a"), view.scope("b"), anext(told), anext(aiter(view.keys())), run.undo(run="r1"), run.at(0)]
        for call in calls:
            with pytest.raises(ClosedError):
                await call
        with pytest.raises(ClosedError):
            run.as_run()
        assert view.version == version

    run(main())

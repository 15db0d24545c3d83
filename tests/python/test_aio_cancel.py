"""Being cancelled at any moment: nothing is half done, nothing is lost, nothing is said."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import llmspell_state
import pytest
from llmspell_state import ConflictError
from llmspell_state.aio import State
from llmspell_state.aio.loop import later
from loops import LOOPS, run

CANCELS = 400


async def cancelled(work: Any, turns: int) -> bool:
    """Cancels it after so many turns of the loop; says whether that came in time."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("kind", LOOPS)
def test_whatever_is_cancelled_is_done_wholly_or_not_at_all(kind: str, path: Path) -> None:
    rng = random.Random(1)
    counts = {"asked": 0, "sure": 0, "cancelled": 0}

    async def pair(state: State, n: int) -> None:
        await state.set_many({"left": n, "right": n})

    async def count(state: State) -> None:
        counts["asked"] += 1
        await state.increment("count")
        counts["sure"] += 1

    async def transfer(state: State, n: int) -> None:
        async with state.transaction() as tx:
            await tx.set("from", await tx.get("from", 0) - n)
            await asyncio.sleep(0)
            await tx.set("to", await tx.get("to", 0) + n)

    async def transact(state: State, n: int) -> None:
        async def move(tx: Any) -> None:
            await tx.increment("from", -n)
            await tx.count()
            await tx.increment("to", n)

        await state.transact(move)

    async def modify(state: State, n: int) -> None:
        async def push(value: list[int]) -> list[int]:
            await asyncio.sleep(0)
            return [*value, len(value)]

        await state.modify("list", push, [])

    async def read(state: State, n: int) -> None:
        await state.get(f"m{n}")
        await state.get_many(["left", "right"])
        [key async for key in state.keys("*")]
        await (await state.scope(f"s{n % 3}")).exists("a")
        await state.verify()

    async def main() -> None:
        async with State(path, sync_mode="NORMAL", cache_size_mb=0) as state:

            async def one(n: int) -> None:
                work = rng.choice([pair, transfer, transact, modify, read])
                target = count(state) if rng.random() < 0.3 else work(state, n)
                counts["cancelled"] += await cancelled(target, rng.randrange(8))

            for start in range(0, CANCELS, 8):
                await asyncio.gather(*(one(n) for n in range(start, start + 8)))
                found = await state.get_many(["left", "right", "from", "to", "list"])
                assert found.get("left") == found.get("right")
                assert found.get("from", 0) + found.get("to", 0) == 0
                assert found.get("list", []) == list(range(len(found.get("list", []))))
            assert counts["sure"] <= await state.get("count", 0) <= counts["asked"]

    run(main(), LOOPS[kind])
    assert counts["cancelled"] > CANCELS / 20


@pytest.mark.parametrize("kind", LOOPS)
def test_a_cancelled_wait_for_a_change_loses_none(kind: str, path: Path) -> None:
    rng = random.Random(2)

    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state, state.watch() as watch:
            told: list[Any] = []

            async def take() -> None:
                told.append((await anext(watch)).value)

            async def take_in_time() -> None:
                change = await watch.next(rng.choice([0, 0.0005, 1]))
                if change is not None:
                    told.append(change.value)

            async def write() -> None:
                for n in range(CANCELS):
                    await state.set("a", n)

            writer = asyncio.create_task(write())
            while not writer.done():
                takers = [cancelled(rng.choice([take, take_in_time])(), rng.randrange(6)) for _ in range(3)]
                await asyncio.gather(*takers)
            while (change := await watch.next(0)) is not None:
                told.append(change.value)
            assert sorted(told) == list(range(CANCELS))

    run(main(), LOOPS[kind])


def test_a_cancelled_step_of_a_listing_leaves_it_where_it_was(path: Path) -> None:
    rng = random.Random(3)

    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            await state.set_many({f"k{n:05}": n for n in range(3000)})
            listing, seen = aiter(state.values()), []

            async def take() -> None:
                for _ in range(rng.randrange(1, 400)):
                    seen.append(await anext(listing))

            while len(seen) < 2500:
                await cancelled(take(), rng.randrange(3))
            seen += [value async for value in listing]
            assert seen == list(range(3000))

    run(main())


def test_a_cancelled_opening_closes_the_store(path: Path) -> None:
    async def main() -> None:
        for turns in range(8):
            await cancelled(State(path, create_dirs=True).__aenter__(), turns % 4)
        while True:
            try:
                # Other settings are refused as long as the store is open anywhere in this process.
                llmspell_state.State(path, max_value_bytes=1000).close()
                return
            except llmspell_state.InvalidError:
                await asyncio.sleep(0.001)

    run(asyncio.wait_for(main(), 60))


def test_a_cancelled_block_of_a_transaction_rolls_back() -> None:
    async def main() -> None:
        async with State() as state:
            entered = asyncio.Event()
            seen: list[Any] = []

            async def block() -> None:
                async with state.transaction() as tx:
                    seen.append(tx)
                    await tx.set("never", 1)
                    entered.set()
                    await asyncio.sleep(60)

            async def attempt(tx: Any) -> None:
                seen.append(tx)
                await tx.set("never", 1)
                entered.set()
                await asyncio.sleep(60)

            for work in (block(), state.transact(attempt)):
                task = asyncio.create_task(work)
                await entered.wait()
                entered.clear()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not seen[-1].active
            assert not await state.exists("never")

    run(main())


def test_a_block_that_is_cancelled_while_its_transaction_reads_rolls_back(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", cache_size_mb=0) as state:
            await state.set_many({f"k{n:05}": n for n in range(5000)})

            async def block() -> None:
                async with state.transaction() as tx:
                    await tx.set("never", 1)
                    await asyncio.gather(*(tx.count(f"k{n % 10}*") for n in range(50)))

            for turns in range(6):
                assert await cancelled(block(), turns)
            assert not await state.exists("never")

    run(main())


def test_cancelling_the_end_of_a_block_leaves_the_commit_to_itself() -> None:
    async def main() -> None:
        async with State() as state:

            async def block() -> None:
                async with state.transaction() as tx:
                    await tx.set("a", 1)
                    await tx.set("b", 1)

            assert await cancelled(block(), 1)
            await state.set("after", 1)
            assert len(await state.get_many(["a", "b"])) == 2  # a commit under way is not called back

    run(main())


def test_an_error_that_nobody_waits_for_is_not_reported() -> None:
    async def main() -> None:
        async with State() as state:
            for turns in range(5):
                with suppress(ConflictError):  # where the call was faster than its cancellation, somebody did wait
                    await cancelled(state.set("a", 1, if_version=99), turns)
            failing = [later(state._handle.set, "a", n, None, 99, None) for n in range(10)]
            await state.set("b", 1)
            assert all(future.done() for future in failing)

    run(main())

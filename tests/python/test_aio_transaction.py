"""Transactions that wait for something else meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from llmspell_state import ClosedError, ConflictError, InvalidTypeError
from llmspell_state.aio import State, Transaction
from loops import run


def test_transactions_that_think_meanwhile_lose_no_update(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            rounds = 0

            async def think(tx: Transaction) -> None:
                nonlocal rounds
                rounds += 1
                count = await tx.get("count", 0)
                await asyncio.sleep(0.0001)
                await tx.set("count", count + 1)

            await asyncio.gather(*(state.transact(think) for _ in range(30)))
            assert await state.get("count") == 30 and rounds >= 30

    run(main())


def test_a_plain_function_of_transact_may_answer_what_is_to_be_awaited() -> None:
    async def main() -> None:
        async with State() as state:
            assert await state.transact(lambda tx: tx.increment("n", 2)) == 2
            assert await state.transact(lambda _: 5) == 5
            assert await state.get("n") == 2

    run(main())


def test_a_conflict_is_told_where_nobody_tries_again(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            with pytest.raises(ConflictError):
                async with state.transaction() as tx:
                    await tx.get("a")
                    await state.set("a", 1)
                    await tx.set("a", 2)
            assert not tx.active and await state.get("a") == 1

            attempts = 0

            async def lose(tx: Transaction) -> None:
                nonlocal attempts
                attempts += 1
                await tx.count()
                await state.increment("a")
                await tx.set("b", 1)

            with pytest.raises(ConflictError):
                await state.transact(lose, attempts=4)
            assert attempts == 4 and not await state.exists("b")

    run(main())


def test_a_transaction_reads_one_snapshot_with_its_own_writes(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", cache_size_mb=0) as state:
            await state.set_many({f"k{n:04}": n for n in range(3000)})
            tx = await state.begin()
            await state.clear("k1*")
            await tx.delete("k0000")
            await tx.set_many({"k0001": "own", "own": True})
            inner = await tx.scope("inner")
            await inner.set("a", 1)
            assert await tx.count("k*") == 2999 == len([key async for key in tx.keys("k*")])
            assert [item async for item in tx.items(limit=1)] == [("k0001", "own")]
            assert [value async for value in tx.values("own")] == [True]
            assert await tx.get_many(["k0000", "k1500", "own"]) == {"k1500": 1500, "own": True}
            assert await tx.pop("k1500") == 1500 and not await tx.exists("k1500")
            assert await tx.setdefault("new", []) == [] and await tx.append("new", 1) == 1
            assert await tx.merge("new", {"a": 1}) == {"a": 1} and await tx.modify("new", lambda v: [v]) == [{"a": 1}]
            assert (await tx.entry("own")).version == 0 and await tx.clear("own") == 1
            await tx.rollback()
            assert not tx.active and await state.count("k*") == 2000 and await state.scopes() == ["inner"]

    run(main())


def test_calls_of_one_transaction_may_overlap(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", cache_size_mb=0) as state:
            await state.set_many({f"k{n:04}": n for n in range(2000)})
            async with state.transaction() as tx:
                calls = [tx.set(f"own{n}", n) for n in range(100)]
                calls += [tx.increment("sum", n) for n in range(100)]
                calls += [tx.count("k*"), tx.get_many([f"k{n:04}" for n in range(500)])]
                await asyncio.gather(*calls)
            assert await state.get("sum") == sum(range(100)) and await state.count("own*") == 100

    run(main())


def test_a_transaction_may_be_committed_while_it_is_read(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", cache_size_mb=0) as state:
            await state.set_many({f"k{n:04}": n for n in range(2000)})
            for n in range(10):
                tx = await state.begin()
                await tx.set("own", n)
                reads = [asyncio.ensure_future(tx.count("k*")) for _ in range(20)]
                while not reads[0].done():
                    assert tx.active  # asked while a thread of the library is at it
                    await asyncio.sleep(0)
                await tx.commit()
                assert not tx.active and await state.get("own") == n
                # Those that came too late say so.
                for found in await asyncio.gather(*reads, return_exceptions=True):
                    assert found == 2000 or isinstance(found, ClosedError)

    run(main())


def test_a_block_that_ended_its_transaction_leaves_it_so() -> None:
    async def main() -> None:
        async with State() as state:
            async with state.transaction() as tx:
                await tx.set("a", 1)
                assert await tx.commit() == 1
            async with state.transaction() as tx:
                await tx.set("a", 2)
                await tx.rollback()
            with pytest.raises(RuntimeError):
                async with state.transaction() as tx:
                    await tx.set("a", 3)
                    raise RuntimeError
            assert await state.get("a") == 1

    run(main())


def test_a_block_cannot_be_entered_with_a_transaction_that_has_ended() -> None:
    async def main() -> None:
        async with State() as state:
            for how in ("commit", "rollback"):
                tx = await state.begin()
                async with tx:  # as long as it has not, it can
                    await tx.set("a", 1)
                    await getattr(tx, how)()
                with pytest.raises(ClosedError, match="this transaction was"):
                    async with tx:
                        pytest.fail("entered")
                with pytest.raises(ClosedError, match="this transaction was"):
                    await tx
            tx = await state.begin()
        with pytest.raises(ClosedError, match="this state is closed"):
            async with tx:
                pytest.fail("entered")
        with pytest.raises(ClosedError, match="this state is closed"):
            async with state:
                pytest.fail("entered")
        with pytest.raises(ClosedError, match="this state is closed"):
            await state

    run(main())


def test_an_async_generator_is_refused_and_changes_nothing() -> None:
    async def generator(_: object) -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async with State() as state:
            calls = [
                lambda fn: state.transact(fn),
                lambda fn: state.modify("a", fn),
                lambda fn: state.transact(lambda tx: tx.modify("a", fn)),
            ]
            for call in calls:
                with pytest.raises(InvalidTypeError, match="not an async generator"):
                    await call(generator)
            assert await state.count() == await state.version() == 0

    run(main())


def test_a_transaction_that_has_still_to_run_when_its_function_returns_is_refused_and_changes_nothing() -> None:
    def generator(_: object) -> Iterator[int]:
        yield 1

    async def gives_generator(tx: Transaction) -> Iterator[int]:
        await tx.set("a", 1)
        return generator(tx)

    async def main() -> None:
        async with State() as state:
            for fn in (generator, gives_generator):
                with pytest.raises(InvalidTypeError, match="not a generator: it must not yield"):
                    await state.transact(fn)
            assert await state.count() == await state.version() == 0

    run(main())

"""The handles of ``llmspell_state.aio`` as programs use them. What verbs mean is in ``tests/spec``."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import llmspell_state
import pytest
from llmspell_state import ClosedError, ConflictError, Entry, InvalidError, InvalidTypeError, Verification, aio
from llmspell_state.aio import Scope, State, Transaction, View, Watch
from loops import LOOPS, run


@pytest.fixture(params=LOOPS)
def go(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine on a loop of each kind."""
    return lambda work: run(work, LOOPS[request.param])


def test_the_example_of_the_module_is_true() -> None:
    assert doctest.testmod(aio).failed == 0


def test_every_verb_is_there_with_the_arguments_of_the_plain_one() -> None:
    of_mappings = {"popitem", "update", "iter_keys", "iter_values", "iter_items", "take"}
    for plain, coroutines in (
        (llmspell_state.State, State),
        (llmspell_state.Scope, Scope),
        (llmspell_state.View, View),
    ):
        for name in dir(plain):
            if name.startswith("_") or name in of_mappings:
                continue
            method = inspect.getattr_static(coroutines, name)
            if inspect.isfunction(method) and name != "version":
                wanted = list(inspect.signature(getattr(plain, name)).parameters)
                assert list(inspect.signature(method).parameters) == wanted, name


@pytest.mark.parametrize("cls", [State, Transaction, View, Watch])
def test_what_waits_is_a_coroutine_function(cls: type) -> None:
    plain = {"keys", "values", "items", "transaction", "watch", "as_run", "diff"}
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.iscoroutinefunction(method) == (name not in plain), name


def test_every_verb_works_on_every_loop(go: Callable[[Any], Any], path: Path) -> None:
    async def work() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            version = await state.set("a", {"n": [1, b"\x00"]})
            assert version == await state.version() == 1
            assert await state.get("a") == {"n": [1, b"\x00"]}
            assert await state.get("b") is None and await state.get("b", 5) == 5
            assert isinstance(await state.entry("a"), Entry) and await state.entry("b") is None
            assert await state.exists("a") and not await state.exists("b")
            assert await state.set_many({"k1": 1, "k2": 2}) == 2
            assert await state.get_many(["k1", "k3", "k2"]) == {"k1": 1, "k2": 2}
            assert await state.count() == 3 and await state.count("k*") == 2
            assert [key async for key in state.keys("k*", reverse=True)] == ["k2", "k1"]
            assert [item async for item in state.items("k*", after="k1")] == [("k2", 2)]
            assert [value async for value in state.values("k*", limit=1)] == [1]
            assert await state.increment("n", 2) == 2 and await state.append("list", 1) == 1
            assert await state.merge("a", {"m": 1}) == {"n": [1, b"\x00"], "m": 1}
            assert await state.modify("n", lambda n: n * 10) == 20
            assert await state.setdefault("d", [1]) == [1] == await state.setdefault("d")
            assert await state.pop("d") == [1] and await state.pop("d", 2) == 2
            with pytest.raises(KeyError):
                await state.pop("d")
            assert await state.delete("n") and not await state.delete("n")
            inner = await state.scope("inner")
            assert inner.name == "inner" and await state.scopes() == ["inner"]
            await inner.set("a", 1)
            assert await inner.clear() == 1
            async with state.watch("k*", name="w") as watch:
                await state.set("k1", 2)
                assert (await anext(watch)).value == 2
                await watch.save()
            assert await state.named_watches() == {"w": await state.version()} and await state.forget_watch("w")
            async with state.transaction() as tx:
                assert await tx.get("k1") == 2
                await tx.set("k1", 3)
            assert await state.transact(lambda tx: tx.increment("k1")) == 4
            found = await state.verify()
            assert isinstance(found, Verification) and found.ok
        assert state.closed
        with pytest.raises(ClosedError):
            await state.get("a")

    go(work())


def test_a_state_may_be_awaited_and_closed_by_hand() -> None:
    async def work() -> None:
        state = await State()
        async with state as same:
            assert same is state and not state.closed and state.path is None and len(state.store_id) == 36
        await state.close()
        assert state.closed and repr(state) == "<State() closed>"

    run(work())


def test_a_state_that_was_not_opened_says_so(path: Path) -> None:
    state = State(path)
    assert repr(state) == f"<State({str(path)!r}) closed>" and not path.exists()
    with pytest.raises(ClosedError, match="'async with'"):
        run(state.get("a"))
    with pytest.raises(ClosedError):
        _ = state.closed
    with pytest.raises(AttributeError, match="'State' object has no attribute 'nothing'"):
        _ = state.nothing


def test_a_transaction_that_has_not_begun_says_so() -> None:
    async def work() -> None:
        async with State() as state:
            tx = state.transaction()
            assert not tx.active and repr(tx) == "<Transaction new>"
            with pytest.raises(ClosedError, match="'async with'"):
                await tx.get("a")
            assert (await tx) is tx and tx.active and repr(tx) == "<Transaction active>"
            await tx.rollback()
            assert not tx.active and repr(tx) == "<Transaction ended>"
            with pytest.raises(ClosedError):
                await tx.set("a", 1)

    run(work())


def test_handles_say_what_they_are(path: Path) -> None:
    async def work() -> None:
        async with State.from_config({"persistence_path": path, "sync_mode": "NORMAL"}) as state:
            assert repr(state) == f"<State({str(path)!r})>" and state.config["sync_mode"] == "NORMAL"
            assert repr(await state.scope("inner")) == "<Scope 'inner'>"
            assert repr(state.keys("a*", limit=2)) == "<Keys pattern='a*', limit=2>"
            watch = await state.watch(name="w")
            assert repr(watch) == "<Watch 'w' at version 0>"
            await watch.close()
            assert repr(watch) == "<Watch 'w' closed>"

    run(work())


def test_a_cached_read_does_not_leave_the_loop() -> None:
    async def work() -> None:
        async with State() as state:
            await state.set("a", 1)
            turns: list[int] = []
            asyncio.get_running_loop().call_soon(turns.append, 1)
            assert await state.get("a") == 1 and await state.exists("a") and await state.get("a", 2) == 1
            async with state.transaction() as tx:
                assert await tx.get("a") == 1
                await tx.set("b", 2)
                assert await tx.increment("b") == 3
                assert not turns
            assert turns

    run(work())


def test_a_store_is_shared_by_plain_and_asynchronous_handles(path: Path) -> None:
    async def work() -> None:
        with llmspell_state.State(path) as plain:
            async with State(path) as state:
                plain["a"] = 1
                assert await state.get("a") == 1
                watch = plain.watch()
                await state.set("a", 2)
                assert plain["a"] == 2 and next(watch).value == 2
                assert plain.store_id == state.store_id
            plain["a"] = 3

    run(work())


def test_tasks_of_a_group_write_together(path: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("there are no task groups before Python 3.11")

    async def work() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            async with asyncio.TaskGroup() as group:
                for n in range(500):
                    group.create_task(state.increment("sum", n))
            assert await state.get("sum") == sum(range(500))

    run(work())


def test_calls_are_friendly_to_wait_for_and_gather() -> None:
    async def work() -> None:
        async with State() as state:
            assert await asyncio.wait_for(state.set("a", 1), 60) == 1
            assert await asyncio.gather(state.get("a"), state.get("b"), state.increment("a")) == [1, None, 2]
            done, _ = await asyncio.wait([asyncio.create_task(state.count())])
            assert done.pop().result() == 1

    run(work())


def test_it_works_under_anyio() -> None:
    async def work() -> None:
        async with State() as state:
            async with anyio.create_task_group() as group:
                for n in range(100):
                    group.start_soon(state.append, "list", n)
            assert sorted(await state.get("list")) == list(range(100))
            watch = await state.watch()
            with anyio.move_on_after(0.05) as scope:
                await anext(watch)
            assert scope.cancelled_caught
            with anyio.move_on_after(0.05):
                async with state.transaction() as tx:
                    await tx.set("never", 1)
                    await anyio.sleep_forever()
            assert not tx.active and not await state.exists("never")

    anyio.run(work)
    anyio.run(work, backend_options={"use_uvloop": True})


def test_a_listing_can_be_read_again_and_has_all_pages(path: Path) -> None:
    async def work() -> None:
        async with State(path, sync_mode="NORMAL") as state:
            await state.set_many({f"k{n:05}": n for n in range(6000)})
            listing = state.values("k*")
            assert [value async for value in listing] == list(range(6000))
            seen = 0
            async for _, value in state.items("k*"):
                if value == 0:
                    await state.clear()  # after the moment that is listed
                seen += 1
            assert seen == 6000
            assert [value async for value in listing] == []

    run(work())


def test_a_listing_of_a_closed_state_fails_once_and_ends() -> None:
    async def work() -> None:
        state = await State()
        listing = aiter(state.keys())
        await state.close()
        with pytest.raises(ClosedError):
            await anext(listing)

    run(work())


def test_a_default_hook_is_for_a_state_and_all_that_comes_from_it() -> None:
    async def work() -> None:
        async with State(default=sorted) as state:
            await state.set("a", {3, 1})
            await (await state.scope("inner")).set_many({"a": {2, 1}})
            async with state.transaction() as tx:
                await tx.append("list", {5, 4})
                assert await tx.setdefault("d", {7, 6}) == [6, 7]
            await state.set("b", {1}, default=list)
            assert await state.get_many(["a", "b", "list", "d"]) == {
                "a": [1, 3],
                "b": [1],
                "list": [[4, 5]],
                "d": [6, 7],
            }
            assert await state.modify("m", lambda _: {2, 1}) == [1, 2]

    run(work())


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda state: state.get(1), InvalidTypeError),
        (lambda state: state.get(""), InvalidError),
        (lambda state: state.set("a", object()), InvalidError),
        (lambda state: state.set_many([1]), InvalidTypeError),
        (lambda state: state.modify("a", 1), InvalidTypeError),
        (lambda state: state.transact(None), InvalidTypeError),
        (lambda state: state.transact(lambda tx: None, attempts=0), InvalidError),
        (lambda state: state.delete("a", if_version=-1), InvalidError),
        (lambda state: state.set("a", 1, if_version=7), ConflictError),
        (lambda state: state.scope("__a"), InvalidError),
        (lambda state: state.increment("text"), InvalidError),
        (lambda state: State(unknown=1).__aenter__(), InvalidError),
        (lambda state: anext(aiter(state.keys("["))), InvalidError),
        (lambda state: state.watch(since=99).next(), InvalidError),
    ],
)
def test_a_mistake_is_an_error_of_its_kind(call: Callable[[State], Any], kind: type[Exception]) -> None:
    async def work() -> None:
        async with State() as state:
            await state.set("text", "a")
            with pytest.raises(kind):
                await call(state)
            assert await state.get_many(["text", "a"]) == {"text": "a"}

    run(work())


def test_a_function_of_modify_may_await_and_runs_again_when_another_was_faster() -> None:
    async def work() -> None:
        async with State() as state:
            await state.set("a", [0])
            seen = []

            async def think(value: list[int]) -> list[int]:
                seen.append(list(value))
                if len(seen) < 4:
                    await state.append("a", len(seen))
                await asyncio.sleep(0)
                return [*value, "last"]

            assert await state.modify("a", think) == [0, 1, 2, 3, "last"]
            assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]

            async def change(default: list[int]) -> list[int]:
                default.append(1)
                if await state.increment("rounds") < 3:
                    await state.set("b", None)
                    await state.delete("b")
                    await state.set("c", await state.increment("rounds", 0))
                return default

            assert await state.modify("b", change, []) == [1]

    run(work())


def test_a_ticker_in_the_loop_ticks_on_while_a_thousand_calls_run(path: Path) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        late: list[float] = []

        async def tick() -> None:
            while True:
                due = loop.time() + 0.001
                await asyncio.sleep(0.001)
                late.append(loop.time() - due)

        async with State(path) as state:
            ticker = asyncio.create_task(tick())
            await asyncio.gather(*(state.set(f"k{n}", "x" * 100) for n in range(1000)))
            await asyncio.gather(*(state.get_many([f"k{n}", f"m{n}"]) for n in range(1000)))
            ticker.cancel()
        assert max(late) < 1  # what blocks a loop on a busy machine is longer still: 1,000 syncs

    run(work())


def test_a_state_that_is_not_open_says_so_before_anything_is_made_of_it() -> None:
    state = State()
    for make in (state.keys, state.values, state.items, state.transaction):
        with pytest.raises(ClosedError, match="not open"):
            make()

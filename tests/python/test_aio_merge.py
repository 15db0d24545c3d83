"""What is particular to forks of scopes, and merging them, for asyncio; the rest is in ``tests/spec/fork.json``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import llmspell_state
import pytest
from llmspell_state import (
    DELETE,
    LEAVE,
    MISSING,
    OURS,
    THEIRS,
    ConflictError,
    InvalidError,
    InvalidTypeError,
    MergeConflict,
    Merged,
    NotFoundError,
)
from llmspell_state.aio import Scope, State
from loops import LOOPS, run


async def parted(state: State) -> tuple[Scope, Scope]:
    """A scope and its fork, which conflict in `a`, and in `gone` and `new`, where one side has nothing."""
    agent = await state.scope("agent")
    await agent.set_many({"a": 1, "gone": 1, "quiet": 1})
    trial = await state.fork("agent", "trial")
    await trial.set_many({"a": 2, "new": "theirs", "quiet": 2})
    await trial.delete("gone")
    await agent.set_many({"a": 3, "gone": 3, "new": "ours"})
    return agent, trial


async def content(scope: Scope) -> dict[str, Any]:
    return {key: value async for key, value in scope.items()}


BEFORE = {"a": 3, "gone": 3, "new": "ours", "quiet": 1}


def test_a_fork_is_a_scope_of_its_own() -> None:
    async def main() -> None:
        async with State(default=lambda value: f"<{value!r}>") as state:
            agent = await state.scope("agent")
            await agent.set("k", 1)
            trial = await state.as_run(run="r1").fork("agent", "trial")
            assert type(trial) is Scope and trial.name == "trial" and await trial.get("k") == 1
            await trial.set("k", 5j)
            assert await trial.get("k") == "<5j>" and (await trial.history("k"))[0].run == "r1"
            with pytest.raises(NotFoundError):
                await state.fork("nobody", "x")
            with pytest.raises(ConflictError):
                await state.fork("agent", "trial")
            with pytest.raises(InvalidTypeError, match="^scope takes a str"):
                await state.fork(5, "x")

    run(main())


def test_what_is_left_alone_is_told() -> None:
    async def main() -> None:
        async with State() as state:
            agent, trial = await parted(state)
            merged = await agent.merge_from(trial)
            assert merged == Merged(await state.version(), 1, (((), "a"), ((), "gone"), ((), "new")))
            assert await content(agent) == {**BEFORE, "quiet": 2}

    run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_a_resolver_may_be_plain_or_await_anything(kind: str) -> None:
    seen: list[MergeConflict] = []
    answers: dict[str, object] = {"a": [None, 5j], "gone": MISSING, "new": THEIRS}

    def plain(conflict: MergeConflict) -> object:
        seen.append(conflict)
        return answers[conflict.key]

    async def slow(conflict: MergeConflict) -> object:
        await asyncio.sleep(0.001)
        return plain(conflict)

    class Later:
        def __init__(self, conflict: MergeConflict) -> None:
            self.answer = slow(conflict)

        def __await__(self) -> Any:
            return self.answer.__await__()

    async def main() -> None:
        for resolve in (plain, slow, Later, lambda conflict: asyncio.ensure_future(slow(conflict))):
            seen.clear()
            async with State(default=repr) as state:
                agent, trial = await parted(state)
                merged = await agent.merge_from(trial, resolve)
                assert merged.keys == 4 and merged.conflicts == ()
                assert await content(agent) == {"a": [None, "5j"], "new": "theirs", "quiet": 2}
                assert sorted(seen, key=lambda conflict: conflict.key) == [
                    MergeConflict((), "a", 1, 3, 2),
                    MergeConflict((), "gone", 1, 3, MISSING),
                    MergeConflict((), "new", MISSING, "ours", "theirs"),
                ]

    run(main(), LOOPS[kind])


def test_every_resolution_is_known() -> None:
    async def main() -> None:
        expected = {
            OURS: {"a": 3, "gone": 3, "new": "ours", "quiet": 2},
            THEIRS: {"a": 2, "new": "theirs", "quiet": 2},
            DELETE: {"quiet": 2},
            LEAVE: {"a": 3, "gone": 3, "new": "ours", "quiet": 2},
            None: {"a": None, "gone": None, "new": None, "quiet": 2},
        }
        for answer, after in expected.items():
            async with State() as state:
                agent, trial = await parted(state)
                merged = await agent.merge_from(trial, lambda _, answer=answer: answer)
                assert await content(agent) == after and len(merged.conflicts) == (3 if answer is LEAVE else 0)

    run(main())


def test_what_a_resolver_fails_with_ends_the_merge() -> None:
    class OwnError(Exception):
        pass

    async def fail(conflict: MergeConflict) -> object:
        await asyncio.sleep(0)
        if conflict.key == "new":
            raise OwnError
        return THEIRS

    async def generate(_: MergeConflict) -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async with State() as state:
            agent, trial = await parted(state)
            for resolve, kind in ((fail, OwnError), (generate, InvalidTypeError), (lambda _: 5j, InvalidError)):
                with pytest.raises(kind):
                    await agent.merge_from(trial, resolve)
            with pytest.raises(InvalidTypeError, match="resolve takes a function"):
                await agent.merge_from(trial, "ours")
            assert await content(agent) == BEFORE

    run(main())


def test_only_a_fork_of_the_scope_is_merged() -> None:
    async def main() -> None:
        async with State() as state, State() as other:
            agent, trial = await parted(state)
            with llmspell_state.State() as plain:
                for bad in (None, "trial", plain, await state.transaction()):
                    with pytest.raises(InvalidTypeError, match="fork takes a Scope of llmspell_state.aio, not "):
                        await agent.merge_from(bad)
            for scope in (state, agent, other):
                for resolve in (None, lambda _: OURS):
                    with pytest.raises(InvalidError, match="fork"):
                        await agent.merge_from(scope, resolve)
            assert await content(agent) == BEFORE and await trial.get("a") == 2

    run(main())


def test_a_key_that_changes_meanwhile_is_asked_about_again() -> None:
    asked: list[tuple[str, Any]] = []

    async def main() -> None:
        async with State() as state:
            agent, trial = await parted(state)

            async def resolve(conflict: MergeConflict) -> object:
                asked.append((conflict.key, conflict.ours))
                if len(asked) < 3:
                    await agent.increment("a", 10)
                return OURS if conflict.key != "a" else conflict.ours + conflict.theirs

            merged = await agent.merge_from(trial, resolve)
            assert await agent.get("a") == 25 and merged.conflicts == ()
            assert [ours for key, ours in asked if key == "a"][-1] == 23
            assert sum(key == "new" for key, _ in asked) == 1

    run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_merging_may_be_cancelled_at_any_moment(kind: str, path: Path) -> None:
    async def resolve(conflict: MergeConflict) -> object:
        await asyncio.sleep(0)
        return THEIRS

    async def main() -> None:
        done = 0
        async with State(path, sync_mode="NORMAL") as state:
            agent, trial = await parted(state)
            after = await content(trial)
            for turns in range(40):
                await agent.clear()
                await agent.set_many(BEFORE)
                task = asyncio.ensure_future(agent.merge_from(trial, resolve if turns % 2 else lambda _: THEIRS))
                for _ in range(turns // 3):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                done += not task.cancelled()
                await state.cleanup()  # behind what is still under way
                assert await content(agent) in (BEFORE, after)
            assert (await agent.merge_from(trial, resolve)).conflicts == ()
            assert await content(agent) == after and (await state.verify()).ok
        assert done < 40

    run(main(), LOOPS[kind])


def test_cancelling_reaches_the_resolver() -> None:
    async def main() -> None:
        async with State() as state:
            agent, trial = await parted(state)
            asked, ended = asyncio.Event(), asyncio.Event()

            async def resolve(_: MergeConflict) -> object:
                asked.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    ended.set()
                return OURS

            task = asyncio.ensure_future(agent.merge_from(trial, resolve))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended.is_set() and await content(agent) == BEFORE

    run(main())

"""What is particular to times to live, retention and usage for asyncio; the rest is in ``tests/spec``."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from llmspell_state import Cleanup, InvalidError, InvalidTypeError, RetentionPolicy, Usage
from llmspell_state.aio import State
from loops import LOOPS, run

BAD_TYPES = [True, "5", 5j, [5], object()]
BAD_NUMBERS = [0, -1.0, math.nan, -math.inf, 1e12, 10**400, timedelta(0), timedelta.max]


def test_a_time_to_live_is_a_number_of_seconds_or_a_timedelta() -> None:
    async def main() -> None:
        async with State() as state:
            for ttl in (3600, 3600.0, timedelta(hours=1)):
                await state.set("a", 1, ttl=ttl)
                await state.set_many({"b": 1, "c": 1}, ttl=ttl)
                async with state.transaction() as tx:
                    assert await tx.touch("c", math.inf) and not await tx.touch("nobody", ttl)
                    await tx.set("d", 1, ttl=ttl)
                    await tx.set_many({"e": 1}, ttl=ttl)
                for key in "abde":
                    entry = await state.entry(key)
                    assert entry is not None and entry.expires is not None
                    assert abs(entry.expires - datetime.now(timezone.utc) - timedelta(hours=1)) < timedelta(seconds=5)
                forever = await state.entry("c")
                assert forever is not None and forever.expires is None
            assert await state.set_default_ttl(timedelta(minutes=1)) == await state.version()
            assert await state.default_ttl() == 60.0
            assert await state.set("lease", 1, ttl=5, if_version=0)
            await state.set_default_ttl()
            assert await state.default_ttl() is None

    run(main())


@pytest.mark.parametrize("ttl", [*BAD_TYPES, *BAD_NUMBERS], ids=lambda ttl: repr(ttl)[:30])
def test_what_is_no_time_is_refused(ttl: Any) -> None:
    expected = InvalidTypeError if any(ttl is bad for bad in BAD_TYPES) else InvalidError

    async def main() -> None:
        async with State() as state:
            version = await state.set("k", 1)
            tx = await state.transaction()
            for handle in (state, tx):
                for call in (
                    lambda handle=handle: handle.set("k", 2, ttl=ttl),
                    lambda handle=handle: handle.set_many({"k": 2}, ttl=ttl),
                    lambda handle=handle: handle.touch("k", ttl),
                ):
                    with pytest.raises(expected, match="^ttl ") as raised:
                        await call()
                    assert type(raised.value) is expected
            with pytest.raises(expected, match="^ttl "):
                await state.set_default_ttl(ttl)
            await tx.commit()
            assert await state.get("k") == 1 and await state.version() == version

    run(main())


def test_an_update_inside_a_transaction_leaves_the_time_to_live() -> None:
    async def push(value: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [*value, 1]

    async def main() -> None:
        async with State(cache_size_mb=0) as state:
            await state.set("k", [], ttl=1_000)
            before = await state.entry("k")
            await state.modify("k", push)
            async with state.transaction() as tx:
                assert await tx.modify("k", push) == [1, 1]
                assert await tx.modify("new", push, []) == [1]
            after = await state.entry("k")
            assert before is not None and after is not None and after.expires == before.expires is not None
            assert after.value == [1, 1] and await state.get("new") == [1]

    run(main())


def test_a_policy_is_given_as_such_or_as_a_mapping(path: Path) -> None:
    policy = RetentionPolicy(max_age=timedelta(hours=1), max_versions=None)

    async def main() -> None:
        async with State(path, retention=policy) as state:
            assert await state.retention() == policy
            agent = await state.scope("agent")
            version = await agent.set_retention({"max_age": timedelta(minutes=1), "max_versions": 1})
            assert version == await state.version()
            assert await agent.retention() == RetentionPolicy(max_age=60.0, max_versions=1)
            for bad, kind in ((5, InvalidTypeError), ({"max_versions": 0}, InvalidError), ({"max": 1}, InvalidError)):
                with pytest.raises(kind, match="retention"):
                    await agent.set_retention(bad)
                with pytest.raises(kind, match="retention"):
                    await State(retention=bad)
            await agent.set("k", 1)
            await agent.set("k", 22)
            assert await agent.usage() == Usage(keys=1, live_bytes=2, history_bytes=1, changes=2)
            assert await state.cleanup() == Cleanup(expired=0, trimmed=1)
            assert len(await agent.history("k")) == 1
            await agent.set_retention()
            assert await agent.retention() == policy
            settings = state.config
        async with State.from_config(settings) as again:
            assert await again.retention() == policy

    run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_cleaning_up_may_be_cancelled_at_any_moment(kind: str, path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", retention={"max_versions": 1}) as state:
            for turns in range(30):
                for n in range(5):
                    await state.set("k", n)
                await state.set_many({f"gone{n}": n for n in range(20)}, ttl=0.001)
                task = asyncio.ensure_future(state.cleanup())
                for _ in range(turns % 6):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            await asyncio.sleep(0.01)
            await state.cleanup()
            assert await state.cleanup() == Cleanup(expired=0, trimmed=0)
            assert [revision.value for revision in await state.history("k")] == [4]
            assert await state.count() == 1 and (await state.verify()).ok

    run(main(), LOOPS[kind])


def test_tasks_write_while_others_clean_up(path: Path) -> None:
    async def main() -> None:
        async with State(path, sync_mode="NORMAL", retention={"max_versions": 2}) as state:

            async def write(worker: int) -> None:
                for n in range(50):
                    await state.increment("count")
                    await state.set(f"k{worker}", n, ttl=0.001 if n % 2 else None)

            async def clean() -> int:
                return sum([(await state.cleanup()).trimmed for _ in range(10)])

            await asyncio.gather(*map(write, range(8)), clean(), clean())
            await state.cleanup()
            assert await state.get("count") == 400 and len(await state.history("count")) == 2
            assert (await state.verify()).ok

    run(main())

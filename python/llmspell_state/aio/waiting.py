"""Waiting for a future together with others."""

from __future__ import annotations

import asyncio
from typing import Any


async def wait_for(future: asyncio.Future[Any], deadline: float | None = None) -> bool:
    """Waits until a future is done, or until that time of the loop; says whether it is, and raises what it failed with.

    Unlike an ``await`` of the future itself, being cancelled leaves it to the others.
    """
    if not future.done():
        loop = future.get_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not waiter.done():
                waiter.set_result(None)

        timer = None if deadline is None else loop.call_at(deadline, wake)
        future.add_done_callback(wake)
        try:
            await waiter
        finally:
            future.remove_done_callback(wake)
            if timer is not None:
                timer.cancel()
    if not future.done():
        return False
    future.result()
    return True

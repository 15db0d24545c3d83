"""Event loops for the tests of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import uvloop


class PollingLoop(asyncio.SelectorEventLoop):
    """A loop that cannot wait for descriptors of others."""

    def add_reader(self, *_: object) -> NoReturn:
        raise NotImplementedError


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "polling": PollingLoop,
}


def run(work: Coroutine[Any, Any, Any], make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> Any:
    """Runs it as ``asyncio.run`` does. Whatever the loop has to report is a failure."""
    loop, reported = make(), []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        return loop.run_until_complete(work)
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        assert not reported

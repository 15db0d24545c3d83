"""The futures of event loops, which wait for calls of the compiled part.

Threads of the library hand what they found to a queue and make a descriptor readable, for which the loop waits; its own
thread then makes the objects and resolves the futures. No thread but those of Python ever needs the interpreter.
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from .. import _native

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    _Ts = TypeVarTuple("_Ts")

_T = TypeVar("_T")
_AT_ONCE: Final = 64
"""Futures that are resolved before the loop gets its turn: each wakes a task, and timers wait for all of these."""
_SHORTEST: Final = 0.001
_LONGEST: Final = 0.010
"""Seconds between looks, where a loop cannot wait for a descriptor."""


running = _native.Completions.running


def later(
    call: Callable[[_native.Completions, asyncio.Future[_T], Unpack[_Ts]], None], *args: Unpack[_Ts]
) -> asyncio.Future[_T]:
    """Makes a call without waiting for it; the future of the running loop gets what comes of it.

    A thousand tasks may begin in one turn of the loop, and come here before any timer has its turn: every name that is
    looked up counts.
    """
    loop = get_running_loop()
    completions = running(loop) or attached(loop)
    future: asyncio.Future[_T] = loop.create_future()
    call(completions, future, *args)
    return future


async def until(future: asyncio.Future[_T], deadline: float | None = None) -> bool:
    """Waits until a future is done, or until that time of the loop; says whether it is, and raises what it failed with.

    Unlike an ``await`` of the future itself, being cancelled leaves it to others who wait for it, too.
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


def attached(loop: asyncio.AbstractEventLoop) -> _native.Completions:
    """What a loop waits for from now on."""
    completions = _native.Completions(loop)
    try:
        loop.add_reader(completions.fileno(), partial(_resolve, completions))
    except NotImplementedError:
        _poll(loop, completions)
    return completions


def _resolve(completions: _native.Completions) -> None:
    """Resolves futures whose calls have ended, some of them if there are many."""
    pop = completions.pop
    for _ in range(_AT_ONCE):
        if (ended := pop()) is None:
            break
        future, result, error = ended
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            future.exception()  # whoever waits may be cancelled before it looks; nobody need hear of the error then
    completions.rest()


def _poll(loop: asyncio.AbstractEventLoop, completions: _native.Completions, pause: float = _SHORTEST) -> None:
    """Looks now and then, so that no thread is needed which could outlive the loop or the interpreter."""
    before = completions.pending
    _resolve(completions)
    pause = _SHORTEST if completions.pending < before else min(2 * pause, _LONGEST)
    loop.call_later(pause, _poll, loop, completions, pause)

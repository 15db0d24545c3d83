"""For event loops that cannot wait for a file descriptor: they look now and then."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Final

from .. import _native

SHORTEST: Final = 0.001
LONGEST: Final = 0.010


def poll(loop: AbstractEventLoop, completions: _native.Completions, pause: float = SHORTEST) -> None:
    """Looks for calls that have ended, as long as any has not.

    No thread is needed for it, so there is none that could outlive the loop or the interpreter.
    """
    before = len(completions)
    completions.drain()
    left = len(completions)
    pause = SHORTEST if left < before else min(2 * pause, LONGEST)
    loop.call_later(pause, poll, loop, completions, pause)

"""A watch: every change of the keys that match, in the order of commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

from .. import _native
from ..change import Change
from ..errors import ForkedError, InvalidError, InvalidTypeError
from .loop import later, until

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

Loop = asyncio.AbstractEventLoop


class Watch(AsyncIterator[Change]):
    """Changes for ``async for``, made by ``watch()``; it waits for the next one as long as it takes.

    It tells every commit of any process once, whole and in order, and ends when it is closed; when its state is closed,
    it raises ``ClosedError``. It reads the log as it goes, so a slow consumer costs no memory and holds up no writer.
    Cancelling whoever waits loses no change. Tasks may share it: each change goes to one.

    ``async with state.watch() as watch`` closes it at the end; ``watch = await state.watch()`` leaves that to the
    caller. Both return when it has begun.

    A watch with a name keeps in the store how far it has come whenever it fetches more, and when it is saved or
    closed; it goes on there when it is opened again. A change counts as done when the next one is asked for, or at
    ``save()``. After a crash the commits since are told again.
    """

    __slots__ = ("__weakref__", "_begun", "_handle", "_ready")

    _handle: _native.AsyncWatch

    def __init__(self, begun: asyncio.Future[_native.AsyncWatch]) -> None:
        self._begun = begun
        self._ready: dict[Loop, asyncio.Future[None]] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "_handle" and self._begun.done():
            self._handle = self._begun.result()
            return self._handle
        if name == "_handle":
            raise RuntimeError("this watch is still beginning; enter it by 'async with', or await it")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except ForkedError:
            if kind is None:
                raise

    async def _begin(self) -> _native.AsyncWatch:
        if not self._begun.done():
            await until(self._begun)
        return self._handle

    async def __anext__(self) -> Change:
        change = await self.next()
        if change is None:
            raise StopAsyncIteration
        return change

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change, waiting for it at most ``timeout`` seconds, or as long as it takes without one.

        ``None`` when none came, or when the watch was closed. ``ClosedError`` when its state was closed.
        ``NotFoundError`` when changes that are to be told are not in the log any more: read the keys, and watch from
        now on.
        """
        deadline = None if timeout is None else _deadline(timeout)
        handle = await self._begin()
        has_looked = deadline is None
        while True:
            fields = handle.pop()
            if fields is not None:
                return Change._from_store(*fields)
            if handle.closed:
                return None
            if not has_looked:
                # However short the time is, what was committed before is told.
                await later(handle.fetch)
                has_looked = True
            elif not await until(self._next_ready(handle), deadline):
                return None

    def _next_ready(self, handle: _native.AsyncWatch) -> asyncio.Future[None]:
        """Resolved when there is a change; one for all tasks of a loop that wait."""
        loop = asyncio.get_running_loop()
        ready = self._ready.get(loop)
        if ready is None or ready.done():
            for other in [other for other in self._ready if other.is_closed()]:
                del self._ready[other]
            ready = self._ready[loop] = later(handle.ready)
        return ready

    async def save(self) -> None:
        """Counts every change that was given as done and, for a watch with a name, keeps that in the store."""
        await later((await self._begin()).save)

    async def close(self) -> None:
        """Ends the watch, for those who wait, too. Closing it again does nothing."""
        await later((await self._begin()).close)

    @property
    def version(self) -> int:
        """The last version whose changes, and all before them, are done."""
        return self._handle.version

    @property
    def name(self) -> str | None:
        """The name under which the store keeps how far it has come."""
        return self._handle.name

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._handle.closed

    def __repr__(self) -> str:
        if not self._begun.done():
            return "<Watch beginning>"
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Watch{name} {'closed' if self.closed else f'at version {self.version}'}>"


def _deadline(timeout: float) -> float:
    """The time of the running loop at which it is over."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidTypeError(f"timeout takes a number of seconds, not {type(timeout).__qualname__}")
    if not timeout >= 0:
        raise InvalidError(f"timeout takes a number of seconds from 0 on, not {timeout}")
    return asyncio.get_running_loop().time() + timeout

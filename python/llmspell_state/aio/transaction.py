"""A transaction: several reads and writes that happen at one moment or not at all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .. import _native
from ..errors import ClosedError
from .loop import later
from .verbs import Hook, Verbs, check_function, fresh, outcome

if TYPE_CHECKING:
    from asyncio import Future
    from types import TracebackType

    from typing_extensions import Self

    _Begin = Callable[[_native.Completions, Future[_native.AsyncTransaction]], None]


class Transaction(Verbs):
    """One snapshot with its own writes over it.

    ``async with state.transaction() as tx`` begins it, commits at the end and rolls back on an exception, also that of
    being cancelled; ``tx = await state.transaction()`` leaves both to the caller. No lock is held while it is open, so
    it may await anything. One that is dropped without a commit has changed nothing. Entering one that has ended raises
    ``ClosedError``.

    It is for one task at a time. Calls of several tasks in one transaction may overlap, and each is whole. But nothing
    keeps two tasks apart that both read a value and then write what they made of it: of two ``modify`` of a key that
    overlap, one may be lost. Tasks with a transaction each are kept apart, by ``ConflictError``.
    """

    __slots__ = ("_begin",)

    _handle: _native.AsyncTransaction
    _begin: _Begin | None

    def __init__(self, begin: _Begin, default: Hook | None) -> None:
        self._begin = begin
        self._default = default

    def __getattr__(self, name: str) -> Any:
        if name == "_handle":
            raise ClosedError("this transaction has not begun; enter it by 'async with', or await it")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    async def __aenter__(self) -> Self:
        if self._begin is not None:
            self._handle = await later(self._begin)
            self._begin = None
        else:
            await later(self._handle.get_many, ())  # one that has ended says so
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._handle.abandon()
        elif not self._handle.ended:
            await later(self._handle.commit)

    async def set(
        self,
        key: str,
        value: object,
        *,
        ttl: float | timedelta | None = None,
        if_version: int | None = None,
        default: Hook | None = None,
    ) -> None:
        """Stores a value, for the commit; with ``ttl`` for so many seconds from then on, infinity is for ever.

        With ``if_version``, only when the key's version is still that one (0: when the key is missing);
        ``ConflictError`` otherwise. ``default`` turns objects that cannot be stored into ones that can, for this call.
        """
        await later(self._handle.set, key, value, ttl, if_version, default or self._default)

    async def set_many(self, mapping: Mapping[str, Any], *, ttl: float | timedelta | None = None) -> None:
        """Stores all members of a mapping, for the commit; with ``ttl`` for so many seconds from then on."""
        await later(self._handle.set_many, mapping, ttl, self._default)

    async def modify(self, key: str, fn: Callable[[Any], object], default: object = None) -> Any:
        """Replaces a value by what ``fn``, a plain or an async function, makes of the current one; returns the new one.

        ``fn`` gets ``default`` when the key is missing. What another task does to the key by the same transaction
        meanwhile is lost.
        """
        check_function(fn)
        entry = await self.entry(key)
        new = await outcome(fn(fresh(default) if entry is None else entry.value))
        return await later(self._handle.replace, key, new, self._default)

    async def scope(self, name: str) -> Transaction:
        """The same transaction, seen from the scope of this name."""
        scope = Transaction.__new__(Transaction)
        scope._handle, scope._begin, scope._default = await later(self._handle.scope, name), None, self._default
        return scope

    async def commit(self) -> int:
        """Commits and returns the version of the commit.

        ``ConflictError`` when another writer changed what was read here. Cancelling it leaves open whether it commits.
        """
        return await later(self._handle.commit)

    async def rollback(self) -> None:
        """Forgets every change."""
        await later(self._handle.rollback)

    @property
    def active(self) -> bool:
        """Whether it has begun, and was neither committed nor rolled back."""
        return self._begin is None and self._handle.active

    def __repr__(self) -> str:
        return f"<Transaction {'new' if self._begin is not None else 'active' if self.active else 'ended'}>"

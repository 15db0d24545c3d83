"""The verbs that are the same in a scope, in a transaction and, as far as they read, in a view of the past."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from copy import deepcopy
from datetime import timedelta
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, TypeVar, overload

from .. import _native
from ..change import MISSING
from ..entry import Entry
from ..errors import InvalidTypeError
from .loop import later
from .views import Items, Keys, Select, Values

_T = TypeVar("_T")
_UNKNOWN: Final = object()

Hook = Callable[[Any], object]
"""Turns objects that cannot be stored into ones that can."""


class ReadingVerbs:
    """Text keys and their values, to be read: in a store now or in the past, or in a transaction."""

    __slots__ = ("__weakref__", "_handle")

    _handle: _native.AsyncScope | _native.AsyncTransaction | _native.AsyncView

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, default: _T) -> Any | _T: ...
    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default`` when it is missing. Every call gives an object of its own."""
        value = await later(self._handle.get, key)
        return default if value is MISSING else value

    async def entry(self, key: str) -> Entry | None:
        """The value of a key with its version and times, or ``None`` when it is missing."""
        fields = await later(self._handle.entry, key)
        return None if fields is None else Entry._from_store(*fields)

    async def exists(self, key: str) -> bool:
        """Whether a key is there."""
        return await later(self._handle.exists, key)

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of those keys that are there, read at one moment."""
        return await later(self._handle.get_many, keys)

    async def count(self, pattern: str = "*") -> int:
        """How many keys match."""
        return await later(self._handle.count, pattern)

    def keys(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Keys:
        """The keys that match, sorted by their bytes, for ``async for``.

        ``after`` leaves out everything up to and including that key (with ``reverse``, everything from it on),
        ``limit`` is the most keys to give. The listing can be iterated over again; each time it reads anew, page by
        page, the keys of the moment at which it began.
        """
        return Keys(self._handle.keys, Select(pattern, after, limit, reverse))

    def values(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Values:
        """The values of the keys that match, in the order of their keys; see ``keys``."""
        return Values(self._handle.values, Select(pattern, after, limit, reverse))

    def items(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Items:
        """The keys that match with their values; see ``keys``."""
        return Items(self._handle.items, Select(pattern, after, limit, reverse))


class Verbs(ReadingVerbs):
    """Text keys and their values, in a store or in a transaction."""

    __slots__ = ("_default",)

    _handle: _native.AsyncScope | _native.AsyncTransaction
    _default: Hook | None

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, default: _T) -> Any | _T: ...
    async def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default`` when it is missing. Every call gives an object of its own."""
        value = self._handle.peek(key, default, _UNKNOWN)
        if value is not _UNKNOWN:
            return value
        value = await later(self._handle.get, key)
        return default if value is MISSING else value

    async def touch(self, key: str, ttl: float | timedelta | None = None) -> bool:
        """Gives a key another time to live from now on and leaves its value; says whether it was there.

        ``ttl`` is in seconds, infinity is for ever, and ``None`` is as the scope's ``default_ttl`` says. In a
        transaction it counts from the commit on.
        """
        return await later(self._handle.touch, key, ttl)

    async def delete(self, key: str, *, if_version: int | None = None) -> bool:
        """Removes a key and says whether it was there; with ``if_version``, only when that is still its version."""
        return await later(self._handle.delete, key, if_version)

    async def clear(self, pattern: str = "*") -> int:
        """Removes all keys that match, in one commit, and returns how many there were."""
        return await later(self._handle.clear, pattern)

    async def increment(self, key: str, by: float = 1) -> Any:
        """Adds to a number, exactly, and returns the sum; a missing key counts as 0."""
        return await later(self._handle.increment, key, by)

    async def append(self, key: str, item: object) -> int:
        """Adds an item to the end of a list and returns the new length; a missing key counts as an empty list."""
        return await later(self._handle.append, key, item, self._default)

    async def merge(self, key: str, patch: object) -> Any:
        """Merges a patch into a value and returns the result (JSON Merge Patch: ``None`` removes a member)."""
        return await later(self._handle.merge, key, patch, self._default)

    async def setdefault(self, key: str, default: object = None) -> Any:
        """The value of a key; when it is missing, ``default`` is stored first."""
        return await later(self._handle.setdefault, key, default, self._default)

    async def pop(self, key: str, default: Any = MISSING) -> Any:
        """Removes a key and returns its value; ``default``, or ``KeyError`` without one, when it is missing."""
        value = await later(self._handle.take, key)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default


def fresh(default: Any) -> Any:
    """A function that runs again after a conflict must not find what it did to a list or dict the first time."""
    return deepcopy(default) if isinstance(default, (list, dict)) else default


async def outcome(result: Awaitable[_T] | _T, what: str = "fn") -> _T:
    """What a function answers, be it an async one or a plain one. An async generator has not done anything then."""
    if isinstance(result, AsyncGenerator):
        raise InvalidTypeError(f"{what} takes a plain or an async function, not an async generator: it must not yield")
    return await result if isinstance(result, Awaitable) else result


def check_run(answer: _T) -> _T:
    """Refuses what a function answers that has still to do what it was called for."""
    if isinstance(answer, (GeneratorType, AsyncGeneratorType, CoroutineType)):
        raise InvalidTypeError("fn takes a plain or an async function, not a generator: it must not yield")
    return answer


def check_function(fn: Any, what: str = "fn") -> None:
    """Refuses what cannot be called before anything is done."""
    if not callable(fn):
        raise InvalidTypeError(f"{what} takes a function, not {type(fn).__qualname__}")

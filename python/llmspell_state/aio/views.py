"""What ``keys()``, ``values()`` and ``items()`` give: listings that read again whenever they are iterated over."""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from .. import _native
from ..history import Difference
from .loop import later

_T = TypeVar("_T")
_UNKNOWN: Final = object()


class Select(NamedTuple):
    """Which keys, from where, how many, in which direction."""

    pattern: str
    after: str | None
    limit: int | None
    reverse: bool


class _Pages(Protocol):
    """A listing under way."""

    def next(self, unknown: object) -> Any: ...
    def fill(self, to: _native.Completions, future: Future[None]) -> None: ...


class Listing(AsyncIterator[_T]):
    """Gives one after the other what threads of the library fetch page by page.

    Cancelling leaves it where it was. It holds no lock, and nothing of what is written meanwhile shows.
    """

    __slots__ = ("_pages",)

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages

    async def __anext__(self) -> _T:
        while True:
            found: _T = self._pages.next(_UNKNOWN)
            if found is not _UNKNOWN:
                return found
            await later(self._pages.fill)


class Differences(AsyncIterator[Difference]):
    """What ``diff()`` gives: each difference once, like a listing."""

    __slots__ = ("_listing",)

    def __init__(self, pages: _native.AsyncDifferences) -> None:
        self._listing: Listing[Any] = Listing(pages)

    async def __anext__(self) -> Difference:
        return Difference(*await self._listing.__anext__())


class Selection(Generic[_T]):
    """A listing that was asked for."""

    __slots__ = ("_begin", "_select")

    def __init__(self, begin: Callable[..., _Pages], select: Select) -> None:
        self._begin = begin
        self._select = select

    def __aiter__(self) -> Listing[_T]:
        return Listing(self._begin(*self._select))

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self._select._asdict().items() if value]
        return f"<{type(self).__name__} {', '.join(given)}>"


class Keys(Selection[str]):
    """The keys that match, sorted by their bytes."""

    __slots__ = ()


class Values(Selection[Any]):
    """The values of the keys that match, in the order of their keys."""

    __slots__ = ()


class Items(Selection[tuple[str, Any]]):
    """The keys that match and their values, sorted by the bytes of the keys."""

    __slots__ = ()

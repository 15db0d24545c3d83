"""Python's mapping protocol over the verbs that the compiled module brings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, Final

from .views import Items, Keys, Select, Values

_MISSING: Final = object()


class ReadMapping(Mapping[str, Any]):
    """A ``Mapping`` of text to values whose contents are elsewhere: in a store now or in the past, or in a transaction.

    Equality and hash are those of the handle, not of what it leads to.
    """

    __slots__ = ()

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @abstractmethod
    def iter_keys(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Iterator[str]: ...

    @abstractmethod
    def iter_items(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[str, Any]]: ...

    @abstractmethod
    def iter_values(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Iterator[Any]: ...

    @abstractmethod
    def count(self, pattern: str = "*") -> int: ...

    def __reversed__(self) -> Iterator[str]:
        return self.iter_keys(reverse=True)

    def keys(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Keys:
        """The keys that match, sorted by their bytes.

        ``after`` leaves out everything up to and including that key (with ``reverse``, everything from it on),
        ``limit`` is the most keys to give. The view can be iterated over again; each time it reads anew.
        """
        return Keys(self, Select(pattern, after, limit, reverse))

    def values(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Values:
        """The values of the keys that match, in the order of their keys; see ``keys``."""
        return Values(self, Select(pattern, after, limit, reverse))

    def items(
        self, pattern: str = "*", *, after: str | None = None, limit: int | None = None, reverse: bool = False
    ) -> Items:
        """The keys that match with their values; see ``keys``."""
        return Items(self, Select(pattern, after, limit, reverse))


class StateMapping(ReadMapping, MutableMapping[str, Any]):
    """The same as a ``MutableMapping``."""

    __slots__ = ()

    @abstractmethod
    def take(self, key: str, missing: object) -> Any: ...

    @abstractmethod
    def set_many(self, mapping: Mapping[str, Any], *, ttl: float | timedelta | None = None) -> object: ...

    def pop(self, key: str, default: Any = _MISSING) -> Any:
        """Removes a key and returns its value; ``default``, or ``KeyError`` without one, when it is missing."""
        value = self.take(key, default)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Removes the first key and returns it with its value; ``KeyError`` when there is none."""
        while True:
            for key in self.iter_keys(limit=1):
                value = self.take(key, _MISSING)
                if value is not _MISSING:
                    return key, value
                break  # another writer took it first
            else:
                raise KeyError("popitem(): there is no key")

    def update(self, other: Any = (), /, **members: Any) -> None:
        """Stores all members of a mapping, or of an iterable of pairs, in one commit."""
        self.set_many(dict(_pairs(other), **members))


def _pairs(other: Any) -> Iterable[tuple[str, Any]]:
    """What ``dict.update`` takes: a mapping, something with ``keys()``, or pairs."""
    return other.items() if isinstance(other, Mapping) else other

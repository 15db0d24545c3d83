"""What ``keys()``, ``values()`` and ``items()`` give: views that read again whenever they are iterated over.

Each iteration sees the store as it was when it began, whatever is written meanwhile, and holds no lock.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    from .mapping import ReadMapping


class _Range(TypedDict):
    after: str | None
    limit: int | None
    reverse: bool


class Select(NamedTuple):
    """Which keys, from where, how many, in which direction."""

    pattern: str = "*"
    after: str | None = None
    limit: int | None = None
    reverse: bool = False

    def range(self) -> _Range:
        """All but the pattern, as keyword arguments."""
        return {"after": self.after, "limit": self.limit, "reverse": self.reverse}


class Keys(KeysView[str]):
    """The keys that match, sorted by their bytes."""

    __slots__ = ("_select",)
    _mapping: ReadMapping

    def __init__(self, mapping: ReadMapping, select: Select) -> None:
        super().__init__(mapping)
        self._select = select

    def __iter__(self) -> Iterator[str]:
        return self._mapping.iter_keys(self._select.pattern, **self._select.range())

    def __len__(self) -> int:
        return _length(self._mapping, self._select)

    def __contains__(self, key: object) -> bool:
        if self._select == Select():
            return key in self._mapping
        return any(key == known for known in self)

    def __repr__(self) -> str:
        return _describe(self._mapping, "keys", self._select)


class Values(ValuesView[Any]):
    """The values of the keys that match, in the order of their keys."""

    __slots__ = ("_select",)
    _mapping: ReadMapping

    def __init__(self, mapping: ReadMapping, select: Select) -> None:
        super().__init__(mapping)
        self._select = select

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.iter_values(self._select.pattern, **self._select.range())

    def __len__(self) -> int:
        return _length(self._mapping, self._select)

    def __contains__(self, value: object) -> bool:
        return any(value == known for known in self)

    def __repr__(self) -> str:
        return _describe(self._mapping, "values", self._select)


class Items(ItemsView[str, Any]):
    """The keys that match and their values, sorted by the bytes of the keys."""

    __slots__ = ("_select",)
    _mapping: ReadMapping

    def __init__(self, mapping: ReadMapping, select: Select) -> None:
        super().__init__(mapping)
        self._select = select

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping.iter_items(self._select.pattern, **self._select.range())

    def __len__(self) -> int:
        return _length(self._mapping, self._select)

    def __contains__(self, item: object) -> bool:
        return any(item == known for known in self)

    def __repr__(self) -> str:
        return _describe(self._mapping, "items", self._select)


def _length(mapping: ReadMapping, select: Select) -> int:
    if select == Select(select.pattern):
        return mapping.count(select.pattern)
    return sum(1 for _ in mapping.iter_keys(select.pattern, **select.range()))


def _describe(mapping: ReadMapping, listing: str, select: Select) -> str:
    given = [f"{name}={value!r}" for name, value in select.range().items() if value is not None and value is not False]
    return f"{mapping!r}.{listing}({', '.join([repr(select.pattern), *given])})"

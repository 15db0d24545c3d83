"""A scope as it was at a moment of the past."""

from __future__ import annotations

from . import _native
from .entry import Entry
from .mapping import ReadMapping


class View(_native.View, ReadMapping):  # type: ignore[misc]  # `in` takes a str; that of Mapping takes anything
    """A read-only ``Mapping``, made by ``at()``. Whatever is written meanwhile, it stays the same.

    It is cheap, holds no lock and may be shared by threads. It is closed with its state.
    """

    __slots__ = ()

    def entry(self, key: str) -> Entry | None:
        """The value of a key with its version and times, or ``None`` when it was missing."""
        fields = super().entry(key)
        return None if fields is None else Entry._from_store(*fields)

    def scope(self, name: str) -> View:
        """The scope of this name inside this one, as it was at the same moment; ``NotFoundError`` if there is none."""
        return View(super().scope(name))

    def __repr__(self) -> str:
        return f"<View at version {self.version}>"

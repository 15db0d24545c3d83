"""A transaction: several reads and writes that happen at one moment or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _native
from .entry import Entry
from .mapping import StateMapping

if TYPE_CHECKING:
    from typing_extensions import Self


class Transaction(_native.Transaction, StateMapping):  # type: ignore[misc]  # clear() says how many there were
    """One snapshot with its own writes over it, as a ``MutableMapping``.

    Begun by ``transaction()``; as a context manager it commits at the end and rolls back on an exception. No lock is
    held while it is open. One that is dropped without a commit has changed nothing.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        if not self.active:
            self.get_many(())  # says why
        return self

    def entry(self, key: str) -> Entry | None:
        """The value of a key with its version and times, or ``None`` when it is missing."""
        fields = super().entry(key)
        return None if fields is None else Entry._from_store(*fields)

    def scope(self, name: str) -> Transaction:
        """The same transaction, seen from the scope of this name."""
        return Transaction(super().scope(name))

    def __repr__(self) -> str:
        return f"<Transaction {'active' if self.active else 'ended'}>"

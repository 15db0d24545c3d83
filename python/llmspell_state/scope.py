"""A scope: a tree of names, each with keys of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from . import _native
from .mapping import StateMapping
from .transaction import Transaction
from .watch import Watch

_T = TypeVar("_T")


class Scope(_native.Scope, StateMapping):  # type: ignore[misc]  # clear() says how many there were; MutableMapping's says nothing
    """Keys and values isolated from every other scope, as a ``MutableMapping``.

    Handles are cheap and may be shared by threads. A scope's keys are never part of its parent's keys.
    """

    __slots__ = ()

    def scope(self, name: str) -> Scope:
        """The scope of this name inside this one."""
        return Scope(super().scope(name))

    def transaction(self) -> Transaction:
        """Begins a transaction: as a context manager it commits at the end and rolls back on an exception.

        ``ConflictError`` at the commit means that another writer changed what was read. ``transact`` then runs again.
        """
        return Transaction(super().transaction())

    begin = transaction

    def transact(self, fn: Callable[[Transaction], _T], *, attempts: int | None = None) -> _T:
        """Runs ``fn`` with a transaction, commits, and returns what ``fn`` returned.

        When another writer was faster, everything ``fn`` did is forgotten and it runs again, up to ``attempts`` times;
        so it should change nothing outside the transaction. An exception rolls back.
        """
        result: _T = super().transact(fn, attempts=attempts)
        return result

    def watch(self, pattern: str = "*", since: int | None = None, name: str | None = None) -> Watch:
        """Watches the keys of this scope that match, those of scopes inside it left out; see ``Watch``.

        It tells what is committed from now on or, with ``since``, after that version. With a ``name``, the store keeps
        how far it has come: when it was there before, it goes on where it was, whatever ``since`` says.
        """
        return Watch(super().watch(pattern, since, name))

    def __repr__(self) -> str:
        return f"<Scope {self.name!r}>"

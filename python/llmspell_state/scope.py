"""A scope: a tree of names, each with keys of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import starmap
from typing import Any, TypeVar

from . import _native
from .entry import Entry
from .history import Difference, Revision, Undone
from .mapping import StateMapping
from .merge import MergeConflict, Merged
from .retention import RetentionPolicy
from .transaction import Transaction
from .usage import Usage
from .view import View
from .watch import Watch

_T = TypeVar("_T")


class Scope(_native.Scope, StateMapping):  # type: ignore[misc]  # clear() says how many there were; MutableMapping's says nothing
    """Keys and values isolated from every other scope, as a ``MutableMapping``.

    Handles are cheap and may be shared by threads. A scope's keys are never part of its parent's keys.
    """

    __slots__ = ()

    def entry(self, key: str) -> Entry | None:
        """The value of a key with its version and times, or ``None`` when it is missing."""
        fields = super().entry(key)
        return None if fields is None else Entry._from_store(*fields)

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

    def as_run(self, *, actor: str | None = None, run: str | None = None, reason: str | None = None) -> Scope:
        """The same scope, whose changes are told to be of this actor, in the course of this run, for this reason.

        ``actor`` and ``run`` are names of the program's own, up to 256 bytes, ``reason`` a text for people, up to 4,096
        bytes. ``history`` and watches tell them, and ``undo`` goes by the first two. What is left out stays as it was.
        Scopes and transactions made from the handle are of the same origin.
        """
        return Scope(super().as_run(actor=actor, run=run, reason=reason))

    def history(self, key: str, limit: int | None = None) -> list[Revision]:
        """What has happened to a key, the newest first: at most ``limit`` changes, 100 without one."""
        return [Revision._from_store(*fields) for fields in super().history(key, limit)]

    def at(self, when: int | datetime) -> View:
        """The scope as it was at a moment, to be read: ``when`` is the version of a commit, or a ``datetime``.

        A date needs a time zone, and is looked up to the millisecond. ``InvalidError`` for a version that is still to
        come.
        """
        return View(super().at(when))

    def diff(
        self, since: int | datetime, until: int | datetime | None = None, pattern: str = "*"
    ) -> Iterator[Difference]:
        """The keys that match and are not the same at two moments, sorted by their bytes, with both values.

        The moments are as for ``at``; without ``until``, the second is now. It may be the earlier one.
        """
        return starmap(Difference, super().diff(since, until, pattern))

    def revert(self, key: str, when: int | datetime) -> int:
        """Gives a key the value that it had at a moment (see ``at``), and returns the version of the commit.

        A key that was not there then is deleted.
        """
        return super().revert(key, when)

    def revert_to(self, when: int | datetime, pattern: str = "*") -> int:
        """Makes every key that matches as it was at a moment (see ``at``), and returns how many that has changed.

        It is one commit, which can itself be reverted. ``QuotaExceededError`` for more changes than one commit holds.
        """
        return super().revert_to(when, pattern)

    def undo(self, *, actor: str | None = None, run: str | None = None, since: int = 0) -> Undone:
        """Takes back what an actor, a run, or an actor in a run has changed in this scope and those inside it.

        With ``since``, only what came after that version. It is one commit, which can itself be undone. A key that
        somebody else has changed later is left alone and told in ``refused``. ``InvalidError`` when neither ``actor``
        nor ``run`` is given, ``QuotaExceededError`` for more changes than one commit holds.
        """
        return Undone(*super().undo(actor=actor, run=run, since=since))

    def default_ttl(self) -> float | None:
        """How many seconds keys live that are set here without a time to live; ``None`` is for ever.

        It is as ``set_default_ttl`` said for this scope, or for the nearest scope around it.
        """
        return super().default_ttl()

    def set_default_ttl(self, ttl: float | timedelta | None = None) -> int:
        """Says how long keys live that are set from now on without a time to live, and returns the commit's version.

        ``ttl`` is in seconds, infinity is for ever; ``None`` takes back what was said here. It goes for this scope and
        those inside it that have no such word of their own, and is kept in the store.
        """
        return super().set_default_ttl(ttl)

    def retention(self) -> RetentionPolicy:
        """How much of the past is kept of this scope.

        It is as ``set_retention`` said for it or for the nearest scope around it; where it said nothing, not even for
        the store itself, as this opening of the store says.
        """
        return RetentionPolicy(*super().retention())

    def set_retention(self, policy: RetentionPolicy | Mapping[str, Any] | None = None) -> int:
        """Says how much of the past is kept of this scope, and returns the version of the commit.

        ``policy`` may be a mapping with the names of ``RetentionPolicy``; ``None`` takes back what was said here. It
        goes for this scope and those inside it that have no policy of their own, is kept in the store, and counts from
        the next time that the past is trimmed: within the cleanup interval, or at once with ``State.cleanup``. What is
        set for the store itself goes before the settings of every process that opens it.
        """
        return super().set_retention(policy)

    def usage(self) -> Usage:
        """What this scope takes, with the scopes inside it.

        It looks at every change in the log: about a second for a million.
        """
        return Usage(*super().usage())

    def fork(self, scope: str, name: str) -> Scope:
        """Copies a scope inside this one under another name, with all scopes inside it, and returns the copy.

        The copy has the keys and their history up to now, and shares their space until either side changes them; from
        then on the two are independent. What was set for the scope (default time to live, retention) and its named
        watches stay with the original. ``NotFoundError`` when there is no such scope, ``ConflictError`` when the new
        name is taken.
        """
        return Scope(super().fork(scope, name))

    def merge_from(self, fork: Scope, resolve: Callable[[MergeConflict], object] | None = None) -> Merged:
        """Merges what a fork of this scope has changed since they parted, with the scopes inside it, in one commit.

        A key that both sides have changed to different values is left alone and told in ``conflicts``, unless
        ``resolve`` says what becomes of it. It answers a value to store (``None`` is one), ``OURS``, ``THEIRS``,
        ``DELETE`` (``MISSING`` is the same) or ``LEAVE``, and is asked again about a key that another writer changes
        meanwhile, so it should change nothing itself. When it raises, nothing is merged. The fork stays as it is.
        Scopes that only the fork has are made before the commit, empty.

        ``InvalidError`` for what is no fork of this scope; ``QuotaExceededError`` for more changes than one commit
        holds.
        """
        return Merged(*super().merge_from(fork, resolve))

    def __repr__(self) -> str:
        return f"<Scope {self.name!r}>"

"""A scope: a tree of names, each with keys of its own."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar, overload

from .. import _native
from ..errors import ConflictError, InvalidTypeError
from ..history import Difference, Revision, Undone
from ..merge import MergeConflict, Merged
from ..retention import RetentionPolicy
from ..usage import Usage
from .loop import attached, later, running
from .transaction import Transaction
from .verbs import Hook, Verbs, check_function, check_run, fresh, outcome
from .view import View
from .views import Differences
from .watch import Watch

_T = TypeVar("_T")


class Scope(Verbs):
    """Keys and values isolated from every other scope.

    Handles are cheap and may be shared by tasks, threads and event loops. A scope's keys are never part of its
    parent's keys.
    """

    __slots__ = ()

    _handle: _native.AsyncScope

    @classmethod
    def _of(cls, handle: _native.AsyncScope, default: Hook | None) -> Scope:
        scope = cls.__new__(cls)
        scope._handle, scope._default = handle, default
        return scope

    async def set(
        self,
        key: str,
        value: object,
        *,
        ttl: float | timedelta | None = None,
        if_version: int | None = None,
        default: Hook | None = None,
    ) -> int:
        """Stores a value and returns the version of its commit.

        With ``ttl``, for so many seconds (infinity is for ever); without, as long as ``default_ttl`` says. With
        ``if_version``, only when the key's version is still that one (0: when the key is missing);
        ``ConflictError`` otherwise. ``default`` turns objects that cannot be stored into ones that can, for this call.
        """
        # As by `later`, which takes an eighth longer: a thousand of these may begin in one turn of the loop. The first
        # argument gets no name: each waiting coroutine would keep one, and the collector visits all futures for each.
        loop = get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._handle.set(running(loop) or attached(loop), future, key, value, ttl, if_version, default or self._default)
        return await future

    async def set_many(self, mapping: Mapping[str, Any], *, ttl: float | timedelta | None = None) -> int:
        """Stores all members of a mapping in one commit, with ``ttl`` for so many seconds, and returns its version."""
        return await later(self._handle.set_many, mapping, ttl, self._default)

    async def modify(self, key: str, fn: Callable[[Any], object], default: object = None) -> Any:
        """Replaces a value by what ``fn`` makes of the current one, and returns the new value.

        ``fn`` is a plain or an async function, which may await anything: nothing is held meanwhile. It gets ``default``
        when the key is missing, and runs again when another writer was faster.
        """
        check_function(fn)
        retry = _native.Retry()
        while True:
            entry = await self.entry(key)
            current, version = (fresh(default), 0) if entry is None else (entry.value, entry.version)
            new = await outcome(fn(current))
            try:
                return await later(self._handle.swap, key, new, version, self._default)
            except ConflictError:
                if (pause := retry.pause()) is None:
                    raise
            await asyncio.sleep(pause)

    async def scope(self, name: str) -> Scope:
        """The scope of this name inside this one."""
        return Scope._of(await later(self._handle.scope, name), self._default)

    async def scopes(self) -> list[str]:
        """The names of the scopes inside this one, sorted."""
        return await later(self._handle.scopes)

    @property
    def name(self) -> str:
        """The scope's own name; empty for the root."""
        return self._handle.name

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._handle.closed

    def transaction(self) -> Transaction:
        """A transaction for ``async with``, which begins it, commits at the end and rolls back on an exception.

        ``ConflictError`` at the commit means that another writer changed what was read. ``transact`` then runs again.
        """
        return Transaction(self._handle.transaction, self._default)

    async def begin(self) -> Transaction:
        """Begins a transaction, which ends by its ``commit`` or ``rollback``."""
        return await self.transaction()

    @overload
    async def transact(self, fn: Callable[[Transaction], Awaitable[_T]], *, attempts: int | None = None) -> _T: ...
    @overload
    async def transact(self, fn: Callable[[Transaction], _T], *, attempts: int | None = None) -> _T: ...
    async def transact(self, fn: Callable[[Transaction], Any], *, attempts: int | None = None) -> Any:
        """Runs ``fn``, a plain or an async function, with a transaction, commits, and returns what ``fn`` returned.

        It may await anything: nothing is held meanwhile. When another writer was faster, everything ``fn`` did is
        forgotten and it runs again, up to ``attempts`` times; so it should change nothing outside the transaction. An
        exception, or being cancelled, rolls back.
        """
        check_function(fn)
        retry = _native.Retry(attempts)
        while True:
            try:
                async with self.transaction() as transaction:
                    return check_run(await outcome(fn(transaction)))
            except ConflictError:
                if (pause := retry.pause()) is None:
                    raise
            await asyncio.sleep(pause)

    def watch(self, pattern: str = "*", since: int | None = None, name: str | None = None) -> Watch:
        """Watches the keys of this scope that match, those of scopes inside it left out; see ``Watch``.

        It tells what is committed from now on or, with ``since``, after that version. With a ``name``, the store keeps
        how far it has come: when it was there before, it goes on where it was, whatever ``since`` says.

        ``async for`` takes it as it is. To be sure that it has begun before something is written, enter or await it.
        """
        return Watch(later(self._handle.watch, pattern, since, name))

    async def named_watches(self) -> dict[str, int]:
        """The names of this scope's watches that the store keeps, and the versions that they are done with."""
        return await later(self._handle.named_watches)

    async def forget_watch(self, name: str) -> bool:
        """Forgets how far a named watch has come, and says whether there was one of this name."""
        return await later(self._handle.forget_watch, name)

    def as_run(self, *, actor: str | None = None, run: str | None = None, reason: str | None = None) -> Scope:
        """The same scope, whose changes are told to be of this actor, in the course of this run, for this reason.

        ``actor`` and ``run`` are names of the program's own, up to 256 bytes, ``reason`` a text for people, up to 4,096
        bytes. ``history`` and watches tell them, and ``undo`` goes by the first two. What is left out stays as it was.
        Scopes and transactions made from the handle are of the same origin.
        """
        return Scope._of(self._handle.as_run(actor, run, reason), self._default)

    async def history(self, key: str, limit: int | None = None) -> list[Revision]:
        """What has happened to a key, the newest first: at most ``limit`` changes, 100 without one."""
        return [Revision._from_store(*fields) for fields in await later(self._handle.history, key, limit)]

    async def at(self, when: int | datetime) -> View:
        """The scope as it was at a moment, to be read: ``when`` is the version of a commit, or a ``datetime``.

        A date needs a time zone, and is looked up to the millisecond. ``InvalidError`` for a version that is still to
        come.
        """
        return View._of(await later(self._handle.at, when))

    def diff(
        self, since: int | datetime, until: int | datetime | None = None, pattern: str = "*"
    ) -> AsyncIterator[Difference]:
        """The keys that match and are not the same at two moments, sorted by their bytes, with both values.

        The moments are as for ``at``; without ``until``, the second is when the first difference is asked for. It may
        be the earlier one.
        """
        return Differences(self._handle.diff(since, until, pattern))

    async def revert(self, key: str, when: int | datetime) -> int:
        """Gives a key the value that it had at a moment (see ``at``), and returns the version of the commit.

        A key that was not there then is deleted.
        """
        return await later(self._handle.revert, key, when)

    async def revert_to(self, when: int | datetime, pattern: str = "*") -> int:
        """Makes every key that matches as it was at a moment (see ``at``), and returns how many that has changed.

        It is one commit, which can itself be reverted. ``QuotaExceededError`` for more changes than one commit holds.
        """
        return await later(self._handle.revert_to, when, pattern)

    async def undo(self, *, actor: str | None = None, run: str | None = None, since: int = 0) -> Undone:
        """Takes back what an actor, a run, or an actor in a run has changed in this scope and those inside it.

        With ``since``, only what came after that version. It is one commit, which can itself be undone. A key that
        somebody else has changed later is left alone and told in ``refused``. ``InvalidError`` when neither ``actor``
        nor ``run`` is given, ``QuotaExceededError`` for more changes than one commit holds.
        """
        return Undone(*await later(self._handle.undo, actor, run, since))

    async def default_ttl(self) -> float | None:
        """How many seconds keys live that are set here without a time to live; ``None`` is for ever.

        It is as ``set_default_ttl`` said for this scope, or for the nearest scope around it.
        """
        return await later(self._handle.default_ttl)

    async def set_default_ttl(self, ttl: float | timedelta | None = None) -> int:
        """Says how long keys live that are set from now on without a time to live, and returns the commit's version.

        ``ttl`` is in seconds, infinity is for ever; ``None`` takes back what was said here. It goes for this scope and
        those inside it that have no such word of their own, and is kept in the store.
        """
        return await later(self._handle.set_default_ttl, ttl)

    async def retention(self) -> RetentionPolicy:
        """How much of the past is kept of this scope.

        It is as ``set_retention`` said for it or for the nearest scope around it; where it said nothing, not even for
        the store itself, as this opening of the store says.
        """
        return RetentionPolicy(*await later(self._handle.retention))

    async def set_retention(self, policy: RetentionPolicy | Mapping[str, Any] | None = None) -> int:
        """Says how much of the past is kept of this scope, and returns the version of the commit.

        ``policy`` may be a mapping with the names of ``RetentionPolicy``; ``None`` takes back what was said here. It
        goes for this scope and those inside it that have no policy of their own, is kept in the store, and counts from
        the next time that the past is trimmed: within the cleanup interval, or at once with ``State.cleanup``. What is
        set for the store itself goes before the settings of every process that opens it.
        """
        return await later(self._handle.set_retention, policy)

    async def usage(self) -> Usage:
        """What this scope takes, with the scopes inside it.

        It looks at every change in the log: about a second for a million.
        """
        return Usage(*await later(self._handle.usage))

    async def fork(self, scope: str, name: str) -> Scope:
        """Copies a scope inside this one under another name, with all scopes inside it, and returns the copy.

        The copy has the keys and their history up to now, and shares their space until either side changes them; from
        then on the two are independent. What was set for the scope (default time to live, retention) and its named
        watches stay with the original. ``NotFoundError`` when there is no such scope, ``ConflictError`` when the new
        name is taken.
        """
        return Scope._of(await later(self._handle.fork, scope, name), self._default)

    async def merge_from(self, fork: Scope, resolve: Callable[[MergeConflict], object] | None = None) -> Merged:
        """Merges what a fork of this scope has changed since they parted, with the scopes inside it, in one commit.

        A key that both sides have changed to different values is left alone and told in ``conflicts``, unless
        ``resolve``, a plain or an async function, says what becomes of it. It answers a value to store (``None`` is
        one), ``OURS``, ``THEIRS``, ``DELETE`` (``MISSING`` is the same) or ``LEAVE``, and is asked again about a key
        that another writer changes meanwhile, so it should change nothing itself. When it raises, nothing is merged.
        The fork stays as it is. Scopes that only the fork has are made before the commit, empty.

        ``InvalidError`` for what is no fork of this scope; ``QuotaExceededError`` for more changes than one commit
        holds.
        """
        if not isinstance(fork, Scope):
            raise InvalidTypeError(f"fork takes a Scope of llmspell_state.aio, not {type(fork).__qualname__}")
        merge = _native.AsyncMerge(self._handle, fork._handle)
        if resolve is None:
            return Merged(*await later(merge.leave))
        check_function(resolve, "resolve")
        while (merged := await later(merge.attempt)) is None:
            while (conflict := merge.open()) is not None:
                merge.answer(await outcome(resolve(conflict), "resolve"), self._default)
        return Merged(*merged)

    def __repr__(self) -> str:
        return f"<Scope {self.name!r}>"

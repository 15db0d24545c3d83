"""
The compiled part of `llmspell_state`; import the names from there.
"""

import asyncio
import collections.abc
import datetime
import os
import typing
from typing_extensions import disjoint_base
from pathlib import Path
from typing import Any, final

__all__ = ["AsyncDifferences", "AsyncItems", "AsyncKeys", "AsyncMerge", "AsyncScope", "AsyncState", "AsyncTransaction", "AsyncValues", "AsyncView", "AsyncWatch", "Completions", "Differences", "Items", "Keys", "Retry", "Scope", "State", "Transaction", "Values", "View", "Watch"]

@final
class AsyncDifferences:
    """
    Differences.
    """
    def fill(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None":
        """
        Fetches the next page.
        """
    def next(self, /, unknown: "object") -> "typing.Any":
        """
        The next one, or `unknown` when it is to be fetched; `StopAsyncIteration` after the last.
        """

@final
class AsyncItems:
    """
    Keys and values.
    """
    def fill(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None":
        """
        Fetches the next page.
        """
    def next(self, /, unknown: "object") -> "typing.Any":
        """
        The next one, or `unknown` when it is to be fetched; `StopAsyncIteration` after the last.
        """

@final
class AsyncKeys:
    """
    Keys.
    """
    def fill(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None":
        """
        Fetches the next page.
        """
    def next(self, /, unknown: "object") -> "typing.Any":
        """
        The next one, or `unknown` when it is to be fetched; `StopAsyncIteration` after the last.
        """

@final
class AsyncMerge:
    """
    A merge under way.
    """
    def __new__(cls, /, ours: "AsyncScope", theirs: "AsyncScope") -> AsyncMerge: ...
    def answer(self, /, answer: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None":
        """
        Answers that conflict.
        """
    def attempt(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None":
        """
        Merges with the answers so far and gives what `Merged` is made of; `None`, and nothing is merged, while there are
        conflicts that have none.
        """
    def leave(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None":
        """
        Merges, and leaves conflicts alone; gives what `Merged` is made of.
        """
    def open(self, /) -> "typing.Any":
        """
        The next conflict that has no answer, or `None`.
        """

@disjoint_base
class AsyncScope:
    """
    A scope; `llmspell_state.aio.Scope` is what users see.
    """
    def append(self, /, to: "Completions", future: "asyncio.Future[int]", key: "str", item: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def as_run(self, /, actor: "str | None", run: "str | None", reason: "str | None") -> "AsyncScope":
        """
        The same scope, whose changes are told to be of this actor and run, and for this reason.
        """
    def at(self, /, to: "Completions", future: "asyncio.Future[AsyncView]", when: "int | datetime.datetime") -> "None": ...
    def clear(self, /, to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None": ...
    @property
    def closed(self, /) -> bool:
        """
        Whether the store was closed.
        """
    def count(self, /, to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None": ...
    def default_ttl(self, /, to: "Completions", future: "asyncio.Future[float | None]") -> "None":
        """
        How many seconds keys live that are set without a time to live; `None` is for ever.
        """
    def delete(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str", if_version: "int | None") -> "None": ...
    def diff(self, /, since: "int | datetime.datetime", until: "int | datetime.datetime | None", pattern: "str") -> "AsyncDifferences": ...
    def entry(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key with its version and times, or `None`.
        """
    def exists(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None": ...
    def forget_watch(self, /, to: "Completions", future: "asyncio.Future[bool]", name: "str") -> "None": ...
    def fork(self, /, to: "Completions", future: "asyncio.Future[AsyncScope]", scope: "str", name: "str") -> "None": ...
    def get(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key, or `MISSING`.
        """
    def get_many(self, /, to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None": ...
    def history(self, /, to: "Completions", future: "asyncio.Future[list[typing.Any]]", key: "str", limit: "int | None") -> "None": ...
    def increment(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", by: "float") -> "None": ...
    def items(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems": ...
    def keys(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys": ...
    def merge(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", patch: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    @property
    def name(self, /) -> str:
        """
        The scope's own name; empty for the root.
        """
    def named_watches(self, /, to: "Completions", future: "asyncio.Future[dict[str, int]]") -> "None": ...
    def peek(self, /, key: "str", default: "object", unknown: "object") -> "typing.Any":
        """
        The value of a key, or `default` when it is missing; `unknown` when only the database could tell.
        """
    def retention(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None":
        """
        What the `RetentionPolicy` in force is made of.
        """
    def revert(self, /, to: "Completions", future: "asyncio.Future[int]", key: "str", when: "int | datetime.datetime") -> "None": ...
    def revert_to(self, /, to: "Completions", future: "asyncio.Future[int]", when: "int | datetime.datetime", pattern: "str") -> "None": ...
    def scope(self, /, to: "Completions", future: "asyncio.Future[AsyncScope]", name: "str") -> "None": ...
    def scopes(self, /, to: "Completions", future: "asyncio.Future[list[str]]") -> "None": ...
    def set(self, /, to: "Completions", future: "asyncio.Future[int]", key: "str", value: "object", ttl: "float | datetime.timedelta | None", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def set_default_ttl(self, /, to: "Completions", future: "asyncio.Future[int]", ttl: "float | datetime.timedelta | None") -> "None": ...
    def set_many(self, /, to: "Completions", future: "asyncio.Future[int]", mapping: "collections.abc.Mapping[str, typing.Any]", ttl: "float | datetime.timedelta | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def set_retention(self, /, to: "Completions", future: "asyncio.Future[int]", policy: "typing.Any") -> "None": ...
    def setdefault(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None":
        """
        The value of a key, which is `value` when it was missing.
        """
    def swap(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", if_version: "int", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None":
        """
        Sets a key if it has that version still, and gives the new value.
        """
    def take(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        Removes a key and gives its value, or `MISSING`.
        """
    def touch(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str", ttl: "float | datetime.timedelta | None") -> "None": ...
    def transaction(self, /, to: "Completions", future: "asyncio.Future[AsyncTransaction]") -> "None": ...
    def undo(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", actor: "str | None", run: "str | None", since: "int") -> "None": ...
    def usage(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None":
        """
        What `Usage` is made of.
        """
    def values(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues": ...
    def watch(self, /, to: "Completions", future: "asyncio.Future[AsyncWatch]", pattern: "str", since: "int | None", name: "str | None") -> "None": ...

@final
class AsyncState(AsyncScope):
    """
    An open store; `llmspell_state.aio.State` is what users see.
    """
    def cleanup(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None": ...
    def close(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None": ...
    @property
    def config(self, /) -> Any:
        """
        The settings in force, as a new `dict`.
        """
    @staticmethod
    def open(to: "Completions", future: "asyncio.Future[AsyncState]", path: "str | os.PathLike[str] | None", options: "dict[str, typing.Any]") -> "None":
        """
        Opens the store at `path` (in memory without one) with settings by name.
        """
    @property
    def path(self, /) -> Path | None:
        """
        The store's file, or `None` in memory.
        """
    @property
    def store_id(self, /) -> str:
        """
        The store's identity: the text of a UUID, the same wherever its file goes.
        """
    def verify(self, /, to: "Completions", future: "asyncio.Future[typing.Any]") -> "None": ...
    def version(self, /, to: "Completions", future: "asyncio.Future[int]") -> "None": ...

@final
class AsyncTransaction:
    """
    A transaction; `llmspell_state.aio.Transaction` is what users see.
    """
    def abandon(self, /) -> None:
        """
        Ends the transaction, if it has not ended, without telling how that went. Does not wait.
        """
    @property
    def active(self, /) -> bool:
        """
        Whether it was neither committed nor rolled back, and its store is open.
        """
    def append(self, /, to: "Completions", future: "asyncio.Future[int]", key: "str", item: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def clear(self, /, to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None": ...
    def commit(self, /, to: "Completions", future: "asyncio.Future[int]") -> "None": ...
    def count(self, /, to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None": ...
    def delete(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str", if_version: "int | None") -> "None": ...
    @property
    def ended(self, /) -> bool:
        """
        Whether it was committed, rolled back, or failed to commit. While a thread reads for it, it was not.
        """
    def entry(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key with its version and times, or `None`.
        """
    def exists(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None": ...
    def get(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key, or `MISSING`.
        """
    def get_many(self, /, to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None": ...
    def increment(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", by: "float") -> "None": ...
    def items(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems": ...
    def keys(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys": ...
    def merge(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", patch: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def peek(self, /, key: "str", default: "object", unknown: "object") -> "typing.Any":
        """
        The value of a key, or `default` when it is missing; `unknown` when only the database could tell.
        """
    def replace(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None":
        """
        Sets a key that lives as long as it did, and gives the new value.
        """
    def rollback(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None": ...
    def scope(self, /, to: "Completions", future: "asyncio.Future[AsyncTransaction]", name: "str") -> "None": ...
    def set(self, /, to: "Completions", future: "asyncio.Future[None]", key: "str", value: "object", ttl: "float | datetime.timedelta | None", if_version: "int | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def set_many(self, /, to: "Completions", future: "asyncio.Future[None]", mapping: "collections.abc.Mapping[str, typing.Any]", ttl: "float | datetime.timedelta | None", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None": ...
    def setdefault(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str", value: "object", default: "collections.abc.Callable[[typing.Any], object] | None") -> "None":
        """
        The value of a key, which is `value` when it was missing.
        """
    def take(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        Removes a key and gives its value, or `MISSING`.
        """
    def touch(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str", ttl: "float | datetime.timedelta | None") -> "None": ...
    def values(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues": ...

@final
class AsyncValues:
    """
    Values.
    """
    def fill(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None":
        """
        Fetches the next page.
        """
    def next(self, /, unknown: "object") -> "typing.Any":
        """
        The next one, or `unknown` when it is to be fetched; `StopAsyncIteration` after the last.
        """

@final
class AsyncView:
    """
    A view; `llmspell_state.aio.View` is what users see.
    """
    def count(self, /, to: "Completions", future: "asyncio.Future[int]", pattern: "str") -> "None": ...
    def entry(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key with its version and times, or `None`.
        """
    def exists(self, /, to: "Completions", future: "asyncio.Future[bool]", key: "str") -> "None": ...
    def get(self, /, to: "Completions", future: "asyncio.Future[typing.Any]", key: "str") -> "None":
        """
        The value of a key, or `MISSING`.
        """
    def get_many(self, /, to: "Completions", future: "asyncio.Future[dict[str, typing.Any]]", keys: "collections.abc.Iterable[str]") -> "None": ...
    def items(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncItems": ...
    def keys(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncKeys": ...
    def scope(self, /, to: "Completions", future: "asyncio.Future[AsyncView]", name: "str") -> "None": ...
    def values(self, /, pattern: "str", after: "str | None", limit: "int | None", reverse: "bool") -> "AsyncValues": ...
    @property
    def version(self, /) -> int:
        """
        The version of the newest commit that it shows.
        """

@final
class AsyncWatch:
    """
    A stream of changes; `llmspell_state.aio.Watch` is what users see.
    """
    def close(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None": ...
    @property
    def closed(self, /) -> bool:
        """
        Whether `close` was called.
        """
    def fetch(self, /, to: "Completions", future: "asyncio.Future[bool]") -> "None":
        """
        Fetches what was committed already.
        """
    @property
    def name(self, /) -> str | None:
        """
        The name under which the store keeps how far it has come, or `None`.
        """
    def pop(self, /) -> "typing.Any":
        """
        The next change if it was fetched already, else `None`.
        """
    def ready(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None":
        """
        Resolved when there is a change, or the watch was closed.
        """
    def save(self, /, to: "Completions", future: "asyncio.Future[None]") -> "None": ...
    @property
    def version(self, /) -> int:
        """
        The last version whose changes, and all before them, are done.
        """

@final
class Completions:
    """
    What one loop waits for. The loop alone holds it, by the callback of its descriptor, so it ends when the loop is closed:
    what comes later is dropped where it was made.

    Whatever runs code of Python (making a future, waking who waits, classes of our own) is done by the Python side and not
    below a frame of this library: where the interpreter ends, Python before 3.14 ends other threads that ask for it again by
    unwinding their stacks, which must not meet Rust.
    """
    def __new__(cls, /, event_loop: "asyncio.AbstractEventLoop") -> Completions:
        """
        Those of a loop, which must have its own thread call `pop` and then `rest` when the descriptor is readable, and hold
        what does so.
        """
    def fileno(self, /) -> int:
        """
        What becomes readable when there is something to pop.
        """
    @property
    def pending(self, /) -> int:
        """
        How many calls have not ended.
        """
    def pop(self, /) -> "tuple[asyncio.Future[typing.Any], typing.Any, BaseException | None] | None":
        """
        A future whose call has ended, its result, and what the call failed with; `None` when there is none now. Futures that
        are done already, since whoever waited was cancelled, are left out.
        """
    def rest(self, /) -> None:
        """
        Ends a turn of the loop: begins calls that were kept for the next one, and says by the descriptor whether there is
        more to do.
        """
    @staticmethod
    def running(event_loop: "asyncio.AbstractEventLoop") -> "Completions | None":
        """
        Those of a loop that runs in this thread, if it has any.
        """

@final
class Differences:
    """
    An iterator over what differences are made of.
    """
    def __iter__(self, /) -> Differences: ...
    def __next__(self, /) -> Any: ...

@final
class Items:
    """
    An iterator over keys and values.
    """
    def __iter__(self, /) -> Items: ...
    def __next__(self, /) -> tuple[str, Any]: ...

@final
class Keys:
    """
    An iterator over keys.
    """
    def __iter__(self, /) -> Keys: ...
    def __next__(self, /) -> str: ...

@final
class Retry:
    """
    The attempts that are left after a conflict.
    """
    def __new__(cls, /, attempts: "int | None" = None) -> Retry:
        """
        At most `attempts` in all; without a number, as many as everywhere.
        """
    def pause(self, /) -> float | None:
        """
        After a failed attempt: the seconds to wait before the next one; `None` when there is none.
        """

@disjoint_base
class Scope:
    """
    The verbs of a scope; `llmspell_state.Scope` adds Python's mapping protocol.
    """
    def __contains__(self, key: str, /) -> bool: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __getitem__(self, key: str, /) -> Any: ...
    def __iter__(self, /) -> Keys: ...
    def __len__(self, /) -> int: ...
    def __new__(cls, /, of: "Scope") -> Scope:
        """
        Another handle of the same scope.
        """
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    def append(self, /, key: "str", item: "object") -> "int":
        """
        Adds an item to the end of a list and returns the new length; a missing key counts as an empty list.
        """
    def as_run(self, /, *, actor: "str | None" = None, run: "str | None" = None, reason: "str | None" = None) -> "Scope":
        """
        The same scope, whose changes are told to be of this actor and run, and for this reason.
        """
    def at(self, /, when: "int | datetime.datetime") -> "View":
        """
        The scope as it was at a moment.
        """
    def clear(self, /, pattern: "str" = "*") -> "int":
        """
        Removes all keys that match, in one commit, and returns how many there were.
        """
    @property
    def closed(self, /) -> bool:
        """
        Whether the store was closed.
        """
    def count(self, /, pattern: "str" = "*") -> "int":
        """
        How many keys match.
        """
    def default_ttl(self, /) -> "float | None":
        """
        How many seconds keys live that are set without a time to live; `None` is for ever.
        """
    def delete(self, /, key: "str", *, if_version: "int | None" = None) -> "bool":
        """
        Removes a key and says whether it was there; with `if_version`, only when that is still its version.
        """
    def diff(self, /, since: "int | datetime.datetime", until: "int | datetime.datetime | None" = None, pattern: "str" = "*") -> "collections.abc.Iterator[typing.Any]":
        """
        Iterates over what each `Difference` is made of.
        """
    def entry(self, /, key: "str") -> "typing.Any":
        """
        What the `Entry` of a key is made of, or `None` when it is missing.
        """
    def exists(self, /, key: "str") -> "bool":
        """
        Whether a key is there.
        """
    def forget_watch(self, /, name: "str") -> "bool":
        """
        Forgets how far a named watch has come, and says whether there was one of this name.
        """
    def fork(self, /, scope: "str", name: "str") -> "Scope":
        """
        Copies a scope inside this one under another name, and returns the copy.
        """
    def get(self, /, key: "str", default: "object" = None) -> "typing.Any":
        """
        The value of a key, or `default` when it is missing. Every call gives an object of its own.
        """
    def get_many(self, /, keys: "collections.abc.Iterable[str]") -> "dict[str, typing.Any]":
        """
        The values of those keys that are there, read at one moment.
        """
    def history(self, /, key: "str", limit: "int | None" = None) -> "list[typing.Any]":
        """
        What each `Revision` of a key is made of, the newest first.
        """
    def increment(self, /, key: "str", by: "float" = ...) -> "typing.Any":
        """
        Adds to a number, exactly, and returns the sum; a missing key counts as 0.
        """
    def iter_items(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Items":
        """
        Iterates over the keys that match and their values.
        """
    def iter_keys(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Keys":
        """
        Iterates over the keys that match, in the order of their bytes.
        """
    def iter_values(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Values":
        """
        Iterates over the values of the keys that match.
        """
    def merge(self, /, key: "str", patch: "object") -> "typing.Any":
        """
        Merges a patch into a value (JSON Merge Patch, RFC 7386: `None` removes a member) and returns the result.
        """
    def merge_from(self, /, fork: "typing.Any", resolve: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "typing.Any":
        """
        Merges what a fork has changed, in one commit, and returns what `Merged` is made of.
        """
    def modify(self, /, key: "str", fn: "collections.abc.Callable[[typing.Any], object]", default: "object" = None) -> "typing.Any":
        """
        Replaces a value by what `fn` makes of the current one, and returns the new value.

        `fn` gets `default` when the key is missing, and runs again when another writer was faster.
        """
    @property
    def name(self, /) -> str:
        """
        The scope's own name; empty for the root.
        """
    def named_watches(self, /) -> "dict[str, int]":
        """
        The names of the watches that the store keeps, and the versions that they are done with.
        """
    def retention(self, /) -> "typing.Any":
        """
        What the `RetentionPolicy` in force is made of.
        """
    def revert(self, /, key: "str", when: "int | datetime.datetime") -> "int":
        """
        Gives a key the value that it had at a moment, or deletes it if it was not there then, and returns the version of the
        commit.
        """
    def revert_to(self, /, when: "int | datetime.datetime", pattern: "str" = "*") -> "int":
        """
        Makes every key that matches as it was at a moment, in one commit, and returns how many that has changed.
        """
    def scope(self, /, name: "str") -> "Scope":
        """
        The scope of this name inside this one.
        """
    def scopes(self, /) -> list[str]:
        """
        The names of the scopes inside this one, sorted.
        """
    def set(self, /, key: "str", value: "object", *, ttl: "float | datetime.timedelta | None" = None, if_version: "int | None" = None, default: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "int":
        """
        Stores a value and returns the version of its commit.

        With `ttl`, for so many seconds (infinity is for ever); without, as long as `default_ttl` says. With `if_version`,
        only when the key's version is still that one (0: when the key is missing); `ConflictError` otherwise. `default`
        turns objects that cannot be stored into ones that can, for this call.
        """
    def set_default_ttl(self, /, ttl: "float | datetime.timedelta | None" = None) -> "int":
        """
        Says how long keys live that are set from now on without a time to live; `None` takes that back.
        """
    def set_many(self, /, mapping: "collections.abc.Mapping[str, typing.Any]", *, ttl: "float | datetime.timedelta | None" = None) -> "int":
        """
        Stores all members of a mapping in one commit, with `ttl` for so many seconds, and returns its version.
        """
    def set_retention(self, /, policy: "typing.Any" = None) -> "int":
        """
        Says how much of the past is kept; `None` takes that back.
        """
    def setdefault(self, /, key: "str", default: "object" = None) -> "typing.Any":
        """
        The value of a key; when it is missing, `default` is stored first.
        """
    def take(self, /, key: "str", missing: "object") -> "typing.Any":
        """
        Removes a key and returns its value, or `missing` when it is not there.
        """
    def touch(self, /, key: "str", ttl: "float | datetime.timedelta | None" = None) -> "bool":
        """
        Gives a key another time to live from now on and leaves its value; says whether it was there.

        `ttl` is in seconds, infinity is for ever, and `None` is as the scope's `default_ttl` says. In a transaction it
        counts from the commit on.
        """
    def transact(self, /, fn: "collections.abc.Callable[[typing.Any], typing.Any]", *, attempts: "int | None" = None) -> "typing.Any":
        """
        Runs `fn` with a transaction and commits; runs it again, up to `attempts` times, when another writer was faster.
        """
    def transaction(self, /) -> Transaction:
        """
        Begins a transaction.
        """
    def undo(self, /, *, actor: "str | None" = None, run: "str | None" = None, since: "int" = ...) -> "typing.Any":
        """
        Takes back everything that an actor or a run has changed, and returns what `Undone` is made of.
        """
    def usage(self, /) -> "typing.Any":
        """
        What `Usage` is made of.
        """
    def watch(self, /, pattern: "str" = "*", since: "int | None" = None, name: "str | None" = None) -> "Watch":
        """
        Watches the keys that match.
        """

@disjoint_base
class State(Scope):
    """
    An open store; `llmspell_state.State` adds keyword arguments and Python's mapping protocol.
    """
    def __exit__(self, /, error: Any, _value: Any, _traceback: Any) -> None: ...
    def __new__(cls, /, path: "str | os.PathLike[str] | None", options: "dict[str, typing.Any]", default: "collections.abc.Callable[[typing.Any], object] | None") -> State:
        """
        Opens the store at `path` (in memory without one) with settings by name.
        """
    def cleanup(self, /) -> "typing.Any":
        """
        Does at once what is done in the background: tells of keys that have expired, and trims the past.
        """
    def close(self, /) -> None:
        """
        Closes the store; closing it again does nothing.

        Scopes, transactions, views and watches of it raise `ClosedError` from then on, also for who waits.
        """
    @property
    def config(self, /) -> Any:
        """
        The settings in force, as a new `dict`.
        """
    @property
    def path(self, /) -> Path | None:
        """
        The store's file, or `None` in memory.
        """
    @property
    def store_id(self, /) -> str:
        """
        The store's identity: the text of a UUID, the same wherever its file goes.
        """
    def verify(self, /) -> "typing.Any":
        """
        Reads everything that the store holds and tells what is wrong with it.

        Every change is compared with its check and with the change before it, every key with its newest change, and the
        tables and indexes of the database with each other. It reads one moment, whatever is written meanwhile.
        """
    @property
    def version(self, /) -> int:
        """
        The version of the newest commit, of any process.
        """

@disjoint_base
class Transaction:
    """
    The verbs of a transaction; `llmspell_state.Transaction` adds Python's mapping protocol.
    """
    def __contains__(self, key: str, /) -> bool: ...
    def __delitem__(self, key: str, /) -> None: ...
    def __exit__(self, /, error: Any, _value: Any, _traceback: Any) -> None:
        """
        Commits; after an exception, rolls back. A transaction that was ended inside the block stays as it is.
        """
    def __getitem__(self, key: str, /) -> Any: ...
    def __iter__(self, /) -> Keys: ...
    def __len__(self, /) -> int: ...
    def __new__(cls, /, of: "Transaction") -> Transaction:
        """
        Another handle of the same transaction.
        """
    def __setitem__(self, key: str, value: Any, /) -> None: ...
    @property
    def active(self, /) -> bool:
        """
        Whether it was neither committed nor rolled back.
        """
    def append(self, /, key: "str", item: "object") -> "int":
        """
        Adds an item to the end of a list and returns the new length; a missing key counts as an empty list.
        """
    def clear(self, /, pattern: "str" = "*") -> "int":
        """
        Removes all keys that match and returns how many there were.
        """
    def commit(self, /) -> int:
        """
        Commits and returns the version of the commit. `ConflictError` when another writer changed what was read here.
        """
    def count(self, /, pattern: "str" = "*") -> "int":
        """
        How many keys match.
        """
    def delete(self, /, key: "str", *, if_version: "int | None" = None) -> "bool":
        """
        Removes a key and says whether it was there; with `if_version`, only when that is still its version.
        """
    def entry(self, /, key: "str") -> "typing.Any":
        """
        What the `Entry` of a key is made of, or `None` when it is missing.
        """
    def exists(self, /, key: "str") -> "bool":
        """
        Whether a key is there.
        """
    def get(self, /, key: "str", default: "object" = None) -> "typing.Any":
        """
        The value of a key, or `default` when it is missing. Every call gives an object of its own.
        """
    def get_many(self, /, keys: "collections.abc.Iterable[str]") -> "dict[str, typing.Any]":
        """
        The values of those keys that are there, read at one moment.
        """
    def increment(self, /, key: "str", by: "float" = ...) -> "typing.Any":
        """
        Adds to a number and returns the sum; a missing key counts as 0.
        """
    def iter_items(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Items":
        """
        Iterates over the keys that match and their values.
        """
    def iter_keys(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Keys":
        """
        Iterates over the keys that match, in the order of their bytes.
        """
    def iter_values(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Values":
        """
        Iterates over the values of the keys that match.
        """
    def merge(self, /, key: "str", patch: "object") -> "typing.Any":
        """
        Merges a patch into a value (JSON Merge Patch, RFC 7386: `None` removes a member) and returns the result.
        """
    def modify(self, /, key: "str", fn: "collections.abc.Callable[[typing.Any], object]", default: "object" = None) -> "typing.Any":
        """
        Replaces a value by what `fn` makes of the current one, and returns the new value.

        `fn` gets `default` when the key is missing.
        """
    def rollback(self, /) -> None:
        """
        Forgets every change.
        """
    def scope(self, /, name: "str") -> "Transaction":
        """
        The same transaction, seen from the scope of this name.
        """
    def set(self, /, key: "str", value: "object", *, ttl: "float | datetime.timedelta | None" = None, if_version: "int | None" = None, default: "collections.abc.Callable[[typing.Any], object] | None" = None) -> "None":
        """
        Stores a value, for the commit; with `ttl` for so many seconds from then on.

        With `if_version`, only when the key's version is still that one (0: when the key is missing); `ConflictError`
        otherwise. `default` turns objects that cannot be stored into ones that can, for this call.
        """
    def set_many(self, /, mapping: "collections.abc.Mapping[str, typing.Any]", *, ttl: "float | datetime.timedelta | None" = None) -> "None":
        """
        Stores all members of a mapping, for the commit; with `ttl` for so many seconds from then on.
        """
    def setdefault(self, /, key: "str", default: "object" = None) -> "typing.Any":
        """
        The value of a key; when it is missing, `default` is stored first.
        """
    def take(self, /, key: "str", missing: "object") -> "typing.Any":
        """
        Removes a key and returns its value, or `missing` when it is not there.
        """
    def touch(self, /, key: "str", ttl: "float | datetime.timedelta | None" = None) -> "bool":
        """
        Gives a key another time to live from now on and leaves its value; says whether it was there.

        `ttl` is in seconds, infinity is for ever, and `None` is as the scope's `default_ttl` says. In a transaction it
        counts from the commit on.
        """

@final
class Values:
    """
    An iterator over values.
    """
    def __iter__(self, /) -> Values: ...
    def __next__(self, /) -> Any: ...

@disjoint_base
class View:
    """
    The verbs of a view; `llmspell_state.View` adds Python's mapping protocol.
    """
    def __contains__(self, key: str, /) -> bool: ...
    def __getitem__(self, key: str, /) -> Any: ...
    def __iter__(self, /) -> Keys: ...
    def __len__(self, /) -> int: ...
    def __new__(cls, /, of: "View") -> View:
        """
        Another handle of the same view.
        """
    def count(self, /, pattern: "str" = "*") -> "int":
        """
        How many keys match.
        """
    def entry(self, /, key: "str") -> "typing.Any":
        """
        What the `Entry` of a key is made of, or `None` when it is missing.
        """
    def exists(self, /, key: "str") -> "bool":
        """
        Whether a key was there.
        """
    def get(self, /, key: "str", default: "object" = None) -> "typing.Any":
        """
        The value of a key, or `default` when it is missing. Every call gives an object of its own.
        """
    def get_many(self, /, keys: "collections.abc.Iterable[str]") -> "dict[str, typing.Any]":
        """
        The values of those keys that are there, read at one moment.
        """
    def iter_items(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Items":
        """
        Iterates over the keys that match and their values.
        """
    def iter_keys(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Keys":
        """
        Iterates over the keys that match, in the order of their bytes.
        """
    def iter_values(self, /, pattern: "str" = "*", *, after: "str | None" = None, limit: "int | None" = None, reverse: "bool" = False) -> "Values":
        """
        Iterates over the values of the keys that match.
        """
    def scope(self, /, name: "str") -> "View":
        """
        The scope of this name inside this one, as it was at the same moment.
        """
    @property
    def version(self, /) -> int:
        """
        The version of the newest commit that it shows.
        """

@disjoint_base
class Watch:
    """
    A stream of changes; `llmspell_state.Watch` is what users see.
    """
    def __exit__(self, /, error: Any, _value: Any, _traceback: Any) -> None: ...
    def __iter__(self, /) -> Watch: ...
    def __new__(cls, /, of: "Watch") -> Watch:
        """
        Another handle of the same stream: each change goes to one of them.
        """
    def __next__(self, /) -> Any: ...
    def close(self, /) -> None:
        """
        Ends the watch, for those who wait, too. Closing it again does nothing.
        """
    @property
    def closed(self, /) -> bool:
        """
        Whether `close` was called.
        """
    @property
    def name(self, /) -> str | None:
        """
        The name under which the store keeps how far it has come, or `None`.
        """
    def next(self, /, timeout: "float | None" = None) -> "typing.Any":
        """
        The next change, waiting for it at most `timeout` seconds, or as long as it takes without one; `None` when none came,
        or when the watch was closed.
        """
    def save(self, /) -> None:
        """
        Counts every change that was given as done and, for a watch with a name, keeps that in the store.
        """
    @property
    def version(self, /) -> int:
        """
        The last version whose changes, and all before them, are done.
        """

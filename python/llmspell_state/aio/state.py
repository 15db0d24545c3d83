"""A store: opened and closed by ``async with State(path)``."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .. import _native
from ..errors import ClosedError, ForkedError
from ..retention import DEFAULT_RETENTION, RetentionPolicy
from ..usage import Cleanup
from ..verification import Verification
from .loop import later
from .scope import Scope
from .verbs import Hook

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class _Unopened:
    """Stands for the compiled part of a state that is not open; a ``__getattr__`` of the state would slow down all."""

    def __getattr__(self, name: str) -> Any:
        raise ClosedError("this state is not open; enter it by 'async with', or await it")


class State(Scope):
    """A store, which is also its own root ``Scope``.

    ``async with State("agent.db") as state`` opens it and closes it at the end; ``state = await State("agent.db")``
    leaves closing to the caller. ``State()`` keeps everything in memory. The settings are those of
    ``llmspell_state.State``.
    """

    __slots__ = ("_opened", "_options", "_path")

    _handle: _native.AsyncState

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        sync_mode: Literal["FULL", "NORMAL", "OFF"] = "FULL",
        cache_size_mb: int = 64,
        enable_compression: bool = True,
        exclusive: bool = False,
        create: bool = True,
        create_dirs: bool = False,
        accept_rollback: bool = False,
        max_value_bytes: int = 64 << 20,
        busy_timeout_ms: int = 30_000,
        enable_wal: bool = True,
        retention: RetentionPolicy | Mapping[str, Any] = DEFAULT_RETENTION,
        actor: str | None = None,
        default: Hook | None = None,
        **unknown: Any,
    ) -> None:
        self._handle = cast("_native.AsyncState", _Unopened())
        self._opened = False
        self._path = path
        self._default = default
        self._options: dict[str, Any] = {
            "sync_mode": sync_mode,
            "cache_size_mb": cache_size_mb,
            "enable_compression": enable_compression,
            "exclusive": exclusive,
            "create": create,
            "create_dirs": create_dirs,
            "accept_rollback": accept_rollback,
            "max_value_bytes": max_value_bytes,
            "busy_timeout_ms": busy_timeout_ms,
            "enable_wal": enable_wal,
            "retention": retention,
            "actor": actor,
            **unknown,  # the core names what was meant
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, default: Hook | None = None) -> Self:
        """A store as a mapping of settings says, with the file's path as ``persistence_path``."""
        state = cls(default=default)
        state._options = dict(config)
        return state

    async def __aenter__(self) -> Self:
        if not self._opened:
            handle = await later(_native.AsyncState.open, self._path, self._options)
            if self._opened:  # by another task that waited at the same time
                await later(handle.close)
            else:
                self._handle, self._opened = handle, True
        elif self._handle.closed:
            await later(self._handle.version)  # says so in the words of every other call
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await later(self._handle.close)
        except ForkedError:
            if kind is None:  # in a fork the block is the parent's to end
                raise

    async def close(self) -> None:
        """Closes the store; closing it again does nothing.

        Scopes, transactions, views and watches of it raise ``ClosedError`` from then on, also for who waits.
        """
        await later(self._handle.close)

    async def verify(self) -> Verification:
        """Reads everything that the store holds and tells what is wrong with it; a sound store has no ``problems``.

        Every change is compared with its check and with the change before it, every key with its newest change, and the
        tables and indexes of the database with each other. It reads one moment, whatever is written meanwhile.
        """
        return Verification(*await later(self._handle.verify))

    async def cleanup(self) -> Cleanup:
        """Does at once what is done in the background: tells of keys that have expired, and trims the past.

        Of the log goes what the retention policies do not keep, to the letter. The file does not shrink; its space is
        used again. Cancelling leaves it to go on without telling.
        """
        return Cleanup(*await later(self._handle.cleanup))

    async def version(self) -> int:
        """The version of the newest commit, of any process."""
        return await later(self._handle.version)

    @property
    def store_id(self) -> str:
        """The store's identity: the text of a UUID, the same wherever its file goes."""
        return self._handle.store_id

    @property
    def path(self) -> Path | None:
        """The store's file, or ``None`` in memory."""
        return self._handle.path

    @property
    def config(self) -> dict[str, Any]:
        """The settings in force, as a new ``dict``."""
        config: dict[str, Any] = self._handle.config
        return config

    def __repr__(self) -> str:
        path = self.path if self._opened else self._path
        shown = "" if path is None else repr(str(path))
        return f"<State({shown}){'' if self._opened and not self.closed else ' closed'}>"

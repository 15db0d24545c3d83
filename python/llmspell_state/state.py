"""A store: opened by ``State(path)``, closed at the end of its ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _native
from .retention import DEFAULT_RETENTION, RetentionPolicy
from .scope import Scope
from .usage import Cleanup
from .verification import Verification

if TYPE_CHECKING:
    from typing_extensions import Self


class State(_native.State, Scope):  # type: ignore[misc]  # as for Scope
    """An open store, which is also its own root ``Scope``.

    ``State()`` keeps everything in memory, ``State("agent.db")`` in a file that other threads, processes and languages
    may have open at the same time. The settings:

    - ``sync_mode``: ``"FULL"``, a write is on disk when the call returns; ``"NORMAL"``, it survives a crash of the
      process, the last ones may be lost in a power cut; ``"OFF"``, a power cut may damage the file.
    - ``cache_size_mb``: memory for values that were read, in MB; 0 keeps none.
    - ``enable_compression``: compress values where it saves space.
    - ``exclusive``: only this process may open the store: faster, and a second process gets ``BusyError``.
    - ``create``, ``create_dirs``: make the file, and the folders above it, when they are missing.
    - ``accept_rollback``: open the store although it holds less than was acknowledged, since an older copy of the file
      was put back on purpose; otherwise that is ``DataLossError``.
    - ``max_value_bytes``: the longest stored text of one value.
    - ``busy_timeout_ms``: how long a write waits for other processes.
    - ``enable_wal``: use the write-ahead log, which sharing between processes relies on.
    - ``retention``: how much of the past is kept where neither the store nor a scope has a policy that was set; a
      mapping with the names of ``RetentionPolicy`` will do, and what it does not name is as in ``RetentionPolicy()``,
      the default. It is that of this process alone: what all are to keep to is said with ``set_retention``.
    - ``actor``: who makes the changes of this opening; history and watches tell it.
    - ``default``: a function that turns objects which cannot be stored into ones that can, like ``json.dumps``'s.
    """

    __slots__ = ()

    def __new__(
        cls,
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
        default: Callable[[Any], object] | None = None,
        **unknown: Any,
    ) -> Self:
        options = {
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
        return cast("Self", super().__new__(cls, path, options, default))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, default: Callable[[Any], object] | None = None) -> Self:
        """Opens a store as a mapping of settings says, with the file's path as ``persistence_path``."""
        return cast("Self", super().__new__(cls, None, dict(config), default))

    def verify(self) -> Verification:
        """Reads everything that the store holds and tells what is wrong with it; a sound store has no ``problems``.

        Every change is compared with its check and with the change before it, every key with its newest change, and the
        tables and indexes of the database with each other. It reads one moment, whatever is written meanwhile.
        """
        return Verification(*super().verify())

    def cleanup(self) -> Cleanup:
        """Does at once what is done in the background: tells of keys that have expired, and trims the past.

        Of the log goes what the retention policies do not keep, to the letter. The file does not shrink; its space is
        used again.
        """
        return Cleanup(*super().cleanup())

    def __enter__(self) -> Self:
        if self.closed:
            _ = self.version  # says so in the words of every other call
        return self

    def __repr__(self) -> str:
        path = "" if self.path is None else repr(str(self.path))
        return f"<State({path}){' closed' if self.closed else ''}>"

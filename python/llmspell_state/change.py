"""What a watch tells: one change of one key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, final

from .entry import date


@final
class Missing:
    """The type of ``MISSING``, which stands where there is no value. It is false."""

    __slots__ = ()

    def __new__(cls) -> Missing:
        return MISSING

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"  # so that it stays the only one when it is copied or pickled


MISSING: Final = object.__new__(Missing)
"""No value, as opposed to a stored ``None``: ``change.old is MISSING``."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a key, as it was committed."""

    key: str
    operation: Literal["set", "delete", "expire", "touch"]
    """What happened to it; a touch gave it another time to live, and left its value."""
    value: Any
    """The value it got, an object of the caller's own; ``MISSING`` when it was deleted or has expired."""
    old: Any
    """The value it had; ``MISSING`` when it was not there, or when the log does not go back so far."""
    version: int
    """The version of its commit; all changes of one commit share it."""
    time: datetime
    """When (UTC)."""
    actor: str | None
    """Who made it: as ``as_run`` said, or else the setting ``actor`` of the state that wrote."""
    run: str | None
    """In the course of what, and"""
    reason: str | None
    """why, as ``as_run`` said."""
    ends_commit: bool
    """Whether it is the last of its commit that the watch tells: keep ``version`` then, to go on ``since`` it."""

    @classmethod
    def _from_store(
        cls,
        key: str,
        operation: Literal["set", "delete", "expire", "touch"],
        value: Any,
        old: Any,
        version: int,
        time: int,
        actor: str | None,
        run: str | None,
        reason: str | None,
        ends_commit: bool,
    ) -> Change:
        """Makes a date of the milliseconds since 1970 that the store keeps."""
        return cls(key, operation, value, old, version, date(time), actor, run, reason, ends_commit)

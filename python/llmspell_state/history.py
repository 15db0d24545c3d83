"""What is told of the past: of a key, of what differs between two moments, and of what was taken back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from .entry import date


@dataclass(frozen=True, slots=True)
class Revision:
    """What happened to a key in one commit."""

    version: int
    """The version of the commit."""
    operation: Literal["set", "delete", "expire", "touch"]
    """A touch gave the key another time to live, and left its value."""
    value: Any
    """The value that the key got, an object of the caller's own; ``MISSING`` when it was deleted or has expired."""
    time: datetime
    """When (UTC)."""
    actor: str | None
    """Who did it: as ``as_run`` said, or else the setting ``actor`` of the state that wrote."""
    run: str | None
    """In the course of what, and"""
    reason: str | None
    """why, as ``as_run`` said."""

    @classmethod
    def _from_store(
        cls,
        version: int,
        operation: Literal["set", "delete", "expire", "touch"],
        value: Any,
        time: int,
        actor: str | None,
        run: str | None,
        reason: str | None,
    ) -> Revision:
        """Makes a date of the milliseconds since 1970 that the store keeps."""
        return cls(version, operation, value, date(time), actor, run, reason)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that is not the same at two moments."""

    key: str
    old: Any
    """Its value at the first of them, an object of the caller's own; ``MISSING`` when it was not there."""
    new: Any
    """Its value at the second."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What came of ``undo``."""

    version: int
    """The version of the commit that took the changes back; of the newest one when there was nothing to take back."""
    keys: int
    """How many keys are as they were before."""
    refused: tuple[tuple[tuple[str, ...], str], ...]
    """Keys that were left alone, since somebody else has changed them later.

    Each with the names of the scopes that lead to it from the one on which ``undo`` was called: ``(("notes",), "k")``.
    """

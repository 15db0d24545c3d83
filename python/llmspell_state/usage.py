"""What a scope takes, and what cleaning up has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What a scope takes, with the scopes inside it."""

    keys: int
    """Keys that exist."""
    live_bytes: int
    """Bytes in which their values are stored; what a fork has not changed counts in the scope it was forked from."""
    history_bytes: int
    """Bytes in which values of the past are stored: replaced, deleted, expired."""
    changes: int
    """Changes in the log; those from before a fork are its origin's."""


@dataclass(frozen=True, slots=True)
class Cleanup:
    """What ``State.cleanup()`` has done."""

    expired: int
    """Keys whose time had run out and of which nobody had told yet."""
    trimmed: int
    """Changes that were taken out of the log."""

"""How much of the past a store keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True, slots=True, init=False)
class RetentionPolicy:
    """How much of the past is kept: values that were replaced, and keys that are gone.

    What goes beyond any of the bounds is trimmed in the background, never what a key is now, nor what a named watch has
    still to tell. Times may be given as ``timedelta``, too.
    """

    max_age: float | None
    """For how many seconds what was replaced, deleted or has expired is kept from when it was written, or ``None``."""
    max_versions: int | None
    """How many versions of a key are kept, the present one included: at least 1, or ``None`` for all of them."""
    max_bytes: int | None
    """How many bytes of stored values of the past a scope keeps; the oldest go first. ``None`` sets no bound."""
    trim_watched: bool
    """Trim also what a named watch has still to tell, which then raises ``NotFoundError``."""
    cleanup_interval: float
    """How many seconds go by at most until the past is trimmed; after many changes it is trimmed earlier.

    It counts in the ``retention`` with which a store is opened, not in what ``set_retention`` keeps.
    """

    def __init__(
        self,
        max_age: float | timedelta | None = 30 * 86_400.0,
        max_versions: int | None = 100,
        max_bytes: int | None = None,
        trim_watched: bool = False,
        cleanup_interval: float | timedelta = 60.0,
    ) -> None:
        parts = {
            "max_age": None if max_age is None else _seconds(max_age),
            "max_versions": max_versions,
            "max_bytes": max_bytes,
            "trim_watched": trim_watched,
            "cleanup_interval": _seconds(cleanup_interval),
        }
        for name, part in parts.items():
            object.__setattr__(self, name, part)  # as dataclasses do it where they are frozen


def _seconds(time: float | timedelta) -> float:
    return time.total_seconds() if isinstance(time, timedelta) else time


DEFAULT_RETENTION: Final = RetentionPolicy()
"""What a store keeps that is not told otherwise."""

"""A value with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it was at one moment, with its version and times."""

    value: Any
    """The value, an object of the caller's own."""
    version: int
    """The version of the commit that wrote it; 0 for a transaction's own write before its commit."""
    created: datetime
    """When the key came into being (UTC)."""
    updated: datetime
    """When this value was written (UTC)."""
    expires: datetime | None
    """When the key expires (UTC), or ``None`` when it does not.

    Also ``None`` for an own write of a transaction that is to live as the scope's default says, from the commit on.
    """

    @classmethod
    def _from_store(cls, value: Any, version: int, created: int, updated: int, expires: int | None) -> Entry:
        """Makes dates of the milliseconds since 1970 that the store keeps."""
        return cls(value, version, date(created), date(updated), None if expires is None else date(expires))


def date(milliseconds: int) -> datetime:
    """The date of a number of milliseconds since 1970, UTC."""
    return _EPOCH + timedelta(milliseconds=milliseconds)

"""What merging a fork asks, how it is answered, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final


@final
class Resolution:
    """The type of ``OURS``, ``THEIRS``, ``DELETE`` and ``LEAVE``. None of them can be stored."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name  # so that each stays the only one when it is copied or pickled


OURS: Final = Resolution("OURS")
"""The key stays as it is in the scope that is merged into, and counts as resolved."""
THEIRS: Final = Resolution("THEIRS")
"""The key becomes what it is in the fork: its value and its time to live, or deleted."""
DELETE: Final = Resolution("DELETE")
"""The key is deleted."""
LEAVE: Final = Resolution("LEAVE")
"""The key stays as it is in the scope that is merged into, and is told in ``Merged.conflicts``."""


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """A key that is another in a fork and in what it was forked from, and was neither when they parted.

    The values are objects of the caller's own.
    """

    path: tuple[str, ...]
    """The names of the scopes that lead to it from the one that is merged into."""
    key: str
    base: Any
    """Its value when they parted; ``MISSING`` when it was not there, or where that is not kept any more."""
    ours: Any
    """Its value in the scope that is merged into; ``MISSING`` where it is not there."""
    theirs: Any
    """Its value in the fork; ``MISSING`` where it is not there."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of ``merge_from``."""

    version: int
    """The version of the commit; of the newest one that was seen when there was nothing to change."""
    keys: int
    """How many keys were changed."""
    conflicts: tuple[tuple[tuple[str, ...], str], ...]
    """Keys that were left alone, since both sides have changed them.

    Each with the names of the scopes that lead to it from the one that was merged into: ``(("notes",), "k")``.
    """

"""What a look at everything in a store has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``State.verify()`` looked at, and what is wrong with it."""

    version: int
    """The newest commit that was looked at."""
    changes: int
    """Changes in the log, each compared with its check and with the change before it of the same key."""
    keys: int
    """Keys that exist, in all scopes."""
    scopes: int
    """Scopes, the root included."""
    problems: tuple[str, ...]
    """One text for each thing that is wrong, at most 100; none in a sound store."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

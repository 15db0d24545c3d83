"""A watch: every change of the keys that match, in the order of commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _native
from .change import Change

if TYPE_CHECKING:
    from typing_extensions import Self


class Watch(_native.Watch):
    """An iterator over changes, made by ``watch()``, which waits for the next one as long as it takes.

    It tells every commit of any process once, whole and in order, and ends when it is closed; when its state is closed,
    it raises ``ClosedError``. It reads the log as it goes, so a slow consumer costs no memory and holds up no writer.
    Threads may share it: each change goes to one.

    A watch with a name keeps in the store how far it has come whenever it fetches more, and when it is saved or
    closed; it goes on there when it is opened again. A change counts as done when the next one is asked for, or at
    ``save()``. After a crash the commits since are told again.
    """

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        return Change._from_store(*super().__next__())

    def next(self, timeout: float | None = None) -> Change | None:
        """The next change, waiting for it at most ``timeout`` seconds, or as long as it takes without one.

        ``None`` when none came, or when the watch was closed. ``ClosedError`` when its state was closed.
        ``NotFoundError`` when changes that are to be told are not in the log any more: read the keys, and watch from
        now on.
        """
        fields = super().next(timeout)
        return None if fields is None else Change._from_store(*fields)

    def __enter__(self) -> Self:
        return self

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Watch{name} {'closed' if self.closed else f'at version {self.version}'}>"

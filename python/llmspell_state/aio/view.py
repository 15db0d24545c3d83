"""A scope as it was at a moment of the past."""

from __future__ import annotations

from .. import _native
from .loop import later
from .verbs import ReadingVerbs


class View(ReadingVerbs):
    """What ``await scope.at(…)`` gives. Whatever is written meanwhile, it stays the same.

    It is cheap, holds no lock and may be shared by tasks, threads and event loops. It is closed with its state.
    """

    __slots__ = ()

    _handle: _native.AsyncView

    @classmethod
    def _of(cls, handle: _native.AsyncView) -> View:
        view = cls.__new__(cls)
        view._handle = handle
        return view

    async def scope(self, name: str) -> View:
        """The scope of this name inside this one, as it was at the same moment; ``NotFoundError`` if there is none."""
        return View._of(await later(self._handle.scope, name))

    @property
    def version(self) -> int:
        """The version of the newest commit that it shows."""
        return self._handle.version

    def __repr__(self) -> str:
        return f"<View at version {self.version}>"

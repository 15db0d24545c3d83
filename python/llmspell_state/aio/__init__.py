"""The same state for asyncio: the classes of ``llmspell_state`` with coroutine methods.

>>> import asyncio
>>> from llmspell_state.aio import State
>>> async def main():
...     async with State() as state:  # State("agent.db") keeps it in a file
...         await state.set("user:123", {"name": "Alice", "score": 100})
...         async with state.watch("visits") as watch:
...             await asyncio.gather(*(state.increment("visits") for _ in range(10)))
...             async for change in watch:
...                 if change.value == 10:
...                     break
...         async with state.transaction() as tx:  # may await anything meanwhile: nothing is held
...             user = await tx.get("user:123")
...             await tx.set("user:123", {**user, "score": change.value})
...         return [key async for key in state.keys("user:*")], await state.get("user:123")
>>> asyncio.run(main())
(['user:123'], {'name': 'Alice', 'score': 10})

A call never blocks the event loop. A read of what is in the cache, a write inside a transaction and the next change
that a watch has fetched do not even leave it; the rest is done by threads of the library, and calls of many tasks share
one commit. The same file may be open as ``llmspell_state.State`` in this process, too: both share one store.

Cancelling is clean at every ``await``: what was under way happens wholly or not at all, so a cancelled write may still
be committed. A handle may be used from several event loops, of asyncio or uvloop, and with anyio on these.

What ``async with`` enters (a state, a transaction, a watch) may be awaited instead, and is then the caller's to end.
"""

from .scope import Scope
from .state import State
from .transaction import Transaction
from .view import View
from .watch import Watch

__all__ = ["Scope", "State", "Transaction", "View", "Watch"]

"""The job's steps on the store: the same five scopes and the same two transactions as in `worker.lua`.

| scope   | key         | value                                                           |
|---------|-------------|-----------------------------------------------------------------|
| waiting | path        | stamp of the file to index, or null when the file is gone       |
| claims  | path        | {"worker", "until", "stamp"}: who works on it, for how long     |
| files   | path        | {"stamp", "worker", "counts"}: what the file contributes now    |
| totals  | word        | occurrences in all files                                        |
| index   | "word path" | occurrences in that file                                        |

A worker that dies loses its claim when the lease ends. A worker that was too slow finds its claim gone and drops its
result. A file's contribution is replaced in one transaction, so it counts exactly once however often it was started.
"""

import random
import time
from collections.abc import Iterable
from pathlib import Path

from llmspell_state import Scope, State, Transaction
from words import count_words

LEASE = 3  # seconds a worker has for one file


def enqueue(state: State, found: Iterable[tuple[str, str]]) -> int:
    """Puts every file that is new, changed or gone since it was indexed in the queue; says how many."""
    stamps = {path: record["stamp"] for path, record in state.scope("files").items()}
    now = dict(found)
    work: dict[str, str | None] = {path: stamp for path, stamp in now.items() if stamps.get(path) != stamp}
    work.update(dict.fromkeys(stamps.keys() - now.keys()))
    if work:
        state.scope("waiting").set_many(work)
    return len(work)


def is_available(claims: Scope | Transaction, path: str) -> bool:
    """Whether nobody works on a file, or whoever did has gone silent."""
    claim = claims.get(path)
    return claim is None or claim["until"] < int(time.time())


def candidates(state: State) -> list[str]:
    """Some files that could be claimed now, in random order so that workers rarely reach for the same one."""
    waiting, claims = state.scope("waiting"), state.scope("claims")
    paths = [*waiting.keys(limit=100), *claims.keys(limit=100)]
    available = [path for path in paths if is_available(claims, path)]
    random.shuffle(available)
    return available


def claim(tx: Transaction, worker: str, path: str) -> str | bool | None:
    """Takes a file: its stamp, `None` for a file that is gone, `False` when another worker was first."""
    waiting, claims = tx.scope("waiting"), tx.scope("claims")
    if not is_available(claims, path):
        return False
    if path in waiting:
        stamp = waiting.pop(path)
    elif path in claims:
        stamp = claims[path]["stamp"]
    else:
        return False
    claims[path] = {"worker": worker, "until": int(time.time()) + LEASE, "stamp": stamp}
    return stamp


def finish(tx: Transaction, worker: str, path: str, stamp: str | None, counts: dict[str, int]) -> bool:
    """Replaces what the file contributed before; `False` when the claim was lost to another worker."""
    claims, files, totals, index = (tx.scope(name) for name in ("claims", "files", "totals", "index"))
    if claims.get(path, {}).get("worker") != worker:
        return False
    before = files.get(path, {"counts": {}})["counts"]
    for word in before.keys() | counts.keys():
        change = counts.get(word, 0) - before.get(word, 0)
        if change and totals.increment(word, change) == 0:
            totals.delete(word)
        if word in counts:
            index.set(f"{word} {path}", counts[word])
        else:
            index.delete(f"{word} {path}")
    if stamp is None:
        files.delete(path)
    else:
        files.set(path, {"stamp": stamp, "worker": worker, "counts": counts})
    claims.delete(path)
    return True


def work(state: State, folder: Path, worker: str) -> int:
    """Claims, counts and indexes until nothing is left to claim; says how many files."""
    done = 0
    while paths := candidates(state):
        for path in paths:
            stamp = state.transact(lambda tx, path=path: claim(tx, worker, path))
            if stamp is False:
                continue
            try:
                counts = count_words(Path(folder, path).read_bytes()) if stamp else {}
            except OSError:  # gone since the scan
                stamp, counts = None, {}
            done += state.transact(
                lambda tx, path=path, stamp=stamp, counts=counts: finish(tx, worker, path, stamp, counts)
            )
    return done

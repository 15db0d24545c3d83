"""Tries to break the state from inside a Python interpreter: event loops, exits, forks, signals, threads.

The crash driver runs it with CRASH_SIZE (small, middle or long), CRASH_SEED and CRASH_DIR, an empty folder. It ends
with status 0 and a last line of counts, or says what broke, and with which seed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import python_asyncio
import python_exits
import python_forks
import python_free_threaded
import python_signals
import python_threads
from python_common import Failed

SECONDS = {"small": 0, "middle": 180, "long": 3600}
"""How long one turn after the other is made; one of them is made in any case."""
PARTS = {
    "asyncio": python_asyncio,
    "exits": python_exits,
    "forks": python_forks,
    "signals": python_signals,
    "threads": python_threads,
}


def turn(directory: Path, seed: int, only: list[str]) -> Counter[str]:
    """Runs every case once, or those of the parts and of the names that are given."""
    python_free_threaded.check_declarations()
    counts: Counter[str] = Counter()
    for name, part in PARTS.items():
        cases = [case for case in part.CASES if not only or name in only or case.name in only]
        if cases:
            began = time.monotonic()
            counts.update(part.run(directory / name, seed, cases))
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return counts


def main() -> int:
    size, seed, directory = os.environ["CRASH_SIZE"], int(os.environ["CRASH_SEED"]), Path(os.environ["CRASH_DIR"])
    counts: Counter[str] = Counter()
    end = time.monotonic() + SECONDS[size]
    for number in count():
        place, own_seed = directory / f"turn-{number}", (seed + 1000 * number) % 2**64
        try:
            counts.update(turn(place, own_seed, sys.argv[1:]))
        except Failed as failed:
            print(f"turn {number}, whose seed is {own_seed}: {failed}")
            return 1
        shutil.rmtree(place)
        if time.monotonic() >= end:
            break
    print(json.dumps({**counts, **python_free_threaded.skipped()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

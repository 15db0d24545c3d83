"""Tries to break the state from inside a Python interpreter: exits, forks, signals, threads.

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
from pathlib import Path

import python_exits
import python_forks
import python_signals
import python_threads
from python_common import Failed

SECONDS = {"small": 0, "middle": 180, "long": 3600}
PARTS = {
    "exits": python_exits.run,
    "forks": python_forks.run,
    "signals": python_signals.run,
    "threads": python_threads.run,
}


def main() -> int:
    size, seed, directory = os.environ["CRASH_SIZE"], int(os.environ["CRASH_SEED"]), Path(os.environ["CRASH_DIR"])
    only = sys.argv[1:] or list(PARTS)
    counts: Counter[str] = Counter()
    end = time.monotonic() + SECONDS[size]
    turn = 0
    while turn == 0 or time.monotonic() < end:
        for name in only:
            place = directory / f"{name}-{turn}"
            began = time.monotonic()
            try:
                counts.update(PARTS[name](place, seed + 1000 * turn))
            except Failed as failed:
                print(f"{name}, turn {turn}, seed {seed + 1000 * turn}: {failed}")
                return 1
            print(f"{name}, turn {turn}: {time.monotonic() - began:.1f} s", flush=True)
            shutil.rmtree(place)
        turn += 1
    print(json.dumps(dict(counts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

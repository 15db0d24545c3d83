"""Four processes adding to one counter in one file.

python processes.py CONTENDER FOLDER SYNC TIMES    one such process: says `ready`, waits for a line, says `done`
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from contenders import Apsw, Contender, Diskcache, Ours, Sqlite
from measure import Case, Effort, turns

KINDS: list[type[Contender]] = [Ours, Sqlite, Apsw, Diskcache]
PROCESSES = 4


def process_counters(effort: Effort) -> Iterator[Case]:
    """The same work for everyone who can add exactly."""
    each = 200 if effort.rounds < 5 else 1000
    rounds = max(3, effort.rounds // 2)
    for sync in ("FULL", "NORMAL"):
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            runs, folders = {}, {}
            for kind in KINDS:
                if kind.is_available():
                    folder = folders[kind] = Path(place, kind.__name__)
                    folder.mkdir()
                    contender = kind(folder, sync)
                    contender.set("n", 0)
                    contender.close()
                    runs[kind.name] = partial(per_second, kind, folder, sync, each)
            case = turns(Case(f"counter, {PROCESSES} processes, {sync}", "/s"), runs, rounds)
            wrong = []
            for kind, folder in folders.items():
                contender = kind(folder, sync)
                if contender.counted("n") != PROCESSES * each * rounds:
                    wrong.append(kind.name)
                contender.close()
            case.note = f"NOT EXACT: {', '.join(wrong)}" if wrong else "all exact"
            yield case


def per_second(kind: type[Contender], folder: Path, sync: str, each: int) -> float:
    """Additions per second of processes that start together."""
    command = [sys.executable, __file__, kind.__name__, str(folder), sync, str(each)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for process in running:
        expect(process, "ready")
    start = time.perf_counter()
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        expect(process, "done")
    took = time.perf_counter() - start
    for process in running:
        process.communicate()
    return PROCESSES * each / took


def expect(process: "subprocess.Popen[str]", word: str) -> None:
    """Waits for a line of a process."""
    assert process.stdout
    line = process.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"a counting process said {line!r} instead of {word!r}")


def main(kind: str, folder: str, sync: str, times: str) -> None:
    """One counting process."""
    contender = next(known for known in KINDS if known.__name__ == kind)(Path(folder), sync)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(times)):
        contender.increment("n")
    print("done", flush=True)
    contender.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

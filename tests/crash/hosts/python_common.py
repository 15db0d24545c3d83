"""What the parts of the Python harness share: cases that run in a process of their own, and how they ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmspell_state import ClosedError, State

LONGEST_SECONDS = 120
"""A case that takes longer hangs; all of them end within a second or two."""

NEVER_SAID = ("Exception ignored", "Fatal Python error", "panicked", "was never awaited", "Segmentation")
"""What the interpreter or the library says when something broke that no exception could tell."""


class Failed(Exception):
    """A promise was broken."""


def check(held: object, what: str) -> None:
    if not held:
        raise Failed(what)


@dataclass(frozen=True)
class Case:
    """A function of one of the parts, and how the process is to end in which it runs."""

    run: Callable[[Path, random.Random], None]
    status: int = 0
    says: str = ""
    """The last line on the standard error stream; nothing may be there when it is empty."""

    @property
    def name(self) -> str:
        return self.run.__name__


@dataclass(frozen=True)
class Ended:
    """What a case left behind."""

    path: Path
    lines: list[str]
    """What it reported before it ended."""


def say(line: str) -> None:
    """Reports a line in one system call, so that it counts even if nothing else runs in this process any more."""
    os.write(1, f"{line}\n".encode())


def run_here(cases: list[Case], arguments: list[str]) -> None:
    """The main program of a part: runs one case in this process."""
    name, path, seed = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with Ctrl-C switched off
    (case,) = (case for case in cases if case.name == name)
    case.run(Path(path), random.Random(seed))


def run_there(part: str, case: Case, directory: Path, seed: int) -> Ended:
    """Runs one case in a process of its own and judges how that ended."""
    directory.mkdir(parents=True)
    path = directory / "agent.db"
    command = [sys.executable, "-X", "faulthandler", "-W", "error", part, case.name, str(path), str(seed)]
    shown = f"{Path(part).name} {case.name} (seed {seed})"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # faulthandler shows every thread
        _, err = process.communicate()
        raise Failed(f"{shown} hangs\n{err}") from None
    ended = f"{shown} ended with status {process.returncode}, not {case.status}\n{err}"
    check(process.returncode == case.status, ended)
    check(not any(said in err for said in NEVER_SAID), f"{shown} said\n{err}")
    if case.says:
        check(err.rstrip().endswith(case.says) and err.count("Traceback") == 1, f"{shown} said\n{err}")
    else:
        check(err == "", f"{shown} said\n{err}")
    return Ended(path, out.splitlines())


def run_all(
    part: str, cases: list[Case], directory: Path, seed: int, judge: Callable[[Case, Ended], None] | None = None
) -> int:
    """Runs every case once, two at a time, and says how many there were."""

    def run(numbered: tuple[int, Case]) -> None:
        number, case = numbered
        ended = run_there(part, case, directory / case.name, seed + number)
        if judge is not None:
            try:
                judge(case, ended)
            except Failed as failed:
                raise Failed(f"{Path(part).name} {case.name} (seed {seed + number}): {failed}") from failed

    with ThreadPoolExecutor(2) as pool:
        return sum(1 for _ in pool.map(run, enumerate(cases)))


def write_set(state: State, n: int) -> None:
    state.set(f"set:{n}", n)


def write_counter(state: State, n: int) -> None:
    state.increment("counter")


def write_pair(state: State, n: int) -> None:
    state.transact(lambda tx: tx.update({"left": n, "right": n}))


def write_batch(state: State, n: int) -> None:
    state.set_many({"upper": n, "lower": n})


def write_list(state: State, n: int) -> None:
    state.append("list", n)


def write_modified(state: State, n: int) -> None:
    state.modify("modified", lambda _: n)


WRITERS = (write_set, write_counter, write_pair, write_batch, write_list, write_modified)


@contextmanager
def writing(state: State, rng: random.Random, *, daemon: bool, most: int = 1_000_000) -> Iterator[threading.Event]:
    """Threads that write and report each acknowledgement, up to `most` times each or until the event is set.

    The block begins when each of them has written something. Whoever leaves it need not wait for them.
    """
    stop = threading.Event()
    begun = threading.Semaphore(0)
    enough = rng.randrange(1, 8)

    def work(write: Callable[[State, int], None]) -> None:
        for n in range(most):
            if stop.is_set():
                return
            try:
                write(state, n)
            except ClosedError:
                return
            say(f"{write.__name__} {n}")
            if n == min(enough, most - 1):
                begun.release()

    for write in rng.sample(WRITERS, 4):
        threading.Thread(target=work, args=(write,), daemon=daemon).start()
    for _ in range(4):
        begun.acquire()
    yield stop


def check_writes(path: Path, lines: list[str]) -> int:
    """Whether the store has every acknowledged write, whole, and no more than one beyond for each writer."""
    acknowledged: dict[str, int] = {}
    for line in lines:
        name, _, n = line.partition(" ")
        if name.startswith("write_"):
            acknowledged[name] = max(acknowledged.get(name, -1), int(n))
    with State(path) as state:
        found: dict[str, list[Any]] = {
            "write_set": [state.count("set:*") - 1],
            "write_counter": [state.get("counter", 0) - 1],
            "write_pair": [state.get("left", -1), state.get("right", -1)],
            "write_batch": [state.get("upper", -1), state.get("lower", -1)],
            "write_list": [len(state.get("list", [])) - 1],
            "write_modified": [state.get("modified", -1)],
        }
        check(state.get("list", []) == list(range(len(state.get("list", [])))), "the list has holes")
        for n in range(acknowledged.get("write_set", -1) + 1):
            check(state.get(f"set:{n}") == n, f"set:{n} was acknowledged and is {state.get(f'set:{n}')!r}")
    for name, last in found.items():
        least = acknowledged.get(name, -1)
        check(
            all(least <= n <= least + 1 for n in last) and len(set(last)) == 1,
            f"{name}: {least} was acknowledged last, {last} is there",
        )
    return sum(1 for line in lines if line.startswith("write_"))

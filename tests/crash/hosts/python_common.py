"""What the parts of the Python harness share: cases that run in a process of their own, and how they ended."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmspell_state import ClosedError, State

LONGEST_SECONDS = 120
"""A case that takes longer hangs; all of them end within a second or two."""
AT_ONCE = 3

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


class Process:
    """A case in a process of its own: a fork of this one, which has no thread and no store open."""

    def __init__(self, case: Case, directory: Path, seed: int) -> None:
        directory.mkdir(parents=True)
        self.case, self.seed = case, seed
        self.path, self.out, self.err = directory / "agent.db", directory / "out", directory / "err"
        self.end = time.monotonic() + LONGEST_SECONDS
        self.id = os.fork()
        if self.id == 0:
            self.run()

    def run(self) -> None:
        """Ends by an exception, so that the interpreter ends as that of any program."""
        for descriptor, path in ((1, self.out), (2, self.err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        faulthandler.enable()
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # that there are threads is the point
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin with Ctrl-C switched off
        self.case.run(self.path, random.Random(self.seed))
        sys.exit()

    def judge(self, status: int) -> Ended:
        err = self.err.read_text()
        if time.monotonic() > self.end:
            raise Failed(f"it hangs\n{err}")
        check(status == self.case.status, f"it ended with status {status}, not {self.case.status}\n{err}")
        check(not any(said in err for said in NEVER_SAID), f"it said\n{err}")
        if self.case.says:
            check(err.rstrip().endswith(self.case.says) and err.count("Traceback") == 1, f"it said\n{err}")
        else:
            check(err == "", f"it said\n{err}")
        return Ended(self.path, self.out.read_text().splitlines())


def run_all(cases: list[Case], directory: Path, seed: int, judge: Callable[[Case, Ended], None]) -> None:
    """Runs every case once, a few at a time, and has each of them judged."""
    waiting = [(case, seed + number) for number, case in enumerate(cases)]
    running: dict[int, Process] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            case, own_seed = waiting.pop()
            process = Process(case, directory / case.name, own_seed)
            running[process.id] = process
        for process in running.values():
            if time.monotonic() > process.end:
                os.kill(process.id, signal.SIGABRT)  # shows what every thread is doing
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == 0:
            time.sleep(0.002)  # to wait for them alone would not end if one hangs
            continue
        process = running.pop(ended)
        try:
            judge(process.case, process.judge(os.waitstatus_to_exitcode(status)))
        except Failed as failed:
            for other in running:
                os.kill(other, signal.SIGKILL)
            raise Failed(f"{process.case.name}, seed {process.seed}: {failed}") from failed


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
        for number in range(acknowledged.get("write_set", -1) + 1):
            value = state.get(f"set:{number}")
            check(value == number, f"set:{number} was acknowledged and is {value!r}")
    for name, last in found.items():
        least = acknowledged.get(name, -1)
        check(
            all(least <= n <= least + 1 for n in last) and len(set(last)) == 1,
            f"{name}: {least} was acknowledged last, {last} is there",
        )
    return sum(1 for line in lines if line.startswith("write_"))


@contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """Another process holds the lock of writers until the function is called."""
    program = (
        "import sqlite3, sys\n"
        "store = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n"
        "store.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
        "store.execute('ROLLBACK')\n"
        "store.close()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        yield holder.stdin.close
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()

"""Ctrl-C in the middle of every call: it arrives soon, or the call is done. Nothing acknowledged is lost, nothing is
half written, and the state goes on working.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from llmspell_state import State
from python_common import Case, Ended, check, held, run_all, say

SOON = 10.0
"""Seconds after which an interrupt has not arrived; a third of the time for which a write waits for other processes."""
SHOTS = 2
MANY = 400


@dataclass
class Verb:
    """A call that a program repeats, number by number, and the number that a store shows to have been done last."""

    name: str
    call: Callable[[State, int], object]
    last: Callable[[State], int] | None = None
    """Nothing for a call that changes nothing."""


def pair(state: State, first: str, second: str) -> int:
    found = state.get_many([first, second])
    assert len(set(found.values())) <= 1, f"half a commit: {found}"
    return int(found.get(first, -1))


def halves(count: int) -> int:
    assert count % 2 == 0, "half a commit"
    return count // 2


def in_block(state: State, n: int) -> None:
    with state.transaction() as tx:
        tx["block left"] = n
        tx["block right"] = n


def explicitly(state: State, n: int) -> None:
    tx = state.begin()
    tx["begun left"] = n
    tx.set("begun right", n)
    tx.commit()


def forgets(state: State, n: int) -> None:
    tx = state.begin()
    tx["never"] = n
    tx.rollback()


def opens(state: State, n: int) -> None:
    with State(Path(str(state.path)).with_name("other.db")) as other:
        other.set("n", n)
        assert other["n"] == n


def listing(state: State, n: int) -> None:
    for key, value in state.items("many:*"):
        assert key == f"many:{value:05}"


WRITES = [
    Verb("set", lambda state, n: state.set("set", n), lambda state: state.get("set", -1)),
    Verb("[]=", lambda state, n: state.__setitem__("item", n), lambda state: state.get("item", -1)),
    Verb(
        "set if_version",
        lambda state, n: state.set(f"new:{n}", n, if_version=0),
        lambda state: state.count("new:*") - 1,
    ),
    Verb("set_many", lambda state, n: state.set_many({"a": n, "b": n}), lambda state: pair(state, "a", "b")),
    Verb("update", lambda state, n: state.update({"c": n, "d": n}), lambda state: pair(state, "c", "d")),
    Verb("delete", lambda state, n: state.delete(f"old:{n}"), lambda state: MANY - 1 - state.count("old:*")),
    Verb("pop", lambda state, n: state.pop(f"pop:{n}", None), lambda state: MANY - 1 - state.count("pop:*")),
    Verb("clear", lambda state, n: state.clear(f"heap:{n}:*"), lambda state: MANY - 1 - halves(state.count("heap:*"))),
    Verb(
        "set with a hook",
        lambda state, n: state.set("hooked", object(), default=lambda _: n),
        lambda state: state.get("hooked", -1),
    ),
    Verb("increment", lambda state, n: state.increment("sum"), lambda state: state.get("sum", 0) - 1),
    Verb("append", lambda state, n: state.append("list", n), lambda state: len(state.get("list", [])) - 1),
    Verb("merge", lambda state, n: state.merge("merged", {"n": n}), lambda state: state.get("merged", {"n": -1})["n"]),
    Verb("modify", lambda state, n: state.modify("mod", lambda _: n), lambda state: state.get("mod", -1)),
    Verb("setdefault", lambda state, n: state.setdefault(f"def:{n}", n), lambda state: state.count("def:*") - 1),
    Verb(
        "transact",
        lambda state, n: state.transact(lambda tx: tx.update({"e": n, "f": n})),
        lambda state: pair(state, "e", "f"),
    ),
    Verb("transaction", in_block, lambda state: pair(state, "block left", "block right")),
    Verb("commit", explicitly, lambda state: pair(state, "begun left", "begun right")),
    Verb(
        "scope",
        lambda state, n: state.scope("all").scope(f"{n:05}"),
        lambda state: len(state.scope("all").scopes()) - 1,
    ),
]
READS = [
    Verb("get", lambda state, n: state.get(f"many:{n % 1000:05}")),
    Verb("[]", lambda state, n: state[f"many:{n % 1000:05}"]),
    Verb("entry", lambda state, n: state.entry(f"many:{n % 1000:05}")),
    Verb("get_many", lambda state, n: state.get_many(["many:00001", f"many:{n % 1000:05}"])),
    Verb("in", lambda state, n: f"many:{n % 1000:05}" in state),
    Verb("count", lambda state, n: state.count("many:*1")),
    Verb("len", lambda state, n: len(state)),
    Verb("keys", lambda state, n: list(state.keys())),
    Verb("items", listing),
    Verb("values", lambda state, n: sum(state.values("many:*"))),
    Verb("reversed", lambda state, n: list(reversed(state))),
    Verb("scopes", lambda state, n: state.scopes()),
    Verb("version", lambda state, n: state.version),
    Verb("rollback", forgets),
    Verb("open and close", opens),
]


class Sent:
    """An interrupt on its way, from another thread or from the system's clock."""

    def __init__(self, rng: random.Random, delay: float) -> None:
        self.at = 0.0
        self.delay = delay
        self.way = rng.choice((self.to_the_process, self.to_the_main_thread, self.by_the_clock))
        self.thread = threading.Thread(target=self.work)
        self.started = threading.Lock()
        self.started.acquire()

    def start(self) -> None:
        # An interrupt inside of `Thread.start` would be the standard library's to survive, which it does not.
        self.thread.start()
        self.started.release()

    def work(self) -> None:
        self.started.acquire()
        time.sleep(self.delay)  # the moment is meant to be any; nothing waits for it
        self.at = time.monotonic()
        self.way()

    def to_the_process(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def to_the_main_thread(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    def by_the_clock(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0001)

    def arrived(self, what: str) -> None:
        took = time.monotonic() - self.at
        self.thread.join()
        say("interrupt")
        assert took < SOON, f"{what} was interrupted only after {took:.1f} s"


def opened(path: Path) -> State:
    def raise_it(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, raise_it)
    state = State(path, cache_size_mb=0)
    state.update({f"many:{n:05}": n for n in range(1000)})
    for name in ("old", "pop"):
        state.update({f"{name}:{n}": n for n in range(MANY)})
    state.update({f"heap:{n}:{half}": n for n in range(MANY) for half in "ab"})
    return state


def interrupt(state: State, verb: Verb, rng: random.Random, begin: int) -> int:
    """Repeats a call until it is interrupted, and gives the number to go on with."""
    attempted = done = begin - 1
    sent = Sent(rng, rng.choice((0.0005, 0.005)) * rng.random() + 0.0001)
    try:
        sent.start()
        while True:
            if attempted + 1 < MANY:
                attempted += 1
            verb.call(state, attempted)
            done = attempted
    except KeyboardInterrupt:
        sent.arrived(verb.name)
    if verb.last is None:
        return begin
    last = verb.last(state)
    assert last in (attempted, attempted - 1), f"{verb.name}: {attempted} was called last, {last} is there"
    assert last >= done, f"{verb.name}: {done} was acknowledged, {last} is there"
    return last + 1


def in_every_verb(path: Path, rng: random.Random) -> None:
    with opened(path) as state:
        lasts = {}
        for verb in rng.sample(READS + WRITES, len(READS + WRITES)):
            n = 0
            for _ in range(SHOTS):
                n = interrupt(state, verb, rng, n)
            if verb.last is not None:
                lasts[verb.name] = (verb.last, n - 1)
        assert "never" not in state
    with State(path) as again:
        for name, (last, n) in lasts.items():
            assert last(again) == n, f"{name}: {n} was there, {last(again)} is after opening again"


def while_other_threads_write(path: Path, rng: random.Random) -> None:
    state, stop, counts = opened(path), threading.Event(), [0, 0]

    def work(which: int) -> None:
        while not stop.is_set():
            state.increment(f"thread {which}")
            state.transact(lambda tx: tx.update({f"left {which}": 1, f"right {which}": 1}))
            counts[which] += 1

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    n = 0
    try:
        for _ in range(6):
            n = interrupt(state, WRITES[0], rng, n)
            interrupt(state, rng.choice(READS[:-1]), rng, 0)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    assert [state[f"thread {which}"] for which in range(2)] == counts
    state.close()


def with_a_handler_that_returns(path: Path, rng: random.Random) -> None:
    """A signal whose handler raises nothing changes nothing: every call is done, once."""
    handled = []
    signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    with State(path) as state:
        for n in range(100):
            state.increment("n")
            state.modify("m", lambda value: (value or 0) + 1)
            with state.transaction() as tx:
                tx["t"] = n
        assert (state["n"], state["m"], state["t"]) == (100, 100, 99)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert handled
    say("interrupt")


def while_another_process_holds_the_lock(path: Path, rng: random.Random) -> None:
    verbs = [*WRITES, Verb("open and close", opens)]
    with opened(path) as state:
        state.scope("all")
        version = state.version
        with held(path):
            for verb in rng.sample(WRITES, 4):
                sent = Sent(rng, 0.1)
                try:
                    sent.start()
                    verb.call(state, 0)
                except KeyboardInterrupt:
                    sent.arrived(verb.name)
                else:
                    raise AssertionError(f"{verb.name} did not wait")
        assert state.version == version, "a write that was interrupted has happened"
        for verb in verbs:
            verb.call(state, 0)


def while_it_waits_behind_another_thread(path: Path, rng: random.Random) -> None:
    state, answers = opened(path), []
    with held(path) as release:
        thread = threading.Thread(target=lambda: answers.append(state.set("leader", 1)))
        thread.start()
        sent = Sent(rng, 0.2)
        try:
            sent.start()
            state.set("never", 1)
        except KeyboardInterrupt:
            sent.arrived("set")
        release()
        thread.join()
    assert len(answers) == 1 and state["leader"] == 1 and "never" not in state
    state.close()


def while_another_thread_waits_behind_it(path: Path, rng: random.Random) -> None:
    state, answers = opened(path), []

    def follow() -> None:
        time.sleep(0.1)  # most likely behind the main thread's write; in front of it is as good
        answers.append(state.set("follower", 1))

    with held(path) as release:
        thread = threading.Thread(target=follow)
        thread.start()
        sent = Sent(rng, 0.3)
        try:
            sent.start()
            state.set("never", 1)
        except KeyboardInterrupt:
            sent.arrived("set")
        assert not answers
        release()
        thread.join()
    assert len(answers) == 1 and state["follower"] == 1 and "never" not in state
    state.close()


def waits_on_when_the_handler_returns(path: Path, rng: random.Random) -> None:
    state = opened(path)
    with held(path) as release:
        handled = []

        def handler(*_: Any) -> None:
            handled.append(1)
            if len(handled) == 3:
                threading.Thread(target=release).start()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        state.set("kept", 1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert state["kept"] == 1 and len(handled) >= 3
    state.close()
    say("interrupt")


CASES = [
    Case(case)
    for case in (
        in_every_verb,
        while_other_threads_write,
        with_a_handler_that_returns,
        while_another_process_holds_the_lock,
        while_it_waits_behind_another_thread,
        while_another_thread_waits_behind_it,
        waits_on_when_the_handler_returns,
    )
]


def run(directory: Path, seed: int, cases: list[Case]) -> dict[str, int]:
    signals = []

    def judge(case: Case, ended: Ended) -> None:
        signals.append(sum(1 for line in ended.lines if line == "interrupt"))
        check(signals[-1] > 0, "nothing was interrupted")

    run_all(cases, directory, seed, judge)
    return {"interrupts": sum(signals), "verbs interrupted": len(READS + WRITES)}

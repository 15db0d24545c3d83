"""The interpreter ends in every way while threads write: its exit status is right, it says nothing that was not asked
for, and every write that was acknowledged is there.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from llmspell_state import State
from python_common import Case, Ended, Failed, check, check_writes, held, run_all, writing

KEPT: dict[str, Any] = {}
"""A module global: its members live until the interpreter takes its modules apart."""


def falls_off_the_end(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=True):
        pass


def falls_off_the_end_and_waits_for_its_threads(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=False, most=20):
        pass


def exits(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=True):
        sys.exit(3)


def exits_and_waits_for_its_threads(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=False, most=20):
        sys.exit(3)


def leaves_at_once(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=rng.random() < 0.5):
        os._exit(4)


def raises(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=True):
        raise RuntimeError("on purpose")


def raises_out_of_the_block_of_the_state(path: Path, rng: random.Random) -> None:
    with State(path) as state, writing(state, rng, daemon=True):
        raise RuntimeError("on purpose")


def leaves_the_block_of_the_state(path: Path, rng: random.Random) -> None:
    with State(path) as state, writing(state, rng, daemon=rng.random() < 0.5):
        pass


def closes(path: Path, rng: random.Random) -> None:
    state = State(path)
    with writing(state, rng, daemon=True):
        state.close()


def is_interrupted(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=True):
        signal.raise_signal(signal.SIGINT)


def is_terminated(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=False):
        signal.raise_signal(signal.SIGTERM)


def becomes_another_program(path: Path, rng: random.Random) -> None:
    with writing(State(path), rng, daemon=False):
        os.execv(sys.executable, [sys.executable, "-c", "pass"])


def writes_in_a_hook_of_the_exit(path: Path, rng: random.Random) -> None:
    state = State(path)
    atexit.register(lambda: state.set("last", path.name))
    with writing(state, rng, daemon=True):
        sys.exit(3)


def closes_in_a_hook_of_the_exit(path: Path, rng: random.Random) -> None:
    state = State(path)
    atexit.register(state.close)
    atexit.register(lambda: state.set("last", path.name))
    with writing(state, rng, daemon=True):
        pass


def writes_in_a_finalizer(path: Path, rng: random.Random) -> None:
    state = KEPT["state"] = State(path)
    KEPT["finalizer"] = weakref.finalize(threading.current_thread(), state.set, "last", path.name)
    with writing(state, rng, daemon=True):
        pass


class Holder:
    """Writes in every way when it is destroyed."""

    def __init__(self, state: State, value: str) -> None:
        self.state, self.value, self.me = state, value, None

    def __del__(self) -> None:
        self.state.set("last", self.value)
        self.state.modify("destroyed", lambda value: (value or 0) + 1)
        self.state.transact(lambda tx: tx.increment("destroyed"))
        with self.state.transaction() as tx:
            tx.increment("destroyed")
        assert self.state["destroyed"] == 3 == len([*self.state.items("destroyed")]) + 2


def keeps_the_state_in_a_global(path: Path, rng: random.Random) -> None:
    KEPT["state"] = State(path)
    KEPT["listing"] = iter(KEPT["state"].items())
    KEPT["transaction"] = KEPT["state"].begin()
    with writing(KEPT["state"], rng, daemon=True):
        pass


def writes_when_a_global_is_destroyed(path: Path, rng: random.Random) -> None:
    KEPT["holder"] = Holder(State(path), path.name)
    with writing(KEPT["holder"].state, rng, daemon=True):
        pass


def writes_when_a_cycle_is_destroyed(path: Path, rng: random.Random) -> None:
    gc.disable()
    holder: Any = Holder(State(path), path.name)
    holder.me = holder
    with writing(holder.state, rng, daemon=True):
        pass


def keeps_the_state_in_its_own_hook(path: Path, rng: random.Random) -> None:
    class Own:
        def __init__(self) -> None:
            self.state = State(path, default=self.hook)

        def hook(self, value: object) -> str:
            return str(value)

    own = Own()
    own.state["hooked"] = {1}
    with writing(own.state, rng, daemon=True):
        pass


def has_a_transaction_and_a_listing_open(path: Path, rng: random.Random) -> None:
    state = State(path)
    state.update({f"many:{n:05}": n for n in range(2000)})
    listing = iter(state.items())
    with writing(state, rng, daemon=True), state.transaction() as tx:
        tx["never"] = 1
        next(listing)
        sys.exit(3)


def exits_inside_of_transact(path: Path, rng: random.Random) -> None:
    state = State(path)

    def leave(tx: Any) -> None:
        tx["never"] = 1
        sys.exit(3)

    with writing(state, rng, daemon=True):
        state.transact(leave)


def exits_inside_of_modify(path: Path, rng: random.Random) -> None:
    state = State(path)
    with writing(state, rng, daemon=True):
        state.modify("never", lambda _: sys.exit(3))


def leaves_at_once_inside_of_modify(path: Path, rng: random.Random) -> None:
    state = State(path)
    with writing(state, rng, daemon=False):
        state.modify("never", lambda _: os._exit(4))


def exits_while_a_thread_waits_in_a_callback(path: Path, rng: random.Random) -> None:
    state, inside = State(path), threading.Event()

    def wait(_: Any) -> None:
        inside.set()
        threading.Event().wait()

    threading.Thread(target=lambda: state.modify("never", wait), daemon=True).start()
    threading.Thread(target=lambda: state.transact(wait), daemon=True).start()
    inside.wait()
    atexit.register(state.close)
    with writing(state, rng, daemon=True):
        sys.exit(3)


def exits_while_a_thread_waits_for_another_process(path: Path, rng: random.Random) -> None:
    state = State(path)
    with writing(state, rng, daemon=True):  # from now on all of them wait, and nobody waits for them
        with held(path):
            signal.setitimer(
                signal.ITIMER_REAL, 20
            )  # ends this with another status, before the patience of writes does
            sys.exit(3)


def exits_while_threads_list(path: Path, rng: random.Random) -> None:
    state, begun = State(path), threading.Semaphore(0)
    state.update({f"many:{n:05}": n for n in range(3000)})

    def work() -> None:
        while True:
            for n, _ in enumerate(state.items("many:*")):
                if n == 10:
                    begun.release()

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
        begun.acquire()
    with writing(state, rng, daemon=True):
        sys.exit(3)


CASES = [
    Case(falls_off_the_end),
    Case(falls_off_the_end_and_waits_for_its_threads),
    Case(exits, 3),
    Case(exits_and_waits_for_its_threads, 3),
    Case(leaves_at_once, 4),
    Case(raises, 1, "RuntimeError: on purpose"),
    Case(raises_out_of_the_block_of_the_state, 1, "RuntimeError: on purpose"),
    Case(leaves_the_block_of_the_state),
    Case(closes),
    Case(is_interrupted, -signal.SIGINT, "KeyboardInterrupt"),
    Case(is_terminated, -signal.SIGTERM),
    Case(becomes_another_program),
    Case(writes_in_a_hook_of_the_exit, 3),
    Case(closes_in_a_hook_of_the_exit),
    Case(writes_in_a_finalizer),
    Case(keeps_the_state_in_a_global),
    Case(writes_when_a_global_is_destroyed),
    Case(writes_when_a_cycle_is_destroyed),
    Case(keeps_the_state_in_its_own_hook),
    Case(has_a_transaction_and_a_listing_open, 3),
    Case(exits_inside_of_transact, 3),
    Case(exits_inside_of_modify, 3),
    Case(leaves_at_once_inside_of_modify, 4),
    Case(exits_while_a_thread_waits_in_a_callback, 3),
    Case(exits_while_a_thread_waits_for_another_process, 3),
    Case(exits_while_threads_list, 3),
]
WRITES_LAST = {case.name for case in CASES if case.name.startswith(("writes_", "closes_in"))}


def run(directory: Path, seed: int, cases: list[Case]) -> dict[str, int]:
    acknowledged = []

    def judge(case: Case, ended: Ended) -> None:
        acknowledged.append(check_writes(ended.path, ended.lines))
        check(acknowledged[-1] > 0, "nothing was written")
        with State(ended.path) as state:
            check("never" not in state, "a write is there that was never committed")
            if case.name in WRITES_LAST and state.get("last") != ended.path.name:
                raise Failed("the write of the hook or finalizer is missing")

    run_all(cases, directory, seed, judge)
    return {"exits": len(cases), "acknowledged writes before an exit": sum(acknowledged)}

"""Forks in every state: in the child the parent's handles are refused and a new opening works, the parent goes on as if
nothing had happened, and both end in silence.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from llmspell_state import ForkedError, State
from python_common import LONGEST_SECONDS, Case, Ended, check, check_writes, run_all, say, writing

ADDED = 20
"""What a parent and each of its children add to one counter, one by one."""
FORKS = 5
"""How often to fork where the moment matters."""


def refused(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except ForkedError:
        return
    raise AssertionError(f"{what} was not refused in the child")


def refuse_all(state: State, *more: Callable[[], Any]) -> None:
    """Every verb on a handle of the parent."""
    verbs: list[Callable[[], Any]] = [
        lambda: state.get("known"),
        lambda: state["known"],
        lambda: state.entry("known"),
        lambda: state.get_many(["known"]),
        lambda: state.exists("known"),
        lambda: state.set("a", 1),
        lambda: state.set("a", 1, if_version=0),
        lambda: state.set_many({"a": 1}),
        lambda: state.delete("known"),
        lambda: state.clear("a*"),
        lambda: state.count(),
        lambda: list(state.keys()),
        lambda: list(state.items()),
        lambda: state.modify("a", lambda value: value),
        lambda: state.increment("a"),
        lambda: state.append("b", 1),
        lambda: state.merge("c", {}),
        lambda: state.pop("known", None),
        lambda: state.setdefault("known", 1),
        lambda: state.scope("s"),
        lambda: state.scopes(),
        lambda: state.begin(),
        lambda: state.transact(lambda tx: None),
        lambda: state.version,
        lambda: state.close(),
    ]
    for number, verb in enumerate([*verbs, *more]):
        refused(verb, f"call {number}")


def add(path: Path) -> None:
    with State(path) as own:
        for _ in range(ADDED):
            own.increment("added")


def in_turn(*calls: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def fork(rng: random.Random, work: Callable[[], None], parent: Callable[[], object] = lambda: None) -> None:
    """Runs one function in a child and another one in the parent meanwhile.

    The child ends there and then, or through all of the frames above and the end of the interpreter.
    """
    leaves_at_once = rng.random() < 0.3
    child = os.fork()
    if child == 0:
        try:
            work()
        except SystemExit:
            raise
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        if leaves_at_once:
            os._exit(0)
        raise SystemExit(0)
    say("forked")
    parent()
    end = time.monotonic() + LONGEST_SECONDS / 2
    while (waited := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGABRT)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.002)  # a wait for the child alone would not end if it hangs
    status = os.waitstatus_to_exitcode(waited[1])
    assert status == 0, f"the child ended with status {status}"


def opened(path: Path) -> State:
    state = State(path)
    state.update({"known": 1, "added": 0})
    return state


def finish(path: Path, state: State, children: int = 1) -> None:
    """The parent's handle still works, and everything that was added is there."""
    for _ in range(ADDED):
        state.increment("added")
    assert state["added"] == ADDED * (children + 1), state["added"]
    state.close()
    with State(path) as again:
        assert again["added"] == ADDED * (children + 1)
        assert again["known"] == 1 and "never" not in again


def while_open(path: Path, rng: random.Random) -> None:
    state = opened(path)
    state.scope("s")["k"] = 1
    scope = state.scope("s")

    def child() -> None:
        refuse_all(state, lambda: scope.get("k"), lambda: scope.scope("t"))
        add(path)

    fork(rng, child)
    finish(path, state)


def while_closed(path: Path, rng: random.Random) -> None:
    state = opened(path)
    state.close()
    fork(rng, lambda: add(path))
    finish(path, State(path))


def while_open_in_memory_and_exclusive(path: Path, rng: random.Random) -> None:
    memory, alone = State(), State(path.with_name("alone.db"), exclusive=True)
    memory["known"] = alone["known"] = 1

    def child() -> None:
        refuse_all(memory)
        refuse_all(alone)
        with State() as own:
            assert "known" not in own

    fork(rng, child)
    assert memory["known"] == alone["known"] == 1
    alone.close()


def inside_of_its_block(path: Path, rng: random.Random) -> None:
    with opened(path) as state:
        fork(rng, lambda: add(path))
        for _ in range(ADDED):
            state.increment("added")
    with State(path) as again:
        assert again["added"] == 2 * ADDED


def inside_of_the_block_of_a_transaction_that_a_thread_uses(path: Path, rng: random.Random) -> None:
    state, stop = opened(path), threading.Event()
    state.update({f"many:{n:05}": n for n in range(500)})
    with state.transaction() as tx:

        def work() -> None:
            while not stop.is_set():
                list(tx.keys())  # holds the transaction's lock for as long as it reads
                tx["mine"] = 1

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(FORKS):
                fork(rng, lambda: refused(lambda: tx.get("mine"), "a transaction"))
        finally:
            stop.set()
            if threading.current_thread() is threading.main_thread() and thread.is_alive():
                thread.join()
    assert state["mine"] == 1


def inside_of_a_transaction(path: Path, rng: random.Random) -> None:
    state = opened(path)
    with state.transaction() as tx:
        tx["mine"] = 1
        listing = iter(tx.items("know*"))
        next(listing)

        def child() -> None:
            verbs = (
                lambda: tx.get("known"),
                lambda: tx.set("never", 1),
                lambda: list(tx),
                tx.commit,
                lambda: tx["mine"],
            )
            for verb in verbs:
                refused(verb, "a verb of the transaction")
            refused(lambda: list(listing), "a listing of the transaction")
            with State(path) as own:
                assert "mine" not in own
            add(path)

        fork(rng, child)
    assert state["mine"] == 1
    finish(path, state)


def with_listings_half_way(path: Path, rng: random.Random) -> None:
    state = opened(path)
    state.update({f"many:{n:05}": n for n in range(2000)})
    listings = [iter(listing) for listing in (state.keys(), state.items(), state.values())]
    for listing in listings:
        next(listing)

    def child() -> None:
        for listing in listings:
            refused(partial(list, listing), "a listing")
        add(path)

    fork(rng, child)
    assert [len(list(listing)) for listing in listings] == [2001] * 3
    finish(path, state)


def while_another_thread_is_in_a_listing(path: Path, rng: random.Random) -> None:
    state = opened(path)
    state.update({f"many:{n:05}": "x" * 2000 for n in range(2000)})
    listing, stop = iter(state.values()), threading.Event()

    def work() -> None:
        nonlocal listing
        while not stop.is_set():
            if next(listing, None) is None:
                listing = iter(state.values())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            fork(rng, lambda: refused(lambda: list(listing), "a listing"))
    finally:
        stop.set()
    for thread in threads:
        thread.join()


def while_another_thread_is_in_a_transaction(path: Path, rng: random.Random) -> None:
    state, stop = opened(path), threading.Event()
    tx = state.begin()

    def work() -> None:
        n = 0
        while not stop.is_set():
            tx["own"] = n
            assert tx["own"] == n
            tx.count()
            n += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(FORKS):
            fork(rng, lambda: refused(lambda: tx.get("own"), "a transaction"))
    finally:
        stop.set()
    thread.join()
    tx.commit()
    state.close()


def inside_of_modify(path: Path, rng: random.Random) -> None:
    state = opened(path)

    def change(value: int) -> int:
        fork(rng, lambda: refuse_all(state))
        return value + 1

    assert state.modify("known", change) == 2
    state["known"] = 1
    fork(rng, lambda: add(path))
    finish(path, state)


def inside_of_modify_and_goes_on_in_the_child(path: Path, rng: random.Random) -> None:
    state = opened(path)
    pids = []

    def change(value: int) -> int:
        pids.append(os.fork())
        say("forked")
        return value + 1

    try:
        assert state.modify("known", change) == 2
    except ForkedError:
        assert pids[0] == 0
        os._exit(0)
    assert pids[0] != 0, "the child has written through a handle of the parent"
    assert os.waitpid(pids[0], 0)[1] == 0
    state["known"] = 1
    fork(rng, lambda: add(path))
    finish(path, state)


def inside_of_transact(path: Path, rng: random.Random) -> None:
    state = opened(path)

    def work(tx: Any) -> int:
        tx["mine"] = 1
        fork(rng, in_turn(lambda: refused(lambda: tx.get("mine"), "a transaction"), lambda: add(path)))
        return 7

    assert state.transact(work) == 7
    assert state["mine"] == 1
    finish(path, state)


def inside_of_a_hook(path: Path, rng: random.Random) -> None:
    def text(value: Any) -> str:
        fork(rng, lambda: add(path))
        return str(value)

    state = State(path, default=text)
    state.update({"known": 1, "added": 0})
    state["hooked"] = 1j
    assert state["hooked"] == "1j"
    finish(path, state)


def in_another_thread(path: Path, rng: random.Random) -> None:
    state = opened(path)
    thread = threading.Thread(
        target=fork, args=(random.Random(0), in_turn(lambda: refuse_all(state), lambda: add(path)))
    )
    thread.start()
    thread.join()
    finish(path, state)


def while_threads_write(path: Path, rng: random.Random) -> None:
    state = opened(path)
    with writing(state, rng, daemon=False) as stop:
        try:
            for _ in range(FORKS):
                fork(rng, in_turn(lambda: refuse_all(state), lambda: add(path)), lambda: state.get("known"))
        finally:
            stop.set()
        for _ in range(ADDED):
            state.increment("added")
    with State(path) as again:
        assert again["added"] == (FORKS + 1) * ADDED


def while_threads_open_and_close(path: Path, rng: random.Random) -> None:
    state, stop = opened(path), threading.Event()

    def work(other: Path) -> None:
        while not stop.is_set():
            with State(other) as own:
                own.increment("n")

    threads = [threading.Thread(target=work, args=(path.with_name(name),)) for name in ("agent.db", "other.db")]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            fork(rng, lambda: add(path), lambda: state.get("known"))
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    finish(path, state, FORKS)


def and_the_child_forks(path: Path, rng: random.Random) -> None:
    state = opened(path)

    def child() -> None:
        own = State(path)
        own["known"] = 1
        fork(rng, in_turn(lambda: refuse_all(state), lambda: refuse_all(own), lambda: add(path)))
        add(path)
        own.close()

    fork(rng, child)
    finish(path, state, 2)


def while_both_write(path: Path, rng: random.Random) -> None:
    state = opened(path)

    def parent() -> None:
        for n in range(100):
            state["parent"] = n

    fork(rng, in_turn(lambda: add(path), lambda: add(path)), parent)
    assert state["parent"] == 99
    finish(path, state, 2)


def and_the_child_drops_everything(path: Path, rng: random.Random) -> None:
    kept: dict[str, Any] = {"state": opened(path)}
    kept["scope"], kept["tx"] = kept["state"].scope("s"), kept["state"].begin()
    kept["tx"]["never"] = 1
    kept["listing"] = iter(kept["state"].items())
    next(kept["listing"])

    def child() -> None:
        kept.clear()
        gc.collect()
        add(path)

    fork(rng, child)
    kept["tx"].rollback()
    finish(path, kept["state"])


def process(path: Path) -> None:
    add(path)


def by_multiprocessing(path: Path, rng: random.Random) -> None:
    state = opened(path)
    processes = [
        multiprocessing.get_context("fork").Process(target=process, args=(path,)),
        multiprocessing.get_context("forkserver").Process(target=process, args=(path,)),
        multiprocessing.get_context("spawn").Process(target=process, args=(path,)),
    ]
    for one in processes:
        one.start()
        say("forked")
    for one in processes:
        one.join(LONGEST_SECONDS / 2)
    assert [one.exitcode for one in processes] == [0] * 3
    finish(path, state, 3)


CASES = [
    Case(case)
    for case in (
        while_open,
        while_closed,
        while_open_in_memory_and_exclusive,
        inside_of_its_block,
        inside_of_a_transaction,
        inside_of_the_block_of_a_transaction_that_a_thread_uses,
        with_listings_half_way,
        while_another_thread_is_in_a_listing,
        while_another_thread_is_in_a_transaction,
        inside_of_modify,
        inside_of_modify_and_goes_on_in_the_child,
        inside_of_transact,
        inside_of_a_hook,
        in_another_thread,
        while_threads_write,
        while_threads_open_and_close,
        and_the_child_forks,
        while_both_write,
        and_the_child_drops_everything,
        by_multiprocessing,
    )
]


def run(directory: Path, seed: int, cases: list[Case]) -> dict[str, int]:
    forks = []

    def judge(case: Case, ended: Ended) -> None:
        forks.append(sum(1 for line in ended.lines if line == "forked"))
        check(forks[-1] > 0, "nothing was forked")
        if any(line.startswith("write_") for line in ended.lines):
            check_writes(ended.path, ended.lines)

    run_all(cases, directory, seed, judge)
    return {"states at a fork": len(cases), "forks": sum(forks)}

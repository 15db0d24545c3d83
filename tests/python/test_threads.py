"""Many threads on one handle: nothing is lost, nothing deadlocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from llmspell_state import ConflictError, State

THREADS = 8
TIMES = 200


def together(work: Callable[[int], object]) -> list[object]:
    """Runs the work in every thread at once; an exception in one is one here."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> object:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_increments_are_exact(state: State):
    together(lambda _: [state.increment("n") for _ in range(TIMES)])
    assert state["n"] == THREADS * TIMES


def test_modify_is_exact(state: State):
    together(lambda _: [state.modify("n", lambda n: n + 1, default=0) for _ in range(TIMES // 4)])
    assert state["n"] == THREADS * (TIMES // 4)


def test_transact_is_exact(state: State):
    def add(tx):
        tx["n"] = tx.get("n", 0) + 1

    together(lambda _: [state.transact(add) for _ in range(TIMES // 4)])
    assert state["n"] == THREADS * (TIMES // 4)


def test_appends_are_all_there(state: State):
    together(lambda number: [state.append("l", [number, n]) for n in range(TIMES // 4)])
    assert sorted(state["l"]) == [[number, n] for number in range(THREADS) for n in range(TIMES // 4)]


def test_compare_and_set_has_exactly_one_winner(state: State):
    def try_to_win(number: int) -> int:
        try:
            state.set("k", number, if_version=0)
        except ConflictError:
            return 0
        return 1

    for _ in range(20):
        assert sum(together(try_to_win)) == 1
        del state["k"]


def test_setdefault_and_pop_have_exactly_one_winner(state: State):
    for _ in range(20):
        assert len({str(value) for value in together(lambda number: state.setdefault("k", [number]))}) == 1
        taken = together(lambda _: state.pop("k", None))
        assert len([value for value in taken if value is not None]) == 1


def test_popitem_gives_every_item_once(state: State):
    state.update({f"k{n}": n for n in range(40)})

    def drain(_: int) -> list[int]:
        taken = []
        while True:
            try:
                taken.append(state.popitem()[1])
            except KeyError:
                return taken

    assert sorted(n for taken in together(drain) for n in taken) == list(range(40))


def test_a_reader_never_sees_half_a_commit(state: State):
    state.update(a=0, b=0)
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            state.set_many({"a": n, "b": n})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            found = state.get_many(["a", "b"])
            assert found["a"] == found["b"]
            listed = dict(state.items("[ab]"))
            assert listed["a"] == listed["b"]
            with state.transaction() as tx:
                assert tx["a"] == tx["b"]
    finally:
        stop.set()
        writer.join()


def test_one_iterator_may_be_shared(state: State):
    state.update({f"k{n}": n for n in range(2000)})
    shared = iter(state.keys())
    lists = together(lambda _: list(shared))
    assert sorted(key for keys in lists for key in keys) == sorted(f"k{n}" for n in range(2000))


def test_a_callback_may_wait_for_another_thread_that_writes(state: State):
    """A lock of the core held while Python runs would deadlock here."""

    def wait_for_a_writer(value: object) -> object:
        writer = threading.Thread(target=lambda: state.set("other", 1))
        writer.start()
        writer.join(timeout=30)
        assert not writer.is_alive()
        return 1

    assert state.modify("k", wait_for_a_writer) == 1
    state.transact(lambda tx: tx.set("k", wait_for_a_writer(None)))
    assert dict(state) == {"k": 1, "other": 1}


@pytest.mark.parametrize("close_first", [True, False])
def test_closing_while_others_work_ends_their_work_with_closed(state: State, close_first: bool):
    errors = []

    def work(_: int) -> None:
        try:
            for _round in range(10_000):
                state.increment("n") if close_first else state.get("n")
        except Exception as error:
            errors.append(type(error).__name__)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    if close_first:
        state.increment("n")
        state.close()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert set(errors) <= {"ClosedError"}
    assert bool(errors) == close_first

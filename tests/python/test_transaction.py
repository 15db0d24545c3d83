"""Transactions: all or nothing, over one snapshot, never a lost update."""

from __future__ import annotations

import gc

import pytest
from llmspell_state import ClosedError, ConflictError, InvalidError, QuotaExceededError, State


def test_a_block_commits_at_its_end(state: State):
    with state.transaction() as tx:
        tx["a"] = 1
        assert tx["a"] == 1
        assert "a" not in state
        assert tx.active
    assert state["a"] == 1
    assert not tx.active


def test_an_exception_rolls_back_and_goes_on(state: State):
    with pytest.raises(ZeroDivisionError):
        with state.transaction() as tx:
            tx["a"] = 1
            tx["b"] = 1 / 0
    assert "a" not in state
    assert not tx.active


def test_a_block_may_end_its_transaction_itself(state: State):
    with state.transaction() as tx:
        tx["a"] = 1
        tx.rollback()
    assert "a" not in state
    with state.transaction() as tx:
        tx["a"] = 1
        version = tx.commit()
    assert state.entry("a").version == version


def test_a_block_cannot_be_entered_with_a_transaction_that_has_ended(state: State):
    for how in ("commit", "rollback"):
        tx = state.begin()
        getattr(tx, how)()
        with pytest.raises(ClosedError, match="this transaction was"):
            with tx:
                pytest.fail("entered")
    tx = state.begin()
    state.close()
    with pytest.raises(ClosedError, match="this state is closed"):
        with tx:
            pytest.fail("entered")
    with pytest.raises(ClosedError, match="this state is closed"):
        with state:
            pytest.fail("entered")


def test_begin_commit_and_rollback_are_there_without_a_block(state: State):
    tx = state.begin()
    tx["a"] = 1
    tx.commit()
    tx = state.begin()
    del tx["a"]
    tx.rollback()
    assert state["a"] == 1


def test_an_ended_transaction_refuses_everything(state: State):
    tx = state.begin()
    tx["a"] = 1
    tx.commit()
    for call in (
        lambda: tx.get("a"),
        lambda: tx.set("a", 2),
        lambda: tx.delete("a"),
        lambda: list(tx),
        lambda: tx.count(),
        lambda: tx.increment("n"),
        lambda: tx.commit(),
        lambda: tx.rollback(),
        lambda: tx.scope("s").get("a"),
    ):
        with pytest.raises(ClosedError):
            call()
    assert state["a"] == 1


def test_a_dropped_transaction_leaves_nothing(state: State):
    tx = state.begin()
    tx["a"] = 1
    del tx
    gc.collect()
    state["b"] = 1
    assert dict(state) == {"b": 1}


def test_a_read_modify_write_across_two_transactions_is_a_conflict(state: State):
    state["balance"] = 100
    one, two = state.begin(), state.begin()
    one["balance"] -= 10
    two["balance"] -= 20
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()
    assert state["balance"] == 90


def test_a_conflict_at_the_end_of_a_block_reaches_the_caller(state: State):
    state["k"] = 1
    with pytest.raises(ConflictError):
        with state.transaction() as tx:
            tx["k"] += 1
            state["k"] = 5
    assert state["k"] == 5


def test_reads_are_of_one_moment(state: State):
    state.update(a=1, b=1)
    with state.transaction() as tx:
        assert tx["a"] == 1
        state.update(a=2, b=2, c=2)
        assert tx["b"] == 1
        assert dict(tx) == {"a": 1, "b": 1}
        assert tx.count() == 2


def test_listings_see_the_transaction_s_own_writes(state: State):
    state.update(a=1, b=2, c=3)
    with state.transaction() as tx:
        tx["bb"] = 4
        del tx["a"]
        tx["c"] = 5
        assert list(tx.items()) == [("b", 2), ("bb", 4), ("c", 5)]
        assert list(tx.keys(reverse=True)) == ["c", "bb", "b"]
        assert len(tx) == 3


def test_transact_runs_again_until_it_is_not_disturbed(state: State):
    runs = []

    def add(tx):
        runs.append(tx.get("n", 0))
        if len(runs) < 3:
            state.increment("n", 10)
        tx["n"] = runs[-1] + 1
        return "done"

    assert state.transact(add) == "done"
    assert runs == [0, 10, 20]
    assert state["n"] == 21


def test_transact_gives_up_after_its_attempts(state: State):
    runs = []

    def disturbed(tx):
        runs.append(tx.get("n"))
        state.increment("n")
        tx["n"] = 0

    with pytest.raises(ConflictError):
        state.transact(disturbed, attempts=3)
    assert len(runs) == 3
    for attempts in (0, -1, 2**32, 1.5, "3", True):
        with pytest.raises(InvalidError, match="attempts"):
            state.transact(disturbed, attempts=attempts)


def test_an_exception_in_transact_rolls_back(state: State):
    def interrupted(tx):
        tx["a"] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state.transact(interrupted)
    with pytest.raises(InvalidError):
        state.transact(lambda tx: tx.set("a", object()))
    assert len(state) == 0


def test_a_transaction_of_a_scope_is_of_that_scope(state: State):
    with state.scope("s").transaction() as tx:
        tx["k"] = 1
    assert "k" not in state
    assert state.scope("s")["k"] == 1


def test_a_transaction_may_be_used_inside_another(state: State):
    with state.transaction() as outer:
        outer["a"] = 1
        with state.transaction() as inner:
            inner["b"] = 2
            assert "a" not in inner
        assert state["b"] == 2
    assert dict(state) == {"a": 1, "b": 2}


def test_every_verb_works_in_a_transaction(state: State):
    state.update(n=1, l=[1], m={"a": 1}, k="v")
    with state.transaction() as tx:
        assert tx.increment("n", 2) == 3
        assert tx.append("l", 2) == 2
        assert tx.merge("m", {"b": 2}) == {"a": 1, "b": 2}
        assert tx.modify("k", str.upper) == "V"
        assert tx.pop("k") == "V"
        assert tx.setdefault("d", [0]) == [0]
        assert tx.get_many(["n", "k", "d"]) == {"n": 3, "d": [0]}
        assert tx.entry("n").value == 3
        assert tx.exists("n") and not tx.exists("k")
        assert tx.set("c", 1, if_version=0) is None
        with pytest.raises(ConflictError):
            tx.set("c", 1, if_version=77)
        assert tx.delete("c") and not tx.delete("c")
        assert tx.clear("[ln]") == 2
    assert dict(state) == {"d": [0], "m": {"a": 1, "b": 2}}


def test_too_many_changes_are_refused_before_anything_is_written(state: State):
    with pytest.raises(QuotaExceededError):
        with state.transaction() as tx:
            tx.set_many({f"k{n}": n for n in range(100_001)})
    with pytest.raises(QuotaExceededError):
        state.set_many({f"k{n}": n for n in range(100_001)})
    assert len(state) == 0


def test_writing_while_iterating_ends(state: State):
    state.update({f"k{n}": n for n in range(600)})
    for key, value in state.items():
        state[key + "+"] = value
        state.delete(key)
    assert len(state) == 600
    assert all(key.endswith("+") for key in state)

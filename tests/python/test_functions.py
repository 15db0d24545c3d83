"""Functions given as arguments: what is not one, and what would run too late, is refused in words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from llmspell_state import InvalidTypeError, State, Transaction


async def coroutine(*_: Any) -> int:
    return 1


async def generator(*_: Any) -> AsyncIterator[int]:
    yield 1


class Callee:
    async def __call__(self, _: Any) -> int:
        return 1


CALLS: list[Callable[[State, Any], Any]] = [
    lambda state, fn: state.transact(fn),
    lambda state, fn: state.modify("a", fn),
    lambda state, fn: state.begin().modify("a", fn),
    lambda state, fn: state.scope("s").transact(fn),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fn", [coroutine, generator, Callee(), partial(coroutine, 1), lambda _: coroutine()])
def test_an_async_function_is_refused_and_changes_nothing(state: State, call: Any, fn: Any) -> None:
    with pytest.raises(InvalidTypeError, match="fn takes a plain function, not an async one"):
        call(state, fn)
    assert len(state) == 0


def later(tx: Any) -> Iterator[None]:
    tx.set("a", 1)
    yield


@pytest.mark.parametrize("fn", [later, lambda tx: later(tx), lambda tx: (tx.set("a", n) for n in range(3))])
def test_a_transaction_that_is_a_generator_is_refused_and_changes_nothing(state: State, fn: Any) -> None:
    def writes(tx: Transaction) -> Any:
        tx["b"] = 1
        return fn(tx)

    for each in (fn, writes):
        with pytest.raises(InvalidTypeError, match="fn takes a plain function, not a generator"):
            state.transact(each)
    assert len(state) == 0


@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_called_is_refused_by_the_name_of_the_argument(state: State, call: Any) -> None:
    for fn in (5, None, "print"):
        with pytest.raises(InvalidTypeError, match=f"fn takes a function, not {type(fn).__name__}"):
            call(state, fn)


def test_a_hook_that_cannot_be_called_is_refused_at_once(state: State) -> None:
    with pytest.raises(InvalidTypeError, match="default takes a function, not int"):
        State(default=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="default takes a function, not int"):
        state.set("a", 1, default=5)  # type: ignore[arg-type]


def test_a_flag_of_another_type_is_refused_by_its_name(state: State) -> None:
    for listing in (state.keys, state.items, state.values, state.begin().keys):
        with pytest.raises(InvalidTypeError, match="reverse takes a bool, not str"):
            list(listing(reverse="x"))  # type: ignore[arg-type]


def test_what_an_iterable_of_keys_raises_is_raised(state: State) -> None:
    class Keys:
        def __iter__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state.get_many(Keys())
    with pytest.raises(ZeroDivisionError):
        state.get_many(str(1 // n) for n in range(1))


def test_a_number_of_attempts_is_refused_with_the_range_that_it_has(state: State) -> None:
    for attempts in (-1, 0, 2**32):
        with pytest.raises(ValueError, match=rf"attempts takes an int from 1 to 2\*\*32 - 1, not {attempts}"):
            state.transact(lambda tx: None, attempts=attempts)


def test_a_transaction_in_a_callback_is_of_the_public_class(state: State) -> None:
    state.transact(lambda tx: tx.scope("a").set("k", type(tx).__name__))
    assert state.scope("a")["k"] == "Transaction"
    assert state.transact(lambda tx: isinstance(tx, Transaction))

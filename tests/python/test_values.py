"""What can be stored reads back the same; what cannot is refused with its path, and nothing is stored."""

from __future__ import annotations

import datetime
import enum
import math
import mmap
import sys
import threading
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TypedDict

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmspell_state import InvalidError, QuotaExceededError, State

INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"))
LEAVES = st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS | st.binary()
NAMES = TEXTS | st.sampled_from(["$binary", "$$binary", "$", ""])
VALUES = st.recursive(LEAVES, lambda part: st.lists(part) | st.dictionaries(NAMES, part), max_leaves=30)


def exact(value: object) -> object:
    """Tells apart what Python calls equal: 1, 1.0 and True, 0.0 and -0.0, the order of members."""
    if isinstance(value, dict):
        return [(name, exact(member)) for name, member in value.items()]
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value), repr(value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_every_value_reads_back_exactly(value):
    with State() as state:
        state["k"] = value
        for _ in range(4):  # parsed, made a template, copied
            assert exact(state["k"]) == exact(value)
        assert exact(state.scope("s").modify("k", lambda _: value)) == exact(value)


def test_every_value_reads_back_from_a_file(path):
    values = {
        "none": None,
        "bools": [True, False],
        "ints": [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)],
        "floats": [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, sys.float_info.max, 1e16, 123456789012345680.0],
        "texts": ["", "é", "😀", "\0", "\x1f", "\u2028", '"\\/', "a" * 100_000],
        "bytes": [b"", b"\0\xff", bytes(range(256)) * 100],
        "names": {"": 1, "$binary": "x", "$$binary": [b"y"], "é": {"\n": 2}},
        "empty": [[], {}],
    }
    with State(path) as state:
        state.set_many(values)
    with State(path) as state:
        assert exact(dict(state)) == exact({key: values[key] for key in sorted(values)})


def test_order_of_members_is_kept(state):
    state["k"] = {"z": 1, "a": 2, "m": 3}
    assert list(state["k"]) == ["z", "a", "m"]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


class Shade(str, enum.Enum):
    DARK = "dark"


class Odd(str):
    """Equal text that a dict takes for another key."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 5


@dataclass
class Step:
    name: str
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Slotted:
    inner: Step


class Model(pydantic.BaseModel):
    at: datetime.datetime
    steps: list[int] = []


class Movie(TypedDict):
    title: str


Point = namedtuple("Point", "x y")
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Shade.DARK, "dark"),
        (Name("x"), "x"),
        (type("Int", (int,), {})(5), 5),
        (type("Float", (float,), {})(5.5), 5.5),
        (type("Bytes", (bytes,), {})(b"b"), b"b"),
        (type("List", (list,), {})([1]), [1]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (UserDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"b": 2, "a": 1}),
        ({Name("a"): 1, Shade.DARK: 2}, {"a": 1, "dark": 2}),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), "2026-01-02T03:04:05+00:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4, 5, 6), "03:04:05.000006"),
        (ID, str(ID)),
        (Step("a", ["t"]), {"name": "a", "tags": ["t"]}),
        (Slotted(Step("a")), {"inner": {"name": "a", "tags": []}}),
        (Movie(title="t"), {"title": "t"}),
        (Model(at=datetime.datetime(2026, 1, 2), steps=[1]), {"at": "2026-01-02T00:00:00", "steps": [1]}),
        ([{"deep": (Colour.RED,)}], [{"deep": ["red"]}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_richer_types_are_stored_as_plain_ones(state, given, stored):
    state["k"] = given
    assert exact(state["k"]) == exact(stored)


def test_an_ordered_dict_is_stored_in_its_own_order(state):
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    state["k"] = ordered
    assert list(state["k"]) == ["b", "a"]


def cycle() -> object:
    inner: dict[str, object] = {}
    inner["self"] = [inner]
    return inner


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"\$: NaN"),
        ({"a": [math.inf]}, r"\$\.a\[0\]: inf"),
        (2**63, r"signed 64-bit"),
        ({"x": -(2**63) - 1}, r"\$\.x: .*signed 64-bit"),
        (10**5000, r"signed 64-bit"),
        ("\ud800", r"lone surrogate"),
        ({"a": ["\udfff"]}, r"\$\.a\[0\]: .*lone surrogate"),
        ({"\ud800": 1}, r"lone surrogate"),
        (cycle(), r"cycle"),
        (nested(10_000), r"128"),
        ({1: "a"}, r"name must be a str, not int"),
        ({"a": {None: 1}}, r"\$\.a: .*not NoneType"),
        ({"red": 1, Name("x"): 2, Colour.RED: 3}, r"not Colour"),
        ({"dark": 1, Odd("dark"): 2}, r"two members have the name \"dark\""),
        ({"steps": [0, 1, 2, {"when": Decimal("1.5")}]}, r"\$\.steps\[3\]\.when: decimal\.Decimal cannot be stored"),
        ({1, 2}, r"set cannot be stored"),
        (object(), r"object cannot be stored"),
        (len, r"builtin_function_or_method"),
        (int, r"type cannot be stored"),
        (Step, r"type cannot be stored"),
        (1j, r"complex"),
        (datetime.timedelta(1), r"timedelta"),
        (range(3), r"range"),
        ([1, iter([])], r"\$\[1\]: list_iterator"),
        (Step("a", {"x": object()}), r"\$\.tags\.x: object"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_stored_is_refused_with_its_path(state, value, message):
    state["k"] = "before"
    for attempt in (
        lambda: state.set("k", value),
        lambda: state.set_many({"k": value}),
        lambda: state.append("list", value),
        lambda: state.merge("k", {"m": value}),
        lambda: state.modify("k", lambda _: value),
        lambda: state.setdefault("other", value),
        lambda: state.transact(lambda tx: tx.set("k", value)),
    ):
        with pytest.raises(InvalidError) as refused:
            attempt()
        assert refused.type is InvalidError
    with pytest.raises(InvalidError, match=message):
        state["k"] = value
    assert dict(state) == {"k": "before"}


class NumpyLike:
    """Shaped like a numpy scalar: convertible, but not a number by class."""

    def __int__(self) -> int:
        return 5

    __index__ = __int__

    def __float__(self) -> float:
        return 5.0


def test_a_number_by_conversion_only_is_not_a_number(state):
    with pytest.raises(InvalidError, match="NumpyLike cannot be stored"):
        state["k"] = NumpyLike()


def test_depth_is_bounded_at_128(state):
    state["k"] = nested(128)
    assert state["k"] == nested(128)
    with pytest.raises(InvalidError, match="128"):
        state["k"] = nested(129)


def test_a_value_that_is_too_long_is_refused_before_it_is_copied():
    with State(max_value_bytes=1000) as state:
        state["k"] = "a" * 998
        huge = memoryview(mmap.mmap(-1, 2**32))  # nobody has touched it: a copy would need the memory
        for value in ("a" * 999, b"a" * 800, bytearray(1000), huge, ["abcdefgh"] * 100, list(range(1000))):
            with pytest.raises(QuotaExceededError, match="max_value_bytes"):
                state["k"] = value
        assert state["k"] == "a" * 998


def test_the_hook_turns_what_cannot_be_stored_into_what_can():
    with State(default=str) as state:
        state["k"] = [Decimal("1.5"), {"d": Decimal(2)}]
        assert state["k"] == ["1.5", {"d": "2"}]
        state.scope("s").transact(lambda tx: tx.set("k", Decimal(3)))
        assert state.scope("s")["k"] == "3"
        state.set("k", {1, 2}, default=sorted)
        assert state["k"] == [1, 2]


def test_the_hook_may_return_what_needs_it_again(state):
    state.set("k", Decimal(1), default=lambda value: {value} if isinstance(value, Decimal) else [int(*value)])
    assert state["k"] == [1]


def test_a_hook_that_never_ends_is_an_error(state):
    with pytest.raises(InvalidError, match="keeps returning"):
        state.set("k", object(), default=lambda value: value)


def test_an_error_in_the_hook_reaches_the_caller(state):
    with pytest.raises(ZeroDivisionError):
        state.set("k", object(), default=lambda value: 1 / 0)
    assert "k" not in state


def test_a_hook_may_use_the_store(state):
    state.set("k", [object()], default=lambda value: state.increment("n"))
    assert state["k"] == [1]


@pytest.mark.parametrize("change", ["grow", "shrink", "replace"])
@pytest.mark.parametrize("kind", [list, dict])
def test_a_container_changed_while_it_is_written_is_an_error_or_a_whole_value(state, kind, change):
    container = [object(), 1, 2] if kind is list else {"a": object(), "b": 1, "c": 2}

    def hook(_: object) -> int:
        if change == "shrink":
            container.pop() if kind is list else container.popitem()
        elif change == "grow":
            container.extend([3] * 100) if kind is list else container.update({str(n): n for n in range(100)})
        elif kind is dict:
            del container["c"]
            container["d"] = 3
        return 0

    try:
        state.set("k", container, default=hook)
    except InvalidError as error:
        assert "changed while" in str(error)
        assert "k" not in state
    else:
        assert len(state["k"]) == 3


def test_threads_that_change_a_value_while_it_is_written_crash_nothing(state):
    shared: dict[str, object] = {"list": [], "day": datetime.date(2026, 1, 1)}
    stop = threading.Event()

    def change() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            shared[f"k{n % 50}"] = datetime.date(2026, 1, 1)
            shared.pop(f"k{(n + 25) % 50}", None)
            shared["list"] = [datetime.date(2026, 1, 1)] * (n % 20)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(300):
            try:
                state["k"] = shared
            except InvalidError as error:
                assert "changed while" in str(error)
            else:
                assert isinstance(state["k"], dict)
    finally:
        stop.set()
        changer.join()


def test_an_error_from_within_a_value_reaches_the_caller(state):
    class Broken(UserDict):
        def __iter__(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state["k"] = [Broken(a=1)]
    assert "k" not in state


def test_a_value_is_a_copy_of_what_was_given(state):
    value = {"list": [1]}
    state["k"] = value
    value["list"].append(2)
    assert state["k"] == {"list": [1]}

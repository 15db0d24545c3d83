"""Every kind of error has its class, and the class is what Python's users expect to catch."""

from __future__ import annotations

import inspect
import subprocess
import sys

import llmspell_state
import pytest
from llmspell_state import (
    BusyError,
    ConflictError,
    DiskFullError,
    ErrorKind,
    InvalidError,
    InvalidTypeError,
    NotFoundError,
    PermissionDeniedError,
    State,
    StateError,
    StateIOError,
    UnknownFormatError,
)

CLASSES = [
    member
    for _, member in inspect.getmembers(llmspell_state, inspect.isclass)
    if issubclass(member, StateError) and member is not StateError
]


def test_every_kind_has_exactly_one_class_of_its_own():
    own = [error for error in CLASSES if StateError in error.__bases__]
    assert sorted(error.kind for error in own) == sorted(ErrorKind)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_can_be_made_caught_and_shown(error):
    made = error("the message")
    assert str(made) == "the message"
    assert isinstance(made, StateError)
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidError, ValueError),
        (InvalidTypeError, TypeError),
        (PermissionDeniedError, PermissionError),
        (BusyError, TimeoutError),
        (NotFoundError, FileNotFoundError),
        (NotFoundError, LookupError),
        (DiskFullError, OSError),
        (StateIOError, OSError),
    ],
)
def test_an_error_is_also_the_builtin_that_users_expect(error, builtin):
    assert issubclass(error, builtin)


def test_a_kind_is_its_plain_name():
    assert ConflictError.kind == "Conflict"
    assert f"{ConflictError.kind} {ConflictError.kind!s}" == "Conflict Conflict"
    assert ErrorKind("Io") is StateIOError.kind


def raises_invalid(path):
    State()[""] = 1


def raises_conflict(path):
    State().set("k", 1, if_version=1)


def raises_quota_exceeded(path):
    State(max_value_bytes=1)["k"] = 10


def raises_busy(path):
    holder = "import sys, llmspell_state as l; s = l.State(sys.argv[1], exclusive=True); print(flush=True); input()"
    command = [sys.executable, "-c", holder, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            State(path, busy_timeout_ms=1)
        finally:
            process.communicate(b"\n")


def raises_closed(path):
    state = State()
    state.close()
    state.get("k")


def raises_not_found(path):
    State(path, create=False)


def raises_unknown_format(path):
    path.write_bytes(b"not a store, but long enough to be taken for something " * 100)
    State(path)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (raises_invalid, "Invalid"),
        (raises_conflict, "Conflict"),
        (raises_quota_exceeded, "QuotaExceeded"),
        (raises_busy, "Busy"),
        (raises_closed, "Closed"),
        (raises_not_found, "NotFound"),
        (raises_unknown_format, "UnknownFormat"),
    ],
)
def test_the_core_s_errors_arrive_as_their_class(path, call, kind):
    with pytest.raises(StateError) as raised:
        call(path)
    assert raised.value.kind == kind
    assert type(raised.value).__name__ == kind + "Error"


def test_a_cause_below_is_kept_as_the_cause(path):
    path.write_bytes(b"SQLite format 3\0" + bytes(4096))
    with pytest.raises(UnknownFormatError) as raised:
        State(path)
    assert raised.value.__cause__ is None or str(raised.value.__cause__)

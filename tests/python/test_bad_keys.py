"""Keys and patterns that break a rule are named; those that only look dangerous are plain data."""

from __future__ import annotations

import pytest
from llmspell_state import InvalidError, State


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "empty"),
        ("k" * 1025, "1025.*1024"),
        ("é" * 513, "1026.*1024"),
        ("a\0b", "x00"),
        ("a\nb", "x0a"),
        ("a\x7f", "x7f"),
        ("__reserved", "reserved"),
        ("\ud800", "lone surrogate"),
        ("a\udfffb", "lone surrogate"),
    ],
)
def test_a_key_that_breaks_a_rule_is_refused_by_every_verb(state: State, key, message):
    for call in (
        lambda: state.get(key),
        lambda: state[key],
        lambda: state.set(key, 1),
        lambda: state.set_many({"ok": 1, key: 1}),
        lambda: state.get_many(["ok", key]),
        lambda: state.delete(key),
        lambda: state.exists(key),
        lambda: state.entry(key),
        lambda: state.increment(key),
        lambda: state.append(key, 1),
        lambda: state.merge(key, {}),
        lambda: state.modify(key, lambda value: value),
        lambda: state.pop(key, None),
        lambda: state.setdefault(key, 1),
        lambda: state.transact(lambda tx: tx.set(key, 1)),
    ):
        with pytest.raises(InvalidError, match=message):
            call()
    assert len(state) == 0


HARMLESS = [
    "../../etc/passwd",
    "a//b",
    "/",
    "a/",
    "./.",
    "a::b",
    "*",
    "100%",
    "x_y",
    "[",
    "\\",
    "'; DROP TABLE entry; --",
    '"quoted"',
    "Ключ",
    "caf\u00e9",
    "cafe\u0301",
    "KEY",
    "key",
    "_one",
    " ",
    "a b",
    "\u2028",
    "\U0010ffff",
    "k" * 1024,
]


def test_keys_that_look_dangerous_are_plain_data(state: State):
    state.set_many({key: n for n, key in enumerate(HARMLESS)})
    assert len(state) == len(HARMLESS)
    for n, key in enumerate(HARMLESS):
        assert state[key] == n
    assert list(state) == sorted(HARMLESS, key=lambda key: key.encode())


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "empty"),
        ("[", "not closed"),
        ("[z-a]", "backwards"),
        ("a\\", "ends with"),
        ("*" * 10_000, "10000.*4096"),
        ("\ud800", "lone surrogate"),
    ],
)
def test_a_pattern_that_breaks_a_rule_is_refused_by_every_verb(state: State, pattern, message):
    state["k"] = 1
    for call in (
        lambda: list(state.keys(pattern)),
        lambda: list(state.items(pattern)),
        lambda: list(state.values(pattern)),
        lambda: state.count(pattern),
        lambda: state.clear(pattern),
        lambda: state.transact(lambda tx: tx.clear(pattern)),
    ):
        with pytest.raises(InvalidError, match=message):
            call()
    assert len(state) == 1


def test_a_hostile_pattern_is_answered_at_once(state: State):
    state["a" * 1000] = 1
    assert state.count("*a" * 2000 + "b") == 0
    assert state.count("{a,b") == 0


def test_a_pattern_reaches_no_other_scope(state: State):
    state.scope("a")["k"] = 1
    state.scope("b")["k"] = 1
    for pattern in ("*", "../*", "*::*", "a*", "*k*"):
        assert state.count(pattern) == 0
        assert state.scope("a").count(pattern) == (pattern in ("*", "*k*"))


@pytest.mark.parametrize("pattern", [None, 1, b"*", ["*"]])
def test_a_pattern_that_is_no_str_is_a_type_error(state: State, pattern):
    with pytest.raises(TypeError, match="pattern takes a str"):
        state.count(pattern)


@pytest.mark.parametrize("name", ["", "n" * 257, "__x", "a\0", "\ud800", 5, None])
def test_a_scope_name_that_breaks_a_rule_is_refused(state: State, name):
    with pytest.raises(InvalidError):
        state.scope(name)


@pytest.mark.parametrize("limit", [-1, 2**64, 1.0, True, "1"])
def test_a_limit_that_is_no_count_is_refused(state: State, limit):
    with pytest.raises(InvalidError, match="limit"):
        list(state.keys(limit=limit))


@pytest.mark.parametrize("version", [-1, 2**64, 1.0, True, "1"])
def test_a_version_that_is_none_is_refused(state: State, version):
    with pytest.raises(InvalidError, match="if_version"):
        state.set("k", 1, if_version=version)
    with pytest.raises(InvalidError, match="if_version"):
        state.delete("k", if_version=version)
    assert "k" not in state

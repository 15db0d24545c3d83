"""Any sequence of verbs, with reopening in between, leaves what the same sequence leaves in a dict."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from llmspell_state import MISSING, ConflictError, InvalidError, Scope, State, Transaction

KEYS = st.sampled_from(["a", "b", "b:1", "b:2", "é", "z"])
SCOPES = st.sampled_from(["", "s", "t"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-1, 1)
    | st.text("ab", max_size=2)
    | st.binary(max_size=2),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text("ab$", max_size=2), part, max_size=3),
    max_leaves=5,
)


def sorted_keys(model: dict[str, object]) -> list[str]:
    return sorted(model, key=lambda key: key.encode())


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Model(RuleBasedStateMachine):
    @initialize(cache=st.sampled_from([0, 64]), compression=st.booleans())
    def open(self, cache: int, compression: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.options = {"sync_mode": "OFF", "cache_size_mb": cache, "enable_compression": compression}
        self.path = Path(self.folder.name, "agent.db")
        self.state = State(self.path, **self.options)
        self.models: dict[str, dict[str, object]] = {"": {}, "s": {}, "t": {}}
        self.version = 0
        self.moments = [(0, copy.deepcopy(self.models))]
        self.runs = 0

    def handle(self, scope: str) -> Scope:
        return self.state.scope(scope) if scope else self.state

    @rule(scope=SCOPES, key=KEYS, value=VALUES)
    def set(self, scope, key, value):
        self.models[scope][key] = value
        version = self.handle(scope).set(key, value)
        assert version > self.version
        self.version = version

    @rule(scope=SCOPES, members=st.dictionaries(KEYS, VALUES))
    def update(self, scope, members):
        self.models[scope].update(members)
        self.handle(scope).update(members)

    @rule(scope=SCOPES, key=KEYS)
    def delete(self, scope, key):
        there = key in self.models[scope]
        self.models[scope].pop(key, None)
        assert self.handle(scope).delete(key) == there

    @rule(scope=SCOPES, key=KEYS, value=VALUES)
    def setdefault(self, scope, key, value):
        assert self.handle(scope).setdefault(key, value) == self.models[scope].setdefault(key, value)

    @rule(scope=SCOPES, key=KEYS)
    def pop(self, scope, key):
        assert self.handle(scope).pop(key, "none") == self.models[scope].pop(key, "none")

    @rule(scope=SCOPES)
    def clear(self, scope):
        gone = [key for key in self.models[scope] if key.startswith("b")]
        for key in gone:
            del self.models[scope][key]
        assert self.handle(scope).clear("b*") == len(gone)

    @rule(scope=SCOPES, key=KEYS, by=st.integers(-3, 3) | st.floats(-1, 1))
    def increment(self, scope, key, by):
        model = self.models[scope]
        if key in model and not is_number(model[key]):
            with pytest.raises(InvalidError):
                self.handle(scope).increment(key, by)
            return
        model[key] = model.get(key, 0) + by
        assert self.handle(scope).increment(key, by) == model[key]

    @rule(scope=SCOPES, key=KEYS, value=VALUES)
    def append(self, scope, key, value):
        model = self.models[scope]
        if not isinstance(model.get(key, []), list):
            with pytest.raises(InvalidError):
                self.handle(scope).append(key, value)
            return
        model[key] = [*model.get(key, []), value]
        assert self.handle(scope).append(key, value) == len(model[key])

    @rule(scope=SCOPES, key=KEYS, value=VALUES)
    def modify(self, scope, key, value):
        model = self.models[scope]
        model[key] = [model.get(key, "default"), value]
        assert self.handle(scope).modify(key, lambda old: [old, value], "default") == model[key]

    @rule(scope=SCOPES, key=KEYS, value=VALUES, right=st.booleans())
    def compare_and_set(self, scope, key, value, right):
        handle = self.handle(scope)
        entry = handle.entry(key)
        version = entry.version if entry else 0
        if right:
            handle.set(key, value, if_version=version)
            self.models[scope][key] = value
        else:
            with pytest.raises(ConflictError):
                handle.set(key, value, if_version=version + 1)

    @rule(scope=SCOPES, members=st.dictionaries(KEYS, VALUES), gone=st.sets(KEYS), commit=st.booleans())
    def transaction(self, scope, members, gone, commit):
        after = {**self.models[scope], **members}
        tx: Transaction = self.handle(scope).begin()
        tx.update(members)
        for key in gone:
            assert tx.delete(key) == (key in after)
            after.pop(key, None)
        assert dict(tx) == after
        assert list(tx) == sorted_keys(after)
        if commit:
            tx.commit()
            self.models[scope] = after
        else:
            tx.rollback()

    @rule(scope=SCOPES, after=st.none() | KEYS, limit=st.none() | st.integers(0, 4), reverse=st.booleans())
    def page(self, scope, after, limit, reverse):
        keys = sorted_keys(self.models[scope])
        if reverse:
            keys.reverse()
        if after is not None:
            mark = after.encode()
            keys = [key for key in keys if (key.encode() < mark if reverse else key.encode() > mark)]
        expected = keys[:limit]
        listing = self.handle(scope).items(after=after, limit=limit, reverse=reverse)
        assert list(listing) == [(key, self.models[scope][key]) for key in expected]
        assert len(listing) == len(expected)

    @rule()
    def remember(self):
        self.moments.append((self.state.version, copy.deepcopy(self.models)))

    @rule(scope=SCOPES, pick=st.integers(0))
    def look_back(self, scope, pick):
        version, then = self.moments[pick % len(self.moments)]
        view = self.handle(scope).at(version)
        assert dict(view) == then[scope] and list(view) == sorted_keys(then[scope])
        assert len(view) == len(then[scope]) and view.get("b", MISSING) == then[scope].get("b", MISSING)

    @rule(scope=SCOPES, pick=st.integers(0))
    def differ(self, scope, pick):
        version, then = self.moments[pick % len(self.moments)]
        old, new = then[scope], self.models[scope]
        told = {difference.key: (difference.old, difference.new) for difference in self.handle(scope).diff(version)}
        pairs = {key: (old.get(key, MISSING), new.get(key, MISSING)) for key in old.keys() | new.keys()}
        assert all(pairs[key] == pair for key, pair in told.items())
        assert {key for key, (was, now) in pairs.items() if was != now} <= told.keys()

    @rule(scope=SCOPES, pick=st.integers(0), pattern=st.sampled_from(["*", "b*", "[az]"]))
    def revert(self, scope, pick, pattern):
        version, then = self.moments[pick % len(self.moments)]
        chosen = {"*": set(then[scope]) | set(self.models[scope]), "b*": {"b", "b:1", "b:2"}, "[az]": {"a", "z"}}
        for key in chosen[pattern]:
            self.models[scope].pop(key, None)
            if key in then[scope]:
                self.models[scope][key] = copy.deepcopy(then[scope][key])
        self.handle(scope).revert_to(version, pattern)

    @rule(scope=SCOPES, run=st.dictionaries(KEYS, VALUES), gone=st.sets(KEYS), others=st.dictionaries(KEYS, VALUES))
    def undo(self, scope, run, gone, others):
        self.runs += 1
        name, model = f"r{self.runs}", self.models[scope]
        handle = self.state.as_run(run=name)
        handle = handle.scope(scope) if scope else handle
        touched = set(run) | {key for key in gone if key in model}
        for key, value in run.items():
            handle[key] = value
        for key in gone:
            handle.delete(key)
        self.handle(scope).update(others)
        undone = self.state.undo(run=name)
        path = (scope,) if scope else ()
        assert set(undone.refused) == {(path, key) for key in touched & set(others)}
        model.update(others)

    @rule()
    def reopen(self):
        self.state.close()
        self.state = State(self.path, **self.options)

    @invariant()
    def the_store_holds_what_the_model_holds(self):
        for scope, model in self.models.items():
            handle = self.handle(scope)
            assert dict(handle) == model
            assert list(handle) == sorted_keys(model)
            assert len(handle) == len(model)
            for key, value in model.items():
                assert handle[key] == value

    def teardown(self):
        self.state.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

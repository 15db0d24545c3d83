"""Runs every case of ``tests/spec`` on both surfaces, each in memory and on a file. Their language is in its README.

The runner is written for asyncio. On the plain surface it never has anything to wait for.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import struct
import subprocess
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import llmspell_state
import pytest
from llmspell_state import MISSING as NO_VALUE
from llmspell_state import StateError, aio

RUNNER = "python"
SPEC = Path(__file__).parent.parent / "spec"
VOCABULARY = json.loads((SPEC / "vocabulary.json").read_text())
FILES = sorted(path for path in SPEC.glob("*.json") if path.name != "vocabulary.json")
CASES = [(path.stem, case) for path in FILES for case in json.loads(path.read_text())]
TAKEN = [(file, case) for file, case in CASES if RUNNER not in case.get("skip_in", ())]

MISSING = type("Missing", (), {"__repr__": lambda _: "(missing)"})()
SAY_NOTHING = ("set", "set_many", "rollback", "close", "save_watch", "close_watch")
PARTLY = ("entry", "verify", "next_change", "revision", "undo", "retention", "cleanup", "merge_from")
END = type("End", (), {"__repr__": lambda _: "(end)"})()


class OwnError(Exception):
    """What a callback of a case raises."""


def counting(start: int, end: int) -> range:
    return range(start, end) if start <= end else range(start - 1, end - 1, -1)


def noise(length: int) -> str:
    seed, letters = 1, []
    for _ in range(length):
        seed = seed * 16807 % 2147483647
        letters.append("abcdefghijklmnopqrstuvwxyz"[seed % 26])
    return "".join(letters)


def nest(levels: int, wrap: Any, inner: Any) -> Any:
    for _ in range(levels - 1):
        inner = wrap(inner)
    return inner


FORMS = {
    "$binary": base64.b64decode,
    "$float": float,
    "$bigint": int,
    "$not_utf8": lambda _: "a\ud800",
    "$missing": lambda _: MISSING,
    "$end": lambda _: END,
    "$repeat": lambda given: given[0] * given[1],
    "$noise": noise,
    "$nest": lambda levels: nest(levels, lambda inner: [inner], []),
    "$nest_objects": lambda levels: nest(levels, lambda inner: {"a": inner}, {}),
    "$range": lambda given: list(range(*given)),
    "$numbered": lambda given: [f"{given[0]}{index:06}" for index in counting(*given[1:])],
    "$table": lambda given: {f"{given[0]}{index:06}": index for index in counting(*given[1:])},
    "$pairs": lambda given: [[f"{given[0]}{index:06}", index] for index in counting(*given[1:])],
}


def same(one: Any, other: Any) -> bool:
    """Equality in value and in type; the sign of zero counts, the order of members does not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def parts(told: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(told, field.name)) for field in dataclasses.fields(told)]


def stored(value: Any) -> Any:
    return MISSING if value is NO_VALUE else value


class Plain:
    """The surface without coroutines."""

    State = llmspell_state.State

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("the plain surface has something to wait for")

    def function(self, work: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        return lambda *given: self.run(work(*given))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Async:
    """The surface for asyncio."""

    State = aio.State

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.run = self.loop.run_until_complete
        self.sleep = asyncio.sleep

    def function(self, work: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        return work


async def settle(answer: Any) -> Any:
    """What a call answers on either surface."""
    return await answer if isinstance(answer, Awaitable) else answer


async def collect(listing: Any) -> list[Any]:
    found = [item async for item in listing] if isinstance(listing, AsyncIterable) else list(listing)
    return [list(item) if isinstance(item, tuple) else item for item in found]


def origin(told: Any) -> dict[str, Any]:
    parts = {name: getattr(told, name) for name in ("actor", "run", "reason")}
    return {name: MISSING if part is None else part for name, part in parts.items()}


class Run:
    """One run of one case."""

    def __init__(self, case: dict[str, Any], directory: Path, on_file: bool, surface: Plain | Async) -> None:
        self.directory, self.surface = directory, surface
        self.settings = dict(case.get("config", {}))
        if on_file:
            self.settings["persistence_path"] = str(directory / "store.db")
        self.saved: dict[str, Any] = {}
        self.handles: dict[str, Any] = {}
        self.round = 1

    async def all(self, steps: list[dict[str, Any]]) -> None:
        self.handles["state"] = await self.open_store({})
        try:
            await self.steps(steps)
        finally:
            await settle(self.handles["state"].close())

    async def open_store(self, more: dict[str, Any]) -> Any:
        settings = {**self.settings, **self.expand(more)}
        return await settle(self.surface.State(settings.pop("persistence_path", None), **settings))

    def expand(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.expand(item) for item in value]
        if not isinstance(value, dict):
            return value
        form = next(iter(value), "")
        if len(value) != 1 or not form.startswith("$"):
            return {key: self.expand(member) for key, member in value.items()}
        argument = value[form]
        if form == "$saved":
            return self.saved[argument] if isinstance(argument, str) else self.saved[argument[0]] + argument[1]
        if form == "$path":
            return f"{self.directory}/{argument}"
        if form == "$object":
            return {key: self.expand(member) for key, member in argument}
        return FORMS[form](argument)

    async def steps(self, steps: list[dict[str, Any]]) -> Any:
        answer = None
        for step in steps:
            if not (step.get("once") and self.round > 1):
                answer = await self.step(step)
        return answer

    async def step(self, step: dict[str, Any]) -> Any:
        verbs = [name for name in step if name in VOCABULARY["verbs"]]
        assert len(verbs) == 1, f"{step} has not one verb"
        (verb,) = verbs
        rules = VOCABULARY["verbs"][verb]
        unknown = step.keys() - {verb, *VOCABULARY["fields"], *rules["options"]}
        assert not unknown, f"'{verb}' has no field {unknown}"
        assert rules["takes"][0] <= len(step[verb]) <= rules["takes"][1], f"{step}: number of arguments"
        if "raises" in step:
            await self.expect_error(verb, step)
            return None
        answer = await self.call(verb, step)
        shown = f"{json.dumps(step, ensure_ascii=False)[:200]} gave {repr(answer)[:300]}"
        if "returns" in step:
            assert self.fits(verb, step["returns"], answer), shown
        if "differs" in step:
            assert not self.fits(verb, step["differs"], answer), shown
        save = step.get("save", {})
        for field, name in save.items() if isinstance(save, dict) else [(None, save)]:
            self.saved[name] = answer if field is None else answer[field]
        return answer

    async def expect_error(self, verb: str, step: dict[str, Any]) -> None:
        shown = json.dumps(step, ensure_ascii=False)[:200]
        try:
            answer = await self.call(verb, step)
        except OwnError:
            assert step["raises"] == "own", f"{shown} raised the callback's own error"
            return
        except StateError as error:
            parts = step.get("message_has", [])
            missing = [part for part in ([parts] if isinstance(parts, str) else parts) if part not in str(error)]
            assert error.kind == step["raises"], f"{shown} raised {error.kind}: {error}"
            assert not missing, f"{shown}: no {missing} in {error}"
            return
        pytest.fail(f"{shown} gave {repr(answer)[:200]}")

    def fits(self, verb: str, expected: Any, answer: Any) -> bool:
        expected = self.expand(expected)
        if verb in PARTLY and isinstance(expected, dict) and isinstance(answer, dict):
            return all(same(field, answer[name]) for name, field in expected.items())
        return same(expected, answer)

    async def call(self, verb: str, step: dict[str, Any]) -> Any:
        handle = self.handles[step.get("on", "state")]
        for name in step.get("in", ()):
            handle = await settle(handle.scope(name))
        given = step[verb] if verb == "transact" else self.expand(step[verb])
        options = {name: self.expand(step[name]) for name in VOCABULARY["verbs"][verb]["options"] if name in step}
        name = options.pop("as", "")
        if verb == "transact":
            return await self.transact(handle, name, *given, **options)
        own = getattr(self, f"do_{verb}", None)
        answer = await settle((own(handle, *given, **options)) if own else getattr(handle, verb)(*given, **options))
        if name:
            self.handles[name], answer = answer, MISSING
        return MISSING if answer is None and verb in SAY_NOTHING else answer

    # The verbs that are not simply a method of the same name.

    async def do_get(self, handle: Any, key: str, default: Any = MISSING) -> Any:
        return await settle(handle.get(key, default))

    async def do_entry(self, handle: Any, key: str) -> Any:
        entry = await settle(handle.entry(key))
        if entry is None:
            return MISSING
        fields = {name: getattr(entry, name) for name in ("value", "version", "created", "updated")}
        return {**fields, "expires": MISSING if entry.expires is None else entry.expires}

    async def do_verify(self, handle: Any) -> Any:
        found = await settle(handle.verify())
        fields = {name: getattr(found, name) for name in ("version", "changes", "keys", "scopes", "ok")}
        return {**fields, "problems": list(found.problems)}

    async def do_keys(self, handle: Any, *pattern: str, **options: Any) -> Any:
        return await collect(handle.keys(*pattern, **options))

    async def do_items(self, handle: Any, *pattern: str, **options: Any) -> Any:
        return await collect(handle.items(*pattern, **options))

    async def do_iterate(self, handle: Any, verb: str, *pattern: str, **options: Any) -> Any:
        listing = {"keys": handle.keys, "items": handle.items}[verb](*pattern, **options)
        return aiter(listing) if isinstance(listing, AsyncIterable) else iter(listing)

    async def do_next(self, iterator: Any) -> Any:
        item = next(iterator, END) if isinstance(iterator, Iterator) else await anext(iterator, END)
        return list(item) if isinstance(item, tuple) else item

    async def do_rest(self, iterator: Any) -> Any:
        return await collect(iterator)

    async def do_modify(self, handle: Any, key: str, function: list[Any], **options: Any) -> Any:
        name, *given = function
        calls = 0

        async def change(value: Any) -> Any:
            nonlocal calls
            calls += 1
            if name == "race" and calls == 1:
                await settle(self.handles["state"].increment(key, 100))
            if name in ("add", "race"):
                return (value or 0) + given[0]
            if name == "push":
                return [*value, given[0]]
            if name == "put":
                value[given[0]] = given[1]
                return value
            if name == "replace":
                return given[0]
            assert name == "fail", f"no function '{name}'"
            raise OwnError

        return await settle(handle.modify(key, self.surface.function(change), **options))

    async def do_begin(self, handle: Any) -> Any:
        return await settle(handle.transaction())

    async def transact(self, handle: Any, name: str, steps: list[dict[str, Any]], **options: Any) -> Any:
        outer, self.round = self.round, 0

        async def work(transaction: Any) -> Any:
            self.round += 1
            self.handles[name] = transaction
            return await self.steps(steps)

        try:
            return await settle(handle.transact(self.surface.function(work), **options))
        finally:
            self.round = outer

    async def do_fail(self, _: Any) -> Any:
        raise OwnError

    async def do_open(self, _: Any, more: dict[str, Any]) -> Any:
        return await self.open_store(more)

    async def do_reopen(self, handle: Any, more: Any = None) -> Any:
        await settle(handle.close())
        self.handles["state"] = await self.open_store(more or {})

    async def do_next_change(self, watch: Any, timeout: int = 10_000) -> Any:
        change = await settle(watch.next(timeout / 1000))
        if change is None:
            return END
        fields = {name: getattr(change, name) for name in ("key", "operation", "version", "time", "ends_commit")}
        return {**fields, **origin(change), "value": stored(change.value), "old": stored(change.old)}

    async def do_changes(self, watch: Any) -> Any:
        told = []
        while (change := await settle(watch.next(0.05))) is not None:
            values = [stored(change.value), stored(change.old)]
            told.append([change.key, change.operation, *values, change.ends_commit])
        return told

    async def do_save_watch(self, watch: Any) -> Any:
        return await settle(watch.save())

    async def do_close_watch(self, watch: Any) -> Any:
        return await settle(watch.close())

    async def do_history(self, handle: Any, key: str, **options: Any) -> Any:
        told = await settle(handle.history(key, **options))
        return [[revision.operation, stored(revision.value)] for revision in told]

    async def do_revision(self, handle: Any, key: str, index: int) -> Any:
        revision = (await settle(handle.history(key)))[index]
        fields = {name: getattr(revision, name) for name in ("operation", "version", "time")}
        return {**fields, **origin(revision), "value": stored(revision.value)}

    async def do_diff(self, handle: Any, *moments: int, **options: Any) -> Any:
        told = await collect(handle.diff(*moments, **options))
        return [[difference.key, stored(difference.old), stored(difference.new)] for difference in told]

    async def do_undo(self, handle: Any, **options: Any) -> Any:
        undone = await settle(handle.undo(**options))
        return {"keys": undone.keys, "refused": [[list(scopes), key] for scopes, key in undone.refused]}

    async def do_default_ttl(self, handle: Any) -> Any:
        seconds = await settle(handle.default_ttl())
        return MISSING if seconds is None else seconds

    async def do_retention(self, handle: Any) -> Any:
        return dict(parts(await settle(handle.retention())))

    async def do_usage(self, handle: Any) -> Any:
        return dict(parts(await settle(handle.usage())))

    async def do_cleanup(self, handle: Any) -> Any:
        return dict(parts(await settle(handle.cleanup())))

    async def do_merge_from(self, handle: Any, fork: str, resolve: Any = None) -> Any:
        async def answer(conflict: llmspell_state.MergeConflict) -> Any:
            name = resolve.get(conflict.key, "leave")
            if name == "fail":
                raise OwnError
            if name == "sum":
                sides = (conflict.base, conflict.ours, conflict.theirs)
                return sum(side for side in sides if side is not NO_VALUE)
            return getattr(llmspell_state, name.upper())

        function = None if resolve is None else self.surface.function(answer)
        merged = await settle(handle.merge_from(self.handles[fork], function))
        return {"keys": merged.keys, "conflicts": [[list(scopes), key] for scopes, key in merged.conflicts]}

    async def do_shell(self, _: Any, command: str) -> Any:
        subprocess.run(["sh", "-c", command], cwd=self.directory, check=True)

    async def do_wait(self, _: Any, milliseconds: int) -> Any:
        await self.surface.sleep(milliseconds / 1000)


@pytest.fixture(scope="module")
def passed() -> set[str]:
    return set()


@pytest.fixture(scope="module", params=["plain", "asyncio"])
def surface(request: pytest.FixtureRequest) -> Iterator[Plain | Async]:
    if request.param == "plain":
        yield Plain()
        return
    surface = Async()
    yield surface
    surface.loop.close()


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{file}: {case['name']}") for file, case in TAKEN])
def test_case(case: dict[str, Any], surface: Plain | Async, tmp_path: Path, passed: set[str]) -> None:
    assert case.keys() <= set(VOCABULARY["case"]), f"unknown fields in {case['name']}"
    for store in ["file"] if case.get("needs") == "file" else ["memory", "file"]:
        directory = tmp_path / store
        directory.mkdir()
        surface.run(Run(case, directory, store == "file", surface).all(case["steps"]))
    passed.add(f"{type(surface).__name__} {case['name']}")


def test_every_case_has_a_name_of_its_own(passed: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    names = [case["name"] for _, case in CASES]
    with capsys.disabled():
        print(f"\ncontract: {len(passed)} cases passed, {len(CASES) - len(TAKEN)} of {len(CASES)} skipped")
    assert len(names) == len(set(names))

"""The work that is measured in Python, and on which data."""

import gc
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from contenders import PEERS, Apsw, Contender, Dict, Diskcache, Lmdb, Ours, Redis, Rocks, Sqlite
from llmspell_state import RetentionPolicy
from measure import Case, Effort, over, repeated, say, threads_per_second, turns
from values import SMALL, of_size, small

OURS = Ours.name
BATCH = 10_000


@contextmanager
def opened(kinds: list[type[Contender]], sync: str, **ours: Any) -> Iterator[list[Contender]]:
    """Fresh contenders of each kind that is installed, each in a folder of its own; `ours` are our settings."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        made: list[Contender] = []
        for kind in kinds:
            if not kind.is_available():
                continue
            folder = Path(place, kind.__name__)
            folder.mkdir()
            made.append(kind(folder, sync, **ours) if kind is Ours else kind(folder, sync))
        try:
            yield made
        finally:
            for contender in made:
                contender.close()


def load(contender: Contender, keys: int, value: Callable[[int], Any] = small) -> None:
    """Fills a store with that many keys."""
    for start in range(0, keys, BATCH):
        contender.set_many([(name(at), value(at)) for at in range(start, min(start + BATCH, keys))])


def name(number: int) -> str:
    """The key with a number."""
    return f"k{number:07}"


def get_hot(effort: Effort) -> Iterator[Case]:
    """One key again and again."""
    for size in ("small", "1 KB", "10 KB"):
        value = SMALL if size == "small" else of_size(size)
        with opened([Ours, Dict, *PEERS], "NORMAL") as contenders:
            runs = {}
            for contender in contenders:
                contender.set("user:123", value)
                assert contender.get("user:123") == value, contender.name
                runs[contender.name] = repeated(contender.get, "user:123", effort.batch_seconds)
            runs["orjson.loads alone"] = repeated(orjson.loads, orjson.dumps(value), effort.batch_seconds)
            yield turns(Case(f"get, one hot key, {size}", "µs"), runs, effort.rounds)


def get_first(effort: Effort) -> Iterator[Case]:
    """Values whose text is in the cache, each read for the first time since it was written."""
    for size, many in (("small", 5000), ("1 KB", 2000), ("10 KB", 300)):
        values = [of_size(size, number) for number in range(many)]
        texts = [orjson.dumps(value) for value in values]
        keys = [name(number) for number in range(many)]
        with opened([Ours], "NORMAL") as (ours,):

            def first(ours: Contender = ours, keys: list[str] = keys, values: list[Any] = values) -> float:
                for at in range(0, len(keys), 100):  # what a larger commit wrote is not put in the cache
                    ours.set_many(zip(keys[at : at + 100], values[at : at + 100], strict=True))
                return each_once(ours.get, keys)

            runs = {OURS: first, "orjson.loads alone": partial(each_once, orjson.loads, texts)}
            yield turns(Case(f"first get of a cached value, {size}", "µs"), runs, effort.rounds)


def each_once(call: Callable[[Any], Any], arguments: list[Any]) -> float:
    """Microseconds per call over distinct arguments."""
    start = time.perf_counter()
    for argument in arguments:
        call(argument)
    return (time.perf_counter() - start) / len(arguments) * 1e6


def get_random(effort: Effort) -> Iterator[Case]:
    """Any of many small values; ours with a cache that holds them all, then with none."""
    many = effort.many
    keys = [(name(number),) for number in random.Random(1).choices(range(many), k=min(many, 200_000))]
    with opened([Ours, Dict, *PEERS], "NORMAL", cache_size_mb=512) as contenders:
        runs = {}
        for contender in contenders:
            load(contender, many)
            if contender.name == OURS:
                for number in list(range(many)) * 2:  # into the cache
                    contender.get(name(number))
            runs[contender.name] = over(contender.get, keys, effort.batch_seconds)
        case = Case(f"get, random of {many:,} cached, small", "µs", note="our cache holds all of them")
        yield turns(case, runs, effort.rounds)


def get_uncached(effort: Effort) -> Iterator[Case]:
    """Random keys with our cache turned off: every read goes to the file."""
    for size, many in (("small", effort.many), ("10 KB", 2000)):
        keys = [(name(number),) for number in random.Random(2).choices(range(many), k=20_000)]
        with opened([Ours, Sqlite, Apsw, Lmdb, Rocks, Diskcache], "NORMAL", cache_size_mb=0) as contenders:
            for contender in contenders:
                load(contender, many, partial(of_size, size))
            runs = {contender.name: over(contender.get, keys, effort.batch_seconds) for contender in contenders}
            yield turns(Case(f"get, not cached, {size}", "µs"), runs, effort.rounds)


def set_alone(effort: Effort) -> Iterator[Case]:
    """One set after the other, each acknowledged before the next."""
    for sync in ("NORMAL", "FULL"):
        for size in ("small", "1 KB"):
            pairs = changing(partial(of_size, size), 20_000)
            with opened([Ours, *PEERS], sync) as contenders:
                for contender in contenders:
                    load(contender, BATCH)
                seconds = effort.batch_seconds * 3
                runs = {contender.name: over(contender.set, pairs, seconds) for contender in contenders}
                yield turns(Case(f"set, {sync}, {size}", "µs"), runs, effort.rounds)


def set_history(effort: Effort) -> Iterator[Case]:
    """One set after the other with every old value kept, with as many as is usual, and with none."""
    pairs = changing(small, 20_000)
    policies = {
        Ours.name: RetentionPolicy(),
        f"{Ours.name}, all versions": RetentionPolicy(max_age=None, max_versions=None),
        f"{Ours.name}, no history": RetentionPolicy(max_versions=1),
    }
    with ExitStack() as stack:
        runs = {}
        for what, policy in policies.items():
            (ours,) = stack.enter_context(opened([Ours], "NORMAL", retention=policy))
            load(ours, BATCH)
            runs[what] = over(ours.set, pairs, effort.batch_seconds * 3)
        yield turns(Case("set with history, NORMAL, small", "µs"), runs, effort.rounds)


def changing(value: Callable[[int], Any], count: int) -> list[tuple[str, Any]]:
    """Sets of a thousand keys, each time to another value: SQLite writes nothing when a row stays as it is."""
    values = [value(number) for number in range(997)]
    return [(name(number % 1000), values[number % 997]) for number in range(count)]


def set_many(effort: Effort) -> Iterator[Case]:
    """Ten thousand sets in one commit, to new values each time."""
    for size in ("small", "1 KB"):
        with opened([Ours, *PEERS], "NORMAL") as contenders:
            values = [of_size(size, number) for number in range(BATCH)]
            runs = {contender.name: partial(batch_of, contender, values, count()) for contender in contenders}
            yield turns(Case(f"set_many of {BATCH:,}, {size}", "µs a key"), runs, max(3, effort.rounds // 2))


def batch_of(contender: Contender, values: list[Any], calls: Iterator[int]) -> float:
    """Microseconds per key of one commit."""
    shift = next(calls)
    pairs = [(name(number), values[number - shift]) for number in range(len(values))]
    start = time.perf_counter()
    contender.set_many(pairs)
    return (time.perf_counter() - start) / len(pairs) * 1e6


def set_threads(effort: Effort) -> Iterator[Case]:
    """Eight threads setting, each waiting for its acknowledgement."""
    each = 25 if effort.rounds < 5 else 100
    for sync in ("FULL", "NORMAL"):
        with opened([Ours, *PEERS], sync) as contenders:
            runs: dict[str, Callable[[], float]] = {}
            for contender in contenders:
                work = partial(set_changing, contender, count())
                times = each * 10 if contender.name == OURS or sync == "NORMAL" else each
                threads_per_second(work, 8, 20)
                runs[contender.name] = partial(threads_per_second, work, 8, times)
                if contender.name == OURS:
                    runs[f"{OURS}, 1 thread"] = partial(threads_per_second, work, 1, times)
            yield turns(Case(f"8 threads setting, {sync}, small", "/s"), runs, max(3, effort.rounds // 2))


def set_changing(contender: Contender, calls: Iterator[int], number: int) -> None:
    """One of a thousand keys, to a value that it did not have."""
    contender.set(name(number % 1000), small(next(calls)))


def keys_by_prefix(effort: Effort) -> Iterator[Case]:
    """A thousand keys out of many."""
    prefix = name(0)[:-3]
    with opened([Ours, Sqlite, Apsw, Lmdb, Rocks], "NORMAL") as contenders:
        runs = {}
        for contender in contenders:
            load(contender, effort.many)
            assert len(contender.keys(prefix)) == 1000, contender.name
            runs[contender.name] = repeated(contender.keys, prefix, effort.batch_seconds)
        yield turns(Case(f"keys by prefix, 1,000 of {effort.many:,}", "µs"), runs, effort.rounds)


def counters(effort: Effort) -> Iterator[Case]:
    """Four threads adding to one counter; every addition must be there at the end."""
    each = 200 if effort.rounds < 5 else 1000
    for sync in ("FULL", "NORMAL"):
        with opened([Ours, Sqlite, Apsw, Diskcache], sync) as contenders:
            runs = {}
            for contender in contenders:
                contender.set("n", 0)
                runs[contender.name] = partial(threads_per_second, partial(add, contender), 4, each)
            rounds = max(3, effort.rounds // 2)
            case = turns(Case(f"counter, 4 threads, {sync}", "/s"), runs, rounds)
            wrong = [contender.name for contender in contenders if contender.counted("n") != 4 * each * rounds]
            case.note = f"NOT EXACT: {', '.join(wrong)}" if wrong else "all exact"
            yield case


def add(contender: Contender, _number: int) -> None:
    """One more."""
    contender.increment("n")


def disk(effort: Effort) -> Iterator[Case]:
    """Bytes of file per key after loading and closing."""
    many = effort.many // 5
    for size in ("small", "1 KB"):
        case = Case(f"disk, {size}", "bytes a key", note=f"{many:,} keys, loaded 10,000 at a time, closed")
        kinds: list[tuple[str, type[Contender], dict[str, Any]]] = [
            (OURS, Ours, {}),
            (f"{OURS}, no compression", Ours, {"enable_compression": False}),
        ]
        kinds += [(kind.name, kind, {}) for kind in PEERS if kind is not Redis and kind.is_available()]
        for label, kind, settings in kinds:
            place = Path(tempfile.mkdtemp(prefix="bench-"))
            try:
                contender = kind(place, "NORMAL", **settings)
                load(contender, many, partial(of_size, size))
                contender.close()
                used = sum(file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file())
                case.medians[label] = used / many
            finally:
                shutil.rmtree(place)
        say(f"{case.name}: {case.medians}")
        yield case


def growth(effort: Effort) -> Iterator[Case]:
    """Does size matter: opening, reading a hot set and writing in a small and in a large store."""
    sizes = [BATCH, effort.growth]
    labels = [f"{keys:,} keys" for keys in sizes]
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folders = [Path(place, str(keys)) for keys in sizes]
        for folder, keys in zip(folders, sizes, strict=True):
            folder.mkdir()
            contender = Ours(folder, "NORMAL")
            load(contender, keys)
            contender.close()

        def open_and_read(folder: Path) -> float:
            gc.collect()
            start = time.perf_counter()
            contender = Ours(folder, "NORMAL")
            contender.get(name(77))
            took = (time.perf_counter() - start) * 1e3
            contender.close()
            return took

        runs = {label: partial(open_and_read, folder) for label, folder in zip(labels, folders, strict=True)}
        yield turns(Case("open a store and read a key", "ms"), runs, effort.rounds * 2)

        stores = [Ours(folder, "NORMAL") for folder in folders]
        chance = random.Random(3)
        reads, writes = {}, {}
        for label, contender, keys in zip(labels, stores, sizes, strict=True):
            hot = [(name(number),) for number in chance.sample(range(keys), 1000)]
            anywhere = [(name(number), small(at)) for at, number in enumerate(chance.choices(range(keys), k=20_000))]
            reads[label] = over(contender.get, hot, effort.batch_seconds)
            writes[label] = over(contender.set, anywhere, effort.batch_seconds * 3)
        yield turns(Case("growth: get of a hot set of 1,000", "µs"), reads, effort.rounds)
        yield turns(Case("growth: set of any key, NORMAL", "µs"), writes, effort.rounds)
        for contender in stores:
            contender.close()


ALL = [
    get_hot,
    get_first,
    get_random,
    get_uncached,
    set_alone,
    set_history,
    set_many,
    set_threads,
    keys_by_prefix,
    counters,
    growth,
    disk,
]

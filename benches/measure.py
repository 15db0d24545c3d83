"""How things are timed: contenders take turns in rounds, and the median of the rounds counts."""

import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Effort:
    """How long to measure."""

    rounds: int
    batch_seconds: float  # what one turn should take
    many: int  # keys in a store called large
    growth: int  # keys in the largest one


@dataclass
class Case:
    """One kind of work with the median of every contender."""

    name: str
    unit: str  # "µs" and the like: less is better; "/s": more is better
    medians: dict[str, float] = field(default_factory=dict)
    note: str = ""


def say(text: str) -> None:
    """Progress goes where results do not."""
    print(text, file=sys.stderr, flush=True)


def turns(case: Case, contenders: Mapping[str, Callable[[], float]], rounds: int) -> Case:
    """Each contender measures once a round; the order moves on by one so that nobody is always first."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(contenders[name]())
    case.medians = {name: statistics.median(values) for name, values in found.items()}
    say(f"{case.name}: " + ", ".join(f"{name} {value:.3g} {case.unit}" for name, value in case.medians.items()))
    return case


def repeated(call: Callable[[Any], Any], argument: Any, seconds: float) -> Callable[[], float]:
    """Microseconds per call with one argument; as many calls as `seconds` have room for."""

    def run(times: int) -> float:
        start = time.perf_counter()
        for _ in itertools.repeat(None, times):
            call(argument)
        return time.perf_counter() - start

    times = fitting(run, seconds)
    return lambda: run(times) / times * 1e6


def over(call: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], seconds: float) -> Callable[[], float]:
    """Microseconds per call over changing arguments, going round."""
    endless = itertools.cycle(list(arguments))

    def run(times: int) -> float:
        batch = list(itertools.islice(endless, times))
        start = time.perf_counter()
        for argument in batch:
            call(*argument)
        return time.perf_counter() - start

    times = fitting(run, seconds)
    return lambda: run(times) / times * 1e6


def fitting(run: Callable[[int], float], seconds: float) -> int:
    """How many calls take about `seconds`; also warms up."""
    times = 1
    while (took := run(times)) < seconds / 10:
        times *= 4
    return max(1, min(500_000, int(times * seconds / took)))


def threads_per_second(work: Callable[[int], Any], threads: int, each: int) -> float:
    """Calls per second of `threads` threads that start together."""
    barrier = threading.Barrier(threads + 1)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            for at in range(each):
                work(number * each + at)
        except BaseException as error:  # reported below: a thread's own traceback would only be printed
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return threads * each / (time.perf_counter() - start)

"""Measures this library beside its peers and writes RESULTS.md: `make bench`, or BENCH_QUICK=1 make bench.

`python benches --only get_hot,ticker` runs some kinds of work and only prints.
"""

import argparse
import datetime
import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import async_cases
import cases
import contenders
import growing
import lua_cases
import processes
from measure import Case, Effort, say
from targets import Verdict, verdicts

RESULTS = Path(__file__).with_name("RESULTS.md")
FULL = Effort(rounds=9, batch_seconds=0.1, many=100_000, growth=1_000_000)
QUICK = Effort(rounds=3, batch_seconds=0.03, many=20_000, growth=100_000)
WORK = [*cases.ALL, growing.growing, *async_cases.ALL, processes.process_counters, *lua_cases.ALL]


def machine() -> list[str]:
    """What the figures depend on, without names of hosts."""
    model = next((line.split(":")[1] for line in lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line.split()[1] for line in lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return [
        f"{os.cpu_count()} cores ({model.strip() or platform.machine()}), {int(memory) >> 20} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}",
        f"Python {platform.python_version()}, {first_line('lua5.4', '-v')}, {first_line('luajit', '-v')}, "
        f"{first_line('rustc', '--version')}",
        f"the standard library's SQLite {sqlite3.sqlite_version}; "
        + ", ".join(f"{package} {version}" for package, version in packages()),
    ]


def lines(file: str) -> list[str]:
    """The lines of a file that may be missing."""
    try:
        return Path(file).read_text().splitlines()
    except OSError:
        return []


def first_line(*command: str) -> str:
    """What a program says of itself."""
    if not shutil.which(command[0]):
        return f"no {command[0]}"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split()[:2])


def packages() -> list[tuple[str, str]]:
    """The versions of the peers."""
    wanted = [line for line in lines(str(Path(__file__).with_name("requirements.txt"))) if line and line[0] != "#"]
    found = []
    for package in ["llmspell-state", *wanted]:
        try:
            found.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append((package, "not installed"))
    return found


def figure(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(case: Case) -> list[str]:
    """One case: the contenders from best to worst."""
    best_first = sorted(case.medians.items(), key=lambda item: item[1], reverse=case.unit == "/s")
    rows = [f"| {name} | {figure(value)} |" for name, value in best_first]
    return [
        f"**{case.name}**{f' ({case.note})' if case.note else ''}",
        "",
        f"| | {case.unit} |",
        "|---|---|",
        *rows,
        "",
    ]


def page(measured: list[Case], judged: list[Verdict], effort: Effort) -> str:
    """The whole of RESULTS.md."""
    missing = [peer.name for peer in contenders.PEERS if not peer.is_available()]
    met = sum(verdict.is_met for verdict in judged)
    text = [
        "# Measured side by side",
        "",
        "Written by `make bench`, not by hand. Contenders take turns in one run; figures are medians of "
        f"{effort.rounds} rounds. Absolute figures drift on shared machines: what counts is the ratio within a run.",
        "",
        f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}{', quick mode' if effort is QUICK else ''}",
        "",
        *(f"- {line}" for line in machine()),
        *([f"- not installed, so left out: {', '.join(missing)}"] if missing else []),
        "",
        "NORMAL survives a crash of the process, FULL is on disk when acknowledged. For lmdb NORMAL is without sync,",
        "for redis `appendfsync everysec`. Only llmspell_state keeps every old value and checks every row it reads.",
        "",
        f"## Targets: {met} of {len(judged)} met",
        "",
        "| work | target | measured | |",
        "|---|---|---|---|",
        *(f"| {v.work} | {v.target} | {v.found} | {'met' if v.is_met else '**missed**'} |" for v in judged),
        "",
        "## Medians",
        "",
    ]
    for case in measured:
        text += table(case)
    return "\n".join(text)


def main() -> int:
    """Measure everything, or only what was asked for."""
    parser = argparse.ArgumentParser(prog="benches", description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="kinds of work, with commas: " + ", ".join(work.__name__ for work in WORK))
    parser.add_argument("--quick", action="store_true", default=os.environ.get("BENCH_QUICK") == "1")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    measured = []
    only = options.only.split(",") if options.only else [work.__name__ for work in WORK]
    if unknown := set(only) - {work.__name__ for work in WORK}:
        parser.error(f"there is no work called {', '.join(sorted(unknown))}")
    for work in WORK:
        if work.__name__ in only:
            say(f"-- {work.__name__}: {work.__doc__}")
            measured += list(work(effort))
    judged = verdicts(measured)
    for verdict in judged:
        print(f"{'met   ' if verdict.is_met else 'MISSED'} {verdict.work}: {verdict.found}, target {verdict.target}")
    if not options.only:
        RESULTS.write_text(page(measured, judged, effort))
        print(f"written: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Work in the Lua interpreters, each measured in a process of its own: `peers.lua`, `overlap.lua`."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import Case, Effort, say
from values import SMALL, of_size

INTERPRETERS = ("lua5.4", "luajit")


def lua_get_hot(effort: Effort) -> Iterator[Case]:
    """One key again and again, against decoding alone."""
    for lua in INTERPRETERS:
        if not shutil.which(lua):
            say(f"{lua} is not installed: left out")
            continue
        with tempfile.TemporaryDirectory(prefix="bench-") as place:
            for size in ("small", "1 KB", "10 KB"):
                value = SMALL if size == "small" else of_size(size)
                Path(place, f"{size}.json").write_text(json.dumps(value, separators=(",", ":")))
            script = Path(__file__).with_name("peers.lua")
            command = [lua, str(script), place, str(effort.rounds), str(effort.batch_seconds)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                say(f"{lua}: left out: {done.stderr.strip()}")
                continue
        cases: dict[str, Case] = {}
        for line in done.stdout.splitlines():
            size, contender, micros = line.split("\t")
            case = cases.setdefault(size, Case(f"{lua} get, one hot key, {size}", "µs"))
            case.medians[contender] = float(micros)
        for case in cases.values():
            say(f"{case.name}: {case.medians}")
        yield from cases.values()


def lua_overlap(effort: Effort) -> Iterator[Case]:
    """A thousand sets one by one, as futures, and in coroutines."""
    script = Path(__file__).with_name("overlap.lua")
    for lua in INTERPRETERS:
        if not shutil.which(lua):
            say(f"{lua} is not installed: left out")
            continue
        for sync in ("FULL", "NORMAL"):
            with tempfile.TemporaryDirectory(prefix="bench-") as place:
                command = [lua, str(script), f"{place}/overlap.db", sync, str(effort.rounds)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            case = Case(f"{lua} 1,000 sets, {sync}, small", "/s")
            for line in done.stdout.splitlines():
                how, per_second = line.split("\t")
                case.medians[how] = float(per_second)
            say(f"{case.name}: {case.medians}")
            yield case


ALL = [lua_get_hot, lua_overlap]

"""Indexes the words of a folder with several Python and Lua processes at once, in one store.

    python examples/word_index [FOLDER] [--store FILE] [--fresh] [--kills N] …

Kill any process of it at any time, this one too, and run it again: it goes on where it stopped. At the end the store is
compared with one plain pass over the same files; the exit code is 1 unless every count agrees.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from job import candidates, enqueue
from llmspell_state import State
from words import plain_pass, text_files

HERE = Path(__file__).resolve().parent
SCRIPTS = {"python": "worker.py"}  # every other program is a Lua interpreter


class Workers:
    """The worker processes, kept at their number, one at random killed from time to time."""

    def __init__(self, programs: list[str], store: Path, folder: Path) -> None:
        self.programs, self.store, self.folder = programs, store, folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.started = self.killed = 0

    def start(self, slot: int) -> None:
        """Starts the program of a slot under a name that was never used before."""
        program = self.programs[slot]
        self.started += 1
        name = f"{program}-{self.started}-{random.randrange(1 << 32):08x}"
        script = HERE / SCRIPTS.get(program, "worker.lua")
        command = [sys.executable if program == "python" else program, str(script)]
        self.running[name] = subprocess.Popen([*command, str(self.store), str(self.folder), name])

    def fill(self) -> None:
        """Starts as many workers as are missing."""
        busy = Counter(name.split("-")[0] for name in self.running)
        for slot, program in enumerate(self.programs):
            if busy[program]:
                busy[program] -= 1
            else:
                self.start(slot)

    def kill_one(self) -> str | None:
        """Sends SIGKILL to a worker: no warning, no clean-up."""
        alive = [name for name, process in self.running.items() if process.poll() is None]
        if not alive:
            return None
        name = random.choice(alive)
        self.running[name].kill()
        self.running.pop(name).wait()
        self.killed += 1
        return name

    def reap(self) -> None:
        """Forgets the workers that are done; one that failed by itself ends the job."""
        for name, process in list(self.running.items()):
            if process.poll() is not None:
                del self.running[name]
                if process.returncode:
                    raise SystemExit(f"worker {name} failed with code {process.returncode}; see its message above")

    def stop(self) -> None:
        """Ends what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait()


def run_workers(state: State, workers: Workers, total: int, kills: int) -> None:
    """Keeps workers at it until nothing waits and nothing is claimed."""
    moments = sorted(random.uniform(0.05, 0.9) * total for _ in range(kills))
    waiting, claims = state.scope("waiting"), state.scope("claims")
    shown, is_waiting, start = -1.0, False, time.monotonic()
    while (left := waiting.count() + claims.count()) or workers.running:
        workers.reap()
        if candidates(state):
            workers.fill()
        done = max(total - left, 0)
        while moments and done >= moments[0] and (name := workers.kill_one()):
            moments.pop(0)
            say(f"  killed {name.rsplit('-', 1)[0]} with SIGKILL at {done} of {total} files")
        if left and not workers.running and not is_waiting:
            is_waiting = True
            say(f"  {left} files wait until the claims of killed workers run out")
        if done - shown >= total / 10:
            shown = done
            say(f"  {done:5} of {total} files   {time.monotonic() - start:5.1f} s   {bar(done / total)}")
        time.sleep(0.02)
    say(f"  {total:5} of {total} files   {time.monotonic() - start:5.1f} s   {bar(1)}")


def bar(part: float) -> str:
    """A part of one, drawn."""
    return ("#" * round(part * 30)).ljust(30, ".")


def say(text: str) -> None:
    """Prints at once, also into a pipe."""
    print(text, flush=True)


def compare(state: State, folder: Path) -> list[str]:
    """What differs between the store and one plain pass; nothing when every count agrees."""
    truth = plain_pass(folder)
    totals: Counter[str] = Counter()
    index = {}
    for path, counts in truth.items():
        totals.update(counts)
        index.update({f"{word} {path}": count for word, count in counts.items()})
    stored = {path: record["counts"] for path, record in state.scope("files").items()}
    return [
        f"{what}: {len(found)} entries in the store, {len(expected)} in the plain pass, "
        f"{len(dict(found.items() ^ expected.items()))} differ"
        for what, found, expected in (
            ("totals", dict(state.scope("totals").items()), dict(totals)),
            ("index", dict(state.scope("index").items()), index),
        )
        if found != expected
    ] + [f"{path}: its counts differ" for path in truth.keys() | stored if truth.get(path) != stored.get(path)]


def report(state: State, word: str | None) -> None:
    """What the index can tell: where a word is, which process indexed how much, the commonest words."""
    by_program = Counter(record["worker"].split("-")[0] for record in state.scope("files").values())
    say("files by program: " + ", ".join(f"{program} {count}" for program, count in by_program.most_common()))
    totals = Counter(dict(state.scope("totals").items()))
    say("commonest words:  " + ", ".join(f"{word} {count}" for word, count in totals.most_common(8)))
    word = word or next((word for word, _ in totals.most_common() if len(word) > 6), None)
    if word:
        places = Counter({key.partition(" ")[2]: count for key, count in state.scope("index").items(f"{word} *")})
        say(f"most of '{word}':  " + ", ".join(f"{path} {count}" for path, count in places.most_common(3)))


def main() -> int:
    """Scan, index, compare."""
    parser = argparse.ArgumentParser(prog="word_index", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parents[1], help="default: this project")
    parser.add_argument("--store", type=Path, default=Path("word_index.db"))
    parser.add_argument("--fresh", action="store_true", help="start from an empty store")
    parser.add_argument("--workers", default="python,python,python,lua5.4,lua5.4,luajit", help="programs, by comma")
    parser.add_argument("--kills", type=int, default=6, help="workers to kill at random moments")
    parser.add_argument("--word", help="tell where this word occurs")
    options = parser.parse_args()
    folder, store = options.folder.resolve(), options.store.resolve()
    programs = options.workers.split(",")
    if missing := {program for program in programs if program != "python" and not shutil.which(program)}:
        parser.error(f"not installed: {', '.join(sorted(missing))}; choose others with --workers")
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder")
    if options.fresh:
        for file in store.parent.glob(f"{store.name}*"):
            file.unlink()

    with State(store, create_dirs=True) as state:
        workers = Workers(programs, store, folder)
        say(f"indexing {folder}\ninto {store} with {options.workers}")
        try:
            kills = options.kills
            while found := enqueue(state, text_files(folder)) or state.scope("claims").count():
                total = state.scope("waiting").count() + state.scope("claims").count()
                say(f"{total} files to index, {state.scope('files').count()} indexed before")
                run_workers(state, workers, total, kills if found > 1 else 0)
                kills = 0  # what changed meanwhile is indexed in peace
        finally:
            workers.stop()
        say(f"{state.scope('files').count()} files indexed; {workers.started} workers started, {workers.killed} killed")
        report(state, options.word)
        differences = compare(state, folder)
    for line in differences[:20]:
        say(f"DIFFERENT  {line}")
    say("every count DIFFERS from one plain pass" if differences else "every count equals that of one plain pass")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())

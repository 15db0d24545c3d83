"""The demo job's promise: whatever is killed, the counts are those of one plain pass."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llmspell_state import State

HERE = Path(__file__).resolve().parent
LUA = [name for name in ("lua5.4", "luajit", "lua5.3", "lua5.1") if shutil.which(name)]
MIXED = ["python", "python", *LUA[:2]]
AWKWARD = [
    "",
    "one",
    "One oNE ONE 1 1one",
    "naïve café ΑΒΓ under_score don't",
    "a" * 64 + " " + "b" * 65,
    "tab\tand\r\nline\x0b\x0c",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty files of made-up words, and some that a careless tokeniser gets wrong."""
    chance = random.Random(7)
    words = [f"word{chance.randrange(400)}" for _ in range(9000)]
    root = tmp_path / "text"
    (root / "deep" / "__er").mkdir(parents=True)
    for number in range(40):
        name = ("deep/", "deep/__er/", "")[number % 3] + f"{number} file.txt"
        (root / name).write_text(" ".join(chance.choices(words, k=220)))
    for number, text in enumerate(AWKWARD):
        (root / f"__awkward{number}.txt").write_bytes(text.encode())
    (root / "latin1.txt").write_bytes(b"caf\xe9 na\xefve \xff\xfe")
    (root / "binary.bin").write_bytes(b"not\0text")
    (root / "link.txt").symlink_to(root / "latin1.txt")
    return root


def command(folder: Path, *more: str, workers: list[str] = MIXED) -> list[str]:
    """The job's command line for a folder; the store lies beside it."""
    store = folder.parent / "index.db"
    return [sys.executable, str(HERE), str(folder), "--store", str(store), "--workers", ",".join(workers), *more]


def run(folder: Path, *more: str, workers: list[str] = MIXED) -> str:
    """Runs the job to its end, which must be a good one."""
    done = subprocess.run(command(folder, *more, workers=workers), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every count equals" in done.stdout
    return done.stdout


@pytest.mark.parametrize("program", ["python", *LUA])
def test_every_language_counts_the_same_words(folder: Path, program: str) -> None:
    run(folder, "--kills", "0", workers=[program])


def test_killed_workers_cost_no_count(folder: Path) -> None:
    assert re.search(r"[1-9] killed", run(folder, "--kills", "5"))


def test_a_job_killed_whole_again_and_again_goes_on_where_it_stopped(folder: Path) -> None:
    for wait in (0.3, 0.5, 0.7, 0.9):
        with subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, start_new_session=True) as job:
            time.sleep(wait)
            os.killpg(job.pid, signal.SIGKILL)
    run(folder)


def test_workers_that_outlive_their_coordinator_do_no_harm_to_the_next_one(folder: Path) -> None:
    with subprocess.Popen(command(folder, "--kills", "0"), stdout=subprocess.DEVNULL) as job:
        time.sleep(0.5)
        job.kill()
    run(folder)


def test_a_second_run_indexes_only_what_changed(folder: Path) -> None:
    run(folder, "--kills", "0")
    assert "0 workers started" in run(folder)
    (folder / "2 file.txt").unlink()
    (folder / "5 file.txt").write_text("entirely new words, and fewer")
    (folder / "new.txt").write_text("word1 word2 word1")
    assert "3 files to index" in run(folder, "--kills", "0")


def test_a_wrong_count_is_noticed(folder: Path) -> None:
    run(folder, "--kills", "0")
    with State(folder.parent / "index.db") as state:
        state.scope("totals").increment("one")
    done = subprocess.run(command(folder), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "totals" in done.stdout

"""The agents' promise: whoever is killed, every question gets one answer."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(*options: str) -> str:
    """Runs the conversation to its end, which must be a good one."""
    done = subprocess.run([sys.executable, str(HERE), *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_question_is_answered_once_although_the_researcher_dies() -> None:
    told = run("--questions", "60", "--kills", "3")
    assert re.search("60 questions, 60 answers, each once; the researcher was started [4-9] times", told), told


def test_a_second_conversation_on_the_same_store_starts_afresh(tmp_path: Path) -> None:
    for _ in range(2):
        told = run("--store", str(tmp_path / "agents.db"), "--questions", "20", "--kills", "1")
        assert "20 questions, 20 answers" in told

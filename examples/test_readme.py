"""The programs that the README shows run, from an empty folder, to the same end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmspell_state import State

README = Path(__file__).resolve().parents[1] / "README.md"
RUN = {"python": [sys.executable, "-c"], "lua": ["lua5.4", "-e"]}


@pytest.mark.parametrize("language", RUN)
def test_the_readmes_program_does_what_it_says(language: str, tmp_path: Path) -> None:
    command = RUN[language]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    program = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)[0]
    done = subprocess.run([*command, program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["user:123", "Alice"]
    with State(tmp_path / "agent.db") as state:
        assert state["user:123"] == {"name": "Alice", "score": 90}
        assert state.scope("tenant:a")["config"] == {"theme": "dark"}
        assert "config" not in state

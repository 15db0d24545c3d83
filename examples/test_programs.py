"""Every program here, and those that the README shows, run to a good end from an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from llmspell_state import State

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
LUA = ["lua5.4", "lua5.3", "lua5.1", "luajit"]
PROGRAMS = [(sys.executable, file) for file in sorted(HERE.glob("*.py")) if not file.name.startswith("test_")]
PROGRAMS += [(lua, file) for file in sorted(HERE.glob("*.lua")) for lua in LUA]


def run(folder: Path, *command: str) -> str:
    """What a program printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("interpreter", "file"), PROGRAMS, ids=[f"{file.name}-{Path(interpreter).name}" for interpreter, file in PROGRAMS]
)
def test_an_example_checks_itself(interpreter: str, file: Path, tmp_path: Path) -> None:
    run(tmp_path, interpreter, str(file))


@pytest.mark.parametrize("command", [[sys.executable, "-c"], *([lua, "-e"] for lua in LUA)], ids=["python", *LUA])
def test_the_readmes_program_does_what_it_says(command: list[str], tmp_path: Path) -> None:
    language = "python" if command[1] == "-c" else "lua"
    program = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)[0]
    assert run(tmp_path, *command, program).split() == ["user:123", "Alice"]
    with State(tmp_path / "agent.db") as state:
        assert state["user:123"] == {"name": "Alice", "score": 90}
        assert state.scope("tenant:a")["config"] == {"theme": "dark"}
        assert "config" not in state

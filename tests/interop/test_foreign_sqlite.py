"""Another SQLite looks at the store's file: in the same process, which drops SQLite's own locks, and from outside."""

import subprocess
import sys
import textwrap

from llmspell_state import State

WRITER = textwrap.dedent(
    """
    import os, signal, sqlite3, subprocess, sys
    from llmspell_state import State

    path = sys.argv[1]
    look = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('SELECT count(*) FROM entry').fetchone(); c.close()"
    )
    state = State(path)
    for n in range(20):
        state.set(f"before{n}", n)
    # The SQLite of Python's standard library is another one than ours: closing its connection, or any descriptor of the
    # file, takes away the locks that ours holds. The process started next then finds itself alone, and as the last to
    # leave it would delete the log.
    sqlite3.connect(path).execute("SELECT count(*) FROM entry").fetchone()
    open(path, "rb").close()
    log = os.stat(path + "-wal").st_ino
    subprocess.run([sys.executable, "-c", look, path], check=True)
    assert os.stat(path + "-wal").st_ino == log, "the log was replaced"
    for n in range(20):
        state.set(f"after{n}", n)
        print(f"after{n}", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
)


def test_a_foreign_connection_loses_no_acknowledged_write(tmp_path):
    path = tmp_path / "agent.db"
    writer = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True, text=True, check=False)
    acknowledged = writer.stdout.split()
    assert len(acknowledged) == 20, writer.stderr
    with State(path) as state:
        assert set(acknowledged) <= set(state)
        assert state.count("before*") == 20

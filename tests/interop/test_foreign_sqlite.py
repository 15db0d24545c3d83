"""Another SQLite looks at the store's file: in the same process, which drops SQLite's own locks, and from outside."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

from llmspell_state import RetentionPolicy, State

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


BUSY_WRITER = textwrap.dedent(
    """
    import sqlite3, sys, threading
    from llmspell_state import State

    path, name, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
    state = State(path, sync_mode="NORMAL")
    state.set(f"{name}-first", 0)
    ended = False

    def look():
        # Whatever closes one of the files takes away the locks that SQLite holds on it, in the middle of a commit, too.
        while not ended:
            for suffix in ("", "-wal", "-shm"):
                with open(path + suffix, "rb") as file:
                    file.read(64)
            other = sqlite3.connect(path)
            other.execute("SELECT count(*) FROM entry").fetchone()
            other.close()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for n in range(many):
            state.set(f"{name}{n}", n)
            state.increment("both")
            if n % 10 == 0:
                assert state.get(f"{name}{n // 2}") == n // 2
    finally:
        ended = True
        looking.join()
    state.close()
    """
)


def test_writers_that_look_at_the_files_amid_their_commits_lose_nothing(tmp_path):
    path, many = tmp_path / "agent.db", 800
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", BUSY_WRITER, str(path), name, str(many)], stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    ]
    told = [writer.communicate(timeout=120)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], "\n".join(told)
    with State(path) as state:
        assert state.verify().problems == ()
        assert state["both"] == 3 * many
        for name in ("a", "b", "c"):
            assert state.get_many(f"{name}{n}" for n in range(many)) == {f"{name}{n}": n for n in range(many)}


BUSY_READER = textwrap.dedent(
    """
    import sys, threading
    from llmspell_state import State

    path = sys.argv[1]
    ended = False

    def look():
        while not ended:
            for suffix in ("", "-wal", "-shm"):
                with open(path + suffix, "rb") as file:
                    file.read(64)

    state = State(path)
    looking = threading.Thread(target=look)
    looking.start()
    try:
        rounds = 0
        while not state.exists("end"):
            seen = set(state.scope("pages").values())
            assert len(seen) == 1, f"parts of several commits: {seen}"
            rounds += 1
            print(rounds, flush=True)
    finally:
        ended = True
        looking.join()
    state.close()
    """
)


def test_a_reader_that_looks_at_the_files_sees_whole_commits(tmp_path):
    path, seconds = tmp_path / "agent.db", 4
    filling = "x" * 1000
    with State(path, sync_mode="NORMAL") as state:
        state.set_retention(RetentionPolicy(max_versions=None, max_age=None))
        pages = state.scope("pages")
        pages.set_many({f"k{n}": f"0 {filling}" for n in range(300)})
        reader = subprocess.Popen(
            [sys.executable, "-c", BUSY_READER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert reader.stdout.readline() == "1\n", reader.communicate()
        end = time.monotonic() + seconds

        def pause():
            # In the middle of a read, often; the others need some time to write so much that the log starts over.
            while time.monotonic() < end and reader.poll() is None:
                reader.send_signal(signal.SIGSTOP)
                time.sleep(0.15)
                reader.send_signal(signal.SIGCONT)
                time.sleep(0.005)

        pausing = threading.Thread(target=pause)
        pausing.start()
        commits = 0
        try:
            while time.monotonic() < end and reader.poll() is None:
                commits += 1
                pages.set_many({f"k{n}": f"{commits} {filling}" for n in range(300)})
            pausing.join()
            state["end"] = True
            out, err = reader.communicate(timeout=60)
        finally:
            reader.kill()
        assert reader.returncode == 0, err
        assert out, "no round was read amid the writes"
        assert state.verify().problems == ()

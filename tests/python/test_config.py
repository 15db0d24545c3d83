"""Settings and files: what fits opens, what does not is named and left untouched."""

from __future__ import annotations

import inspect
import os
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
from llmspell_state import (
    BusyError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    State,
    StateError,
    UnknownFormatError,
)


def test_the_keyword_defaults_are_the_core_s():
    shown = {
        name: parameter.default
        for name, parameter in inspect.signature(State.__new__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "default"
    }
    with State.from_config({}) as state:
        config = state.config
    assert config.pop("persistence_path") is None
    assert shown | {"retention": asdict(shown["retention"])} == config


def test_settings_are_given_by_keyword_or_as_a_mapping(path):
    with State(path, sync_mode="NORMAL", cache_size_mb=1, exclusive=True) as state:
        assert (state.config["sync_mode"], state.config["cache_size_mb"]) == ("NORMAL", 1)
    with State.from_config({"persistence_path": str(path), "enable_compression": False}) as state:
        assert state.config["enable_compression"] is False
        assert state.path == path.resolve()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sync_mod": "FULL"}, "did you mean 'sync_mode'"),
        ({"cache_size": 5}, "did you mean|settings are"),
        ({"cache_size_mb": -1}, "cache_size_mb"),
        ({"cache_size_mb": 10**18}, "cache_size_mb"),
        ({"cache_size_mb": 1e18}, "cache_size_mb"),
        ({"cache_size_mb": 10**30}, "settings|cache_size_mb"),
        ({"cache_size_mb": "64"}, "cache_size_mb"),
        ({"sync_mode": "sometimes"}, "sync_mode"),
        ({"sync_mode": None}, "sync_mode"),
        ({"create": "yes"}, "create"),
        ({"max_value_bytes": 0}, "max_value_bytes"),
        ({"busy_timeout_ms": -5}, "busy_timeout_ms"),
        ({"create": object()}, "settings"),
        ({"persistence_path": "other.db"}, "path"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_and_nothing_is_made(path, options, message):
    with pytest.raises(InvalidError, match=message):
        State(path, **options)
    assert not path.exists()


def test_contradictory_settings_are_refused(path):
    with pytest.raises(InvalidError, match="exclusive"):
        State(path, enable_wal=False)
    assert not path.exists()


@pytest.mark.parametrize("path", [5, b"agent.db", ["agent.db"], object()])
def test_a_path_of_another_type_is_a_type_error(path):
    with pytest.raises(TypeError, match="path takes"):
        State(path)


def test_paths_are_str_or_path_like(path):
    with State(str(path)) as state:
        state["k"] = 1
    with State(path) as state:
        assert state["k"] == 1
        assert isinstance(state.path, Path)
    assert State().path is None


def test_a_path_that_is_no_utf_8_works(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")
    with State(path) as state:
        state["k"] = 1
    assert Path(path).exists()


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_path_that_names_no_file_is_refused(name):
    with pytest.raises((InvalidError, ValueError)):
        State(name)


def test_a_directory_a_fifo_a_link_and_a_device_are_no_store(tmp_path):
    State(tmp_path / "real.db").close()
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    os.link(tmp_path / "real.db", tmp_path / "hard.db")
    os.mkfifo(tmp_path / "fifo")
    for name in (".", "link.db", "hard.db", "fifo"):
        with pytest.raises(InvalidError):
            State(tmp_path / name)
    for path in ("/dev/null", "/proc/self/status"):
        with pytest.raises(StateError):
            State(path)


def test_a_missing_folder_is_made_only_when_asked_for(tmp_path):
    path = tmp_path / "a" / "b" / "agent.db"
    with pytest.raises(InvalidError):
        State(path)
    with State(path, create_dirs=True) as state:
        state["k"] = 1
    assert path.exists()


def test_a_missing_file_is_not_made_when_not_asked_for(path):
    with pytest.raises(NotFoundError):
        State(path, create=False)
    with pytest.raises(FileNotFoundError):
        State(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize(
    "content", [b"x", b"hello, world\n" * 500, b"\x89PNG\r\n\x1a\n" + bytes(5000)], ids=["byte", "text", "png"]
)
def test_a_file_of_something_else_is_left_untouched(path, content):
    path.write_bytes(content)
    with pytest.raises(UnknownFormatError):
        State(path)
    assert path.read_bytes() == content


def test_the_database_of_another_application_is_left_untouched(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (a)")
    other.execute("PRAGMA application_id = 1234")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(UnknownFormatError):
        State(path)
    assert path.read_bytes() == before


def test_a_file_that_may_not_be_opened_is_permission_denied(path):
    State(path).close()
    path.chmod(0)
    child = os.fork()  # root may open everything, so the child is somebody else
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            State(path)
        except PermissionDeniedError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_is_for_its_owner_only(path):
    with State(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_one_file_opened_twice_is_one_store(path):
    with State(path) as one, State(path) as two:
        one["k"] = 1
        assert two["k"] == 1
        assert one.store_id == two.store_id
        one.close()
        assert two["k"] == 1
        with pytest.raises(InvalidError):
            State(path, sync_mode="NORMAL")


def test_a_second_process_gets_busy_when_the_store_is_exclusive(path):
    with State(path, exclusive=True) as state:
        state["k"] = 1
        assert in_another_process(path, "State(path, busy_timeout_ms=10)") == "Busy"
    assert in_another_process(path, "print(State(path)['k'])") == "1"


def test_a_second_process_sees_every_write(path):
    with State(path) as state:
        state["k"] = 1
        assert state["k"] == 1
        assert in_another_process(path, "State(path).increment('k')") == ""
        assert state["k"] == 2


def in_another_process(path: Path, program: str) -> str:
    """What the program prints, or the kind of the error that ends it."""
    program = textwrap.dedent(
        f"""
        from llmspell_state import State, StateError
        path = {str(path)!r}
        try:
            {program}
        except StateError as error:
            print(error.kind)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_a_busy_store_is_a_timeout_error():
    assert issubclass(BusyError, TimeoutError)
    assert issubclass(BusyError, StateError)


def test_a_state_shows_its_path_and_whether_it_is_closed(path):
    state = State(path)
    assert repr(state) == f"<State({str(path)!r})>"
    state.close()
    assert repr(state) == f"<State({str(path)!r}) closed>"
    assert repr(State()) == "<State()>"
    assert repr(State().scope("a")) == "<Scope 'a'>"

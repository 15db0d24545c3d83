"""What a word is, which files count, and the plain pass whose counts the job must reach.

A word is a run of ASCII letters and digits, lower-cased: the same in every language without a library.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LONGEST_WORD = 64
LARGEST_FILE = 256 * 1024
LONGEST_PATH = 900  # a path follows a word in one key of at most 1,024 bytes
SKIPPED_FOLDERS = {"target", "build", "node_modules", "__pycache__"}  # what builds leave; hidden ones are skipped too

WORD = re.compile(rb"[A-Za-z0-9]+")


def count_words(text: bytes) -> dict[str, int]:
    """How often each word occurs."""
    words = (word for word in WORD.findall(text.lower()) if len(word) <= LONGEST_WORD)
    return {word.decode(): count for word, count in Counter(words).items()}


def text_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Every text file below `folder` as (path that is its key, stamp that changes when the file does)."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(files):
            file = Path(where, name)
            path = f"./{file.relative_to(folder).as_posix()}"  # "./": a key cannot start with "__"
            if name.startswith(".") or not is_key(path):
                continue
            stat = file.lstat()
            if file.is_file() and not file.is_symlink() and stat.st_size <= LARGEST_FILE and is_text(file):
                yield path, f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ino}"


def is_key(path: str) -> bool:
    """Whether a path can be a key: plain Unicode without control characters, short enough to follow a word."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    return len(encoded) <= LONGEST_PATH and all(byte >= 32 and byte != 127 for byte in encoded)


def is_text(file: Path) -> bool:
    """Whether a file has no NUL byte near its beginning."""
    try:
        with file.open("rb") as opened:
            return b"\0" not in opened.read(8192)
    except OSError:
        return False


def plain_pass(folder: Path) -> dict[str, dict[str, int]]:
    """The truth, without store or workers: the words of every file."""
    return {path: count_words(Path(folder, path).read_bytes()) for path, _ in text_files(folder)}

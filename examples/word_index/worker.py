"""One worker process: `python worker.py STORE FOLDER NAME`."""

import sys
from pathlib import Path

from job import work
from llmspell_state import State

if __name__ == "__main__":
    store, folder, name = sys.argv[1:]
    with State(store) as state:
        work(state, Path(folder), name)

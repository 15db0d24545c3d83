"""The Python watcher of the stage ``watch``: ``tell STORE JOURNAL SCOPE PATTERN SINCE NAME SAVE_EVERY``.

``src/stages/watch/work.rs`` tells what it writes into its journal.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from llmspell_state import MISSING, State

END = -1
KEEP_ALL = {"max_versions": None, "max_age": None}
"""The whole log is looked at afterwards."""


def text(value: Any) -> str:
    return "-" if value is MISSING else json.dumps(value)


def main() -> None:
    _, _, path, journal_path, inner, pattern, since, name, save_every = sys.argv
    journal = os.open(journal_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(*words: object) -> None:
        # One write a line, before the next change is asked for: what was told before the process dies is told whole.
        os.write(journal, (" ".join(map(str, words)) + "\n").encode())

    with State(path, retention=KEEP_ALL) as state:
        scope = state if inner == "-" else state.scope(inner)
        since_version, own_name = None if since == "-" else int(since), None if name == "-" else name
        with scope.watch(pattern, since_version, own_name) as watch:
            say("o", watch.version)
            for count, change in enumerate(watch, 1):
                value, old, actor = text(change.value), text(change.old), change.actor or "-"
                say("c", change.version, change.key, change.operation, value, old, actor, int(change.ends_commit))
                over = change.ends_commit and change.value == END
                if int(save_every) and (over or count % int(save_every) == 0):
                    watch.save()
                    say("s", watch.version)
                if over:
                    say("e")
                    break


if __name__ == "__main__":
    main()

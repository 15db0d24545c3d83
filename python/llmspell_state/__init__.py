"""Durable, shared, transactional state for scripts that run language-model agents.

>>> from llmspell_state import State
>>> with State() as state:
...     state["user:123"] = {"name": "Alice", "score": 100}
...     state.increment("visits")
...     [key for key in state.keys("user:*")]
1
['user:123']
"""

from .change import MISSING, Change, Missing
from .entry import Entry
from .errors import (
    BackupInvalidError,
    BusyError,
    CancelledError,
    ClosedError,
    CommitUnknownError,
    ConflictError,
    CorruptError,
    DataLossError,
    DiskFullError,
    ErrorKind,
    ForkedError,
    InvalidError,
    InvalidTypeError,
    MigrationFailedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    StateError,
    StateIOError,
    UnknownFormatError,
    WrongKeyError,
)
from .history import Difference, Revision, Undone
from .scope import Scope
from .state import State
from .transaction import Transaction
from .verification import Verification
from .view import View
from .watch import Watch

__all__ = [
    "MISSING",
    "BackupInvalidError",
    "BusyError",
    "CancelledError",
    "Change",
    "ClosedError",
    "CommitUnknownError",
    "ConflictError",
    "CorruptError",
    "DataLossError",
    "Difference",
    "DiskFullError",
    "Entry",
    "ErrorKind",
    "ForkedError",
    "InvalidError",
    "InvalidTypeError",
    "MigrationFailedError",
    "Missing",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "Revision",
    "Scope",
    "State",
    "StateError",
    "StateIOError",
    "Transaction",
    "Undone",
    "UnknownFormatError",
    "Verification",
    "View",
    "Watch",
    "WrongKeyError",
]

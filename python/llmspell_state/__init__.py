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
from .scope import Scope
from .state import State
from .transaction import Transaction
from .verification import Verification
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
    "Scope",
    "State",
    "StateError",
    "StateIOError",
    "Transaction",
    "UnknownFormatError",
    "Verification",
    "Watch",
    "WrongKeyError",
]

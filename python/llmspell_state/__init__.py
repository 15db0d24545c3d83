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
from .merge import DELETE, LEAVE, OURS, THEIRS, MergeConflict, Merged, Resolution
from .retention import RetentionPolicy
from .scope import Scope
from .state import State
from .transaction import Transaction
from .usage import Cleanup, Usage
from .verification import Verification
from .view import View
from .watch import Watch

__all__ = [
    "DELETE",
    "LEAVE",
    "MISSING",
    "OURS",
    "THEIRS",
    "BackupInvalidError",
    "BusyError",
    "CancelledError",
    "Change",
    "Cleanup",
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
    "MergeConflict",
    "Merged",
    "MigrationFailedError",
    "Missing",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaExceededError",
    "Resolution",
    "RetentionPolicy",
    "Revision",
    "Scope",
    "State",
    "StateError",
    "StateIOError",
    "Transaction",
    "Undone",
    "UnknownFormatError",
    "Usage",
    "Verification",
    "View",
    "Watch",
    "WrongKeyError",
]

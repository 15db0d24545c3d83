"""What can go wrong: one class per kind, so that a caller can tell what to do next."""

from enum import Enum
from typing import ClassVar


class ErrorKind(str, Enum):
    """What a caller can do about an error. The names are the same in every language."""

    INVALID = "Invalid"
    CONFLICT = "Conflict"
    PERMISSION_DENIED = "PermissionDenied"
    QUOTA_EXCEEDED = "QuotaExceeded"
    BUSY = "Busy"
    CLOSED = "Closed"
    FORKED = "Forked"
    CANCELLED = "Cancelled"
    NOT_FOUND = "NotFound"
    WRONG_KEY = "WrongKey"
    CORRUPT = "Corrupt"
    DATA_LOSS = "DataLoss"
    UNKNOWN_FORMAT = "UnknownFormat"
    BACKUP_INVALID = "BackupInvalid"
    MIGRATION_FAILED = "MigrationFailed"
    DISK_FULL = "DiskFull"
    IO = "Io"
    COMMIT_UNKNOWN = "CommitUnknown"

    def __new__(cls, value: str) -> "ErrorKind":
        kind = str.__new__(cls, value)  # an enum of texts would also take the encoding of bytes
        kind._value_ = value
        return kind

    __str__ = str.__str__


class StateError(Exception):
    """Any failed call. Only its subclasses are raised."""

    kind: ClassVar[ErrorKind]
    """What to do about it; also the plain text, such as ``"Conflict"``."""


class InvalidError(StateError, ValueError):
    """An argument breaks a rule that the message names. Nothing was changed; mend the argument."""

    kind = ErrorKind.INVALID


class InvalidTypeError(InvalidError, TypeError):
    """An argument is of a type that the call does not take. Nothing was changed; mend the argument."""


class ConflictError(StateError):
    """Another writer changed what this call relied on. Nothing was changed; read again and retry."""

    kind = ErrorKind.CONFLICT


class PermissionDeniedError(StateError, PermissionError):
    """The operating system or the handle's rights refuse this. Nothing was changed."""

    kind = ErrorKind.PERMISSION_DENIED


class QuotaExceededError(StateError):
    """A bound on size or number would be passed. Nothing was changed."""

    kind = ErrorKind.QUOTA_EXCEEDED


class BusyError(StateError, TimeoutError):
    """Somebody else holds the store for longer than the configured patience. Try again later."""

    kind = ErrorKind.BUSY


class ClosedError(StateError):
    """The store or the transaction was finished before. Open a new one."""

    kind = ErrorKind.CLOSED


class ForkedError(StateError):
    """The handle was made before a fork and is used in the child. Open the store again in the child."""

    kind = ErrorKind.FORKED


class CancelledError(StateError):
    """The call was cancelled before it had any effect."""

    kind = ErrorKind.CANCELLED


class NotFoundError(StateError, FileNotFoundError, LookupError):
    """What was named does not exist, such as a file that must not be made. (A missing key by index is ``KeyError``.)"""

    kind = ErrorKind.NOT_FOUND


class WrongKeyError(StateError):
    """The key does not open this store."""

    kind = ErrorKind.WRONG_KEY


class CorruptError(StateError):
    """Stored bytes are damaged; the message names where. Restore from a backup."""

    kind = ErrorKind.CORRUPT


class DataLossError(StateError):
    """Acknowledged writes are missing from the files. Stop writing; restore or inspect."""

    kind = ErrorKind.DATA_LOSS


class UnknownFormatError(StateError):
    """The file is not a store, or was written by a newer version. It was left untouched."""

    kind = ErrorKind.UNKNOWN_FORMAT


class BackupInvalidError(StateError):
    """A backup cannot be used."""

    kind = ErrorKind.BACKUP_INVALID


class MigrationFailedError(StateError):
    """A migration step failed and was undone."""

    kind = ErrorKind.MIGRATION_FAILED


class DiskFullError(StateError, OSError):
    """The disk is full. Nothing was changed; free some space."""

    kind = ErrorKind.DISK_FULL


class StateIOError(StateError, OSError):
    """The operating system reported a failure of input or output."""

    kind = ErrorKind.IO


class CommitUnknownError(StateError):
    """The commit may or may not have happened. Read the key again to know."""

    kind = ErrorKind.COMMIT_UNKNOWN

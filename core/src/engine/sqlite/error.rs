//! SQLite's result codes as the errors of this crate. SQLite's words never stand alone.

use super::pages::describe_damage;
use crate::{Error, ErrorKind};
use rusqlite::ffi::{self, ErrorCode};

/// The error for what went wrong while doing `what` (a phrase such as "reading").
pub(crate) fn from_sqlite(what: &str, error: rusqlite::Error) -> Error {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => kind_of(*failure),
        _ => ErrorKind::Corrupt,
    };
    if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_DATA) {
        return Error::new(kind, format!("{what} failed: {}", describe_damage())).with_source(error);
    }
    let advice = match kind {
        ErrorKind::DiskFull => "the disk is full; free some space and try again",
        ErrorKind::Busy => "another process kept the store busy for too long; try again",
        ErrorKind::PermissionDenied => "the file or its directory cannot be written by this user",
        ErrorKind::Corrupt => "the file is damaged; restore it from a backup",
        ErrorKind::UnknownFormat => "the file is not a store",
        ErrorKind::QuotaExceeded => "the value is too large for the database",
        _ if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            "it or a file beside it cannot be opened; is the directory writable, and are there file descriptors left?"
        }
        _ => "the operating system reported a failure",
    };
    Error::new(kind, format!("{what} failed: {advice} ({error})")).with_source(error)
}

fn kind_of(failure: ffi::Error) -> ErrorKind {
    match failure.code {
        // A page does not match its check; see `pages`.
        _ if failure.extended_code == ffi::SQLITE_IOERR_DATA => ErrorKind::Corrupt,
        ErrorCode::DiskFull => ErrorKind::DiskFull,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => ErrorKind::Busy,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            ErrorKind::PermissionDenied
        }
        ErrorCode::NotADatabase => ErrorKind::UnknownFormat,
        ErrorCode::TooBig => ErrorKind::QuotaExceeded,
        ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::Unknown => {
            ErrorKind::Corrupt
        }
        _ => ErrorKind::Io,
    }
}

/// Whether the error says that somebody else holds a lock at this moment.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

//! One error type, few kinds; each kind tells a caller what to do next.

use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`]. There is a new kind only where a caller would act differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An argument breaks a rule that the message names. Nothing was changed; mend the argument.
    Invalid,
    /// Another writer changed what this call relied on. Nothing was changed; read again and retry.
    Conflict,
    /// The operating system or the handle's rights refuse this. Nothing was changed.
    PermissionDenied,
    /// A bound on size or number would be passed. Nothing was changed.
    QuotaExceeded,
    /// Somebody else holds the store for longer than the configured patience. Try again later.
    Busy,
    /// The store or the transaction was finished before. Open a new one.
    Closed,
    /// The handle was made before a `fork` and is used in the child. Open the store again in the child.
    Forked,
    /// The call was cancelled before it had any effect.
    Cancelled,
    /// What was named does not exist.
    NotFound,
    /// The key does not open this store.
    WrongKey,
    /// Stored bytes are damaged; the message names where. Restore from a backup.
    Corrupt,
    /// Acknowledged writes are missing from the files. Stop writing; restore or inspect.
    DataLoss,
    /// The file is not a store, or was written by a newer version. It was left untouched.
    UnknownFormat,
    /// A backup cannot be used.
    BackupInvalid,
    /// A migration step failed and was undone.
    MigrationFailed,
    /// The disk is full. Nothing was changed; free some space.
    DiskFull,
    /// The operating system reported a failure of input or output.
    Io,
    /// The commit may or may not have happened. Read the key again to know.
    CommitUnknown,
}

impl ErrorKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [ErrorKind; 18] = [
        Self::Invalid,
        Self::Conflict,
        Self::PermissionDenied,
        Self::QuotaExceeded,
        Self::Busy,
        Self::Closed,
        Self::Forked,
        Self::Cancelled,
        Self::NotFound,
        Self::WrongKey,
        Self::Corrupt,
        Self::DataLoss,
        Self::UnknownFormat,
        Self::BackupInvalid,
        Self::MigrationFailed,
        Self::DiskFull,
        Self::Io,
        Self::CommitUnknown,
    ];

    /// The kind's name as every language shows it, for example `"Conflict"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Conflict => "Conflict",
            Self::PermissionDenied => "PermissionDenied",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::Busy => "Busy",
            Self::Closed => "Closed",
            Self::Forked => "Forked",
            Self::Cancelled => "Cancelled",
            Self::NotFound => "NotFound",
            Self::WrongKey => "WrongKey",
            Self::Corrupt => "Corrupt",
            Self::DataLoss => "DataLoss",
            Self::UnknownFormat => "UnknownFormat",
            Self::BackupInvalid => "BackupInvalid",
            Self::MigrationFailed => "MigrationFailed",
            Self::DiskFull => "DiskFull",
            Self::Io => "Io",
            Self::CommitUnknown => "CommitUnknown",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: its kind, a message for people, and the cause where there is one.
///
/// The message names the argument, the limit, what was given (shortened) and the next step.
/// Match on [`Error::kind`]; the message is not part of the interface.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An argument that breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The error of a handle that is used in a fork of the process that made it.
    #[must_use]
    pub fn forked() -> Self {
        Self::new(
            ErrorKind::Forked,
            "this store was opened before a fork and belongs to the parent process; open it again in the child",
        )
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::new(ErrorKind::Closed, format!("{what} is closed; open a new one"))
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, naming what it is about unless it does already.
    #[must_use]
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        if !self.message.contains(&what) {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }

    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// One group of requests fails as a whole; every request gets an error of its own.
impl Clone for Error {
    fn clone(&self) -> Self {
        let source = self.source.as_ref().map(|source| source.to_string().into());
        Self { kind: self.kind, message: self.message.clone(), source }
    }
}

/// Text of a user, shortened for a message.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

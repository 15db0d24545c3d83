//! The core's errors as exceptions: one class per kind, defined in `llmspell_state.errors`.

use llmspell_state_persistence::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::error::Error as _;

/// The exception class of each kind. A kind without one does not compile.
const fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid => "InvalidError",
        ErrorKind::Conflict => "ConflictError",
        ErrorKind::PermissionDenied => "PermissionDeniedError",
        ErrorKind::QuotaExceeded => "QuotaExceededError",
        ErrorKind::Busy => "BusyError",
        ErrorKind::Closed => "ClosedError",
        ErrorKind::Forked => "ForkedError",
        ErrorKind::Cancelled => "CancelledError",
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::WrongKey => "WrongKeyError",
        ErrorKind::Corrupt => "CorruptError",
        ErrorKind::DataLoss => "DataLossError",
        ErrorKind::UnknownFormat => "UnknownFormatError",
        ErrorKind::BackupInvalid => "BackupInvalidError",
        ErrorKind::MigrationFailed => "MigrationFailedError",
        ErrorKind::DiskFull => "DiskFullError",
        ErrorKind::Io => "StateIOError",
        ErrorKind::CommitUnknown => "CommitUnknownError",
    }
}

/// The module of the classes.
fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    Ok(MODULE.get_or_try_init(py, || py.import("llmspell_state.errors").map(Bound::unbind))?.bind(py))
}

pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    module(py).map(drop)
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    module(py)?.getattr(name)
}

fn exception(py: Python<'_>, name: &str, message: &str) -> PyErr {
    match class(py, name).and_then(|class| class.call1((message,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The exception for an error of the core, with its cause as `__cause__`.
pub(crate) fn to_py(error: Error) -> PyErr {
    Python::attach(|py| {
        let raised = exception(py, class_name(error.kind()), error.message());
        if let Some(cause) = error.source() {
            raised.set_cause(py, Some(PyRuntimeError::new_err(cause.to_string())));
        }
        raised
    })
}

/// The outcome of ending a block that an exception leaves. In a fork the block is the parent's to end, and the exception,
/// often `SystemExit`, must get out.
pub(crate) fn unless_forked(ended: Result<(), Error>) -> PyResult<()> {
    match ended {
        Err(error) if error.kind() == ErrorKind::Forked => Ok(()),
        ended => ended.map_err(to_py),
    }
}

/// An argument of a type that the verb does not take: `InvalidError` and `TypeError` at once.
pub(crate) fn wrong_type(what: &str, takes: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let name =
        given.get_type().fully_qualified_name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    invalid_type(given.py(), &format!("{what} takes {takes}, not {name}"))
}

/// An argument of a type that the verb does not take, in words of its own.
pub(crate) fn invalid_type(py: Python<'_>, message: &str) -> PyErr {
    exception(py, "InvalidTypeError", message)
}

/// An argument of the right type that breaks a rule.
pub(crate) fn invalid(message: impl Into<String>) -> PyErr {
    to_py(Error::invalid(message))
}

/// What a callback can fail with: the core's error or whatever Python raised.
pub(crate) enum Failure {
    Core(Error),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Core(error) => to_py(error),
            Failure::Python(error) => error,
        }
    }
}

impl Failure {
    /// Whether another writer was faster, as the core says it or as a verb inside the callback raised it.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Self::Core(error) => error.kind() == ErrorKind::Conflict,
            Self::Python(error) => Python::attach(|py| {
                class(py, class_name(ErrorKind::Conflict))
                    .is_ok_and(|conflict| error.matches(py, conflict).unwrap_or(false))
            }),
        }
    }
}

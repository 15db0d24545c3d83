//! Calls of the core, with the interpreter let go meanwhile.

use crate::error::Failure;
use llmspell_state_persistence::interruptible;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;

thread_local! {
    /// What a signal's handler raised while a call was waiting.
    static RAISED: Cell<Option<PyErr>> = const { Cell::new(None) };
    /// Whether this is Python's main thread, the only one in which it handles signals; nothing until somebody has asked.
    static IS_MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Runs `work` with the interpreter let go. While it waits for other writers, signals are handled, and what a handler
/// raises, as Ctrl-C does, ends it.
pub(crate) fn detached<T: Send, E: Into<Failure> + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    let done = if is_ending() {
        work()
    } else if is_main(py)? {
        py.detach(|| interruptible(signalled, work))
    } else {
        py.detach(work)
    };
    match RAISED.take() {
        // Even if the call was past being interrupted: the handler will not be asked again.
        Some(raised) => Err(raised),
        None => done.map_err(|failure| failure.into().into()),
    }
}

/// Whether the interpreter is being taken apart. What finalizers call then must not let it go: it could not be had again,
/// neither for a function to be called back nor for signals.
#[allow(unsafe_code)]
fn is_ending() -> bool {
    // SAFETY: may be called at any time, by any thread.
    unsafe { ffi::Py_IsInitialized() == 0 }
}

/// A thread that is not the main one must not ask for the interpreter while it waits: when that ends it would hang there,
/// and whoever closes the store would wait for it.
fn is_main(py: Python<'_>) -> PyResult<bool> {
    if let Some(is_main) = IS_MAIN.get() {
        return Ok(is_main);
    }
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    let is_main = main.eq(threading.call_method0("get_ident")?)?;
    IS_MAIN.set(Some(is_main));
    Ok(is_main)
}

fn signalled() -> bool {
    Python::attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(raised) => {
            RAISED.set(Some(raised));
            true
        }
    })
}

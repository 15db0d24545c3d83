//! `Retry`: the pauses between attempts, which a loop has to make in its own way.

use crate::argument::Attempts;
use llmspell_state_persistence as core;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// The attempts that are left after a conflict.
#[pyclass(frozen, module = "llmspell_state._native")]
pub(crate) struct Retry(Mutex<core::Retry>);

#[pymethods]
impl Retry {
    /// At most `attempts` in all; without a number, as many as everywhere.
    #[new]
    #[pyo3(signature = (attempts: "int | None" = None))]
    fn py_new(attempts: Option<Attempts>) -> Self {
        let attempts = attempts.map_or(core::limits::ATTEMPTS, |attempts| attempts.0);
        Self(Mutex::new(core::Retry::new(attempts)))
    }

    /// After a failed attempt: the seconds to wait before the next one; `None` when there is none.
    fn pause(&self) -> Option<f64> {
        let pause = self.0.lock().unwrap_or_else(PoisonError::into_inner).pause();
        pause.map(|pause| pause.as_secs_f64())
    }
}

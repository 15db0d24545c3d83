//! Listings for an event loop: pages are fetched by threads of the core, and given key by key.

use super::completions::{Completions, later};
use super::give;
use crate::error::to_py;
use crate::{history, value};
use llmspell_state_persistence as core;
use llmspell_state_persistence::{Call, Difference, Error, limits};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Whose thread fetches the pages.
pub(super) enum Source {
    Scope(core::Scope),
    Transaction(core::Transaction),
    View(core::View),
}

impl Source {
    fn call(&self, work: impl FnOnce() -> core::Result<()> + Send + 'static) -> Call<()> {
        match self {
            Self::Scope(scope) => scope.call(|_| work()),
            Self::Transaction(transaction) => transaction.call(|_| work()),
            Self::View(view) => view.call(|_| work()),
        }
    }
}

macro_rules! sources {
    ($($name:ident),*) => {$(
        impl From<&core::$name> for Source {
            fn from(handle: &core::$name) -> Self {
                Self::$name(handle.clone())
            }
        }
    )*};
}
sources! { Scope, Transaction, View }

/// The core's listings as this needs them.
pub(super) trait Pages: Iterator<Item = core::Result<Self::Each>> + Send + 'static {
    type Each;
    fn is_buffered(&self) -> bool;
    fn fill(&mut self) -> core::Result<()>;
}

impl Pages for core::Keys {
    type Each = String;

    fn is_buffered(&self) -> bool {
        Self::is_buffered(self)
    }

    fn fill(&mut self) -> core::Result<()> {
        Self::fill(self)
    }
}

impl Pages for core::Items {
    type Each = (String, Arc<core::Entry>);

    fn is_buffered(&self) -> bool {
        Self::is_buffered(self)
    }

    fn fill(&mut self) -> core::Result<()> {
        Self::fill(self)
    }
}

/// Differences, of which several are found at a time.
pub(crate) struct Gathered {
    differences: core::Differences,
    found: VecDeque<core::Result<Difference>>,
    is_at_end: bool,
}

impl From<core::Differences> for Gathered {
    fn from(differences: core::Differences) -> Self {
        Self { differences, found: VecDeque::new(), is_at_end: false }
    }
}

impl Iterator for Gathered {
    type Item = core::Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        self.found.pop_front()
    }
}

impl Pages for Gathered {
    type Each = Difference;

    fn is_buffered(&self) -> bool {
        self.is_at_end || !self.found.is_empty()
    }

    fn fill(&mut self) -> core::Result<()> {
        let mut bytes = 0;
        while self.found.len() < limits::PAGE && bytes < limits::PAGE_BYTES {
            let Some(difference) = self.differences.next() else {
                self.is_at_end = true;
                break;
            };
            let size = |value: &Option<core::Document>| value.as_ref().map_or(0, |value| value.text().len());
            bytes += match &difference {
                Ok(found) => size(&found.from) + size(&found.to),
                Err(_) => limits::PAGE_BYTES, // it is given in its turn, before more is looked for
            };
            self.found.push_back(difference);
        }
        Ok(())
    }
}

enum Stage<P> {
    /// Its first page says as of when it is.
    NotBegun(Box<dyn FnOnce() -> core::Result<P> + Send>),
    Under(P),
    /// To be told to the next who asks: whoever waited may have been cancelled.
    Failed(Error),
    Ended,
}

struct Listing<P> {
    source: Source,
    stage: Arc<Mutex<Stage<P>>>,
}

impl<P: Pages> Stage<P> {
    fn fill(&mut self) {
        if let Self::NotBegun(_) = self
            && let Self::NotBegun(begin) = std::mem::replace(self, Self::Ended)
        {
            *self = begin().map_or_else(Self::Failed, Self::Under);
        }
        if let Self::Under(pages) = self
            && let Err(error) = pages.fill()
        {
            *self = Self::Failed(error);
        }
    }
}

impl<P: Pages> Listing<P> {
    fn new(source: Source, begin: impl FnOnce() -> core::Result<P> + Send + 'static) -> Self {
        Self { source, stage: Arc::new(Mutex::new(Stage::NotBegun(Box::new(begin)))) }
    }

    /// The next one, if it was fetched already.
    fn next(&self) -> PyResult<Option<P::Each>> {
        // Whoever has the lock is fetching, in another process if this is a fork.
        let Ok(mut stage) = self.stage.try_lock() else { return Ok(None) };
        let end = || PyStopAsyncIteration::new_err(());
        match &mut *stage {
            Stage::Under(pages) if pages.is_buffered() => pages.next().ok_or_else(end)?.map(Some).map_err(to_py),
            Stage::NotBegun(_) | Stage::Under(_) => Ok(None),
            Stage::Ended => Err(end()),
            Stage::Failed(_) => match std::mem::replace(&mut *stage, Stage::Ended) {
                Stage::Failed(error) => Err(to_py(error)),
                _ => Err(end()),
            },
        }
    }

    fn fill<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
        let stage = Arc::clone(&self.stage);
        let fill = move || {
            stage.lock().unwrap_or_else(PoisonError::into_inner).fill();
            Ok(())
        };
        later(to, future, Ok(self.source.call(fill)), give::nothing)
    }
}

macro_rules! listings {
    ($($(#[$doc:meta])* $name:ident($pages:ty): |$py:ident, $each:pat_param| $give:expr;)*) => {$(
        $(#[$doc])*
        #[pyclass(frozen, module = "llmspell_state._native")]
        pub(crate) struct $name(Listing<$pages>);

        impl $name {
            pub(super) fn new(
                source: Source,
                begin: impl FnOnce() -> core::Result<$pages> + Send + 'static,
            ) -> Self {
                Self(Listing::new(source, begin))
            }
        }

        #[pymethods]
        impl $name {
            /// The next one, or `unknown` when it is to be fetched; `StopAsyncIteration` after the last.
            #[pyo3(signature = (unknown: "object") -> "typing.Any")]
            fn next<'py>(&self, $py: Python<'py>, unknown: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
                match self.0.next()? {
                    Some($each) => $give,
                    None => Ok(unknown),
                }
            }

            /// Fetches the next page.
            #[pyo3(signature = (to: "Completions", future: "asyncio.Future[None]") -> "None")]
            fn fill<'py>(&self, to: &Bound<'py, Completions>, future: Bound<'py, PyAny>) -> PyResult<()> {
                self.0.fill(to, future)
            }
        }
    )*};
}

listings! {
    /// Keys.
    AsyncKeys(core::Keys): |py, key| key.into_bound_py_any(py);
    /// Keys and values.
    AsyncItems(core::Items): |py, (key, entry)| (key, value::read_passing(py, &entry)?).into_bound_py_any(py);
    /// Differences.
    AsyncDifferences(Gathered): |py, difference| history::difference(py, &difference);
    /// Values.
    AsyncValues(core::Items): |py, (_, entry)| value::read_passing(py, &entry);
}

//! `llmspell_state._native`: takes Python's arguments, lets the interpreter go, calls the core, gives objects back.
//!
//! There are no rules here. What a key may be, what an error says and when a commit counts is the core's business; what
//! Python adds on top (mapping views, keyword defaults) is in `python/llmspell_state`.
#![allow(clippy::needless_pass_by_value)] // arguments of a method for Python are handed over by value

mod aio;
mod argument;
mod call;
mod callback;
mod change;
mod config;
mod entry;
mod error;
mod history;
mod iterators;
mod merge;
mod retention;
mod scope;
mod state;
mod transaction;
mod ttl;
mod usage;
mod value;
mod verbs;
mod verification;
mod view;
mod watch;

/// What a loop's thread allocates the writer's thread gives back, and the other way round, for every call: the system's allocator
/// takes a lock for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The compiled part of `llmspell_state`; import the names from there.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::aio::{
        AsyncDifferences, AsyncItems, AsyncKeys, AsyncMerge, AsyncScope, AsyncState, AsyncTransaction, AsyncValues,
        AsyncView, AsyncWatch, Completions, Retry,
    };
    #[pymodule_export]
    use super::iterators::{Differences, Items, Keys, Values};
    #[pymodule_export]
    use super::scope::Scope;
    #[pymodule_export]
    use super::state::State;
    #[pymodule_export]
    use super::transaction::Transaction;
    #[pymodule_export]
    use super::view::View;
    #[pymodule_export]
    use super::watch::Watch;
}

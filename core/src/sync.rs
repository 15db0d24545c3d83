//! The locks of the pipeline. The schedule models compile the pipeline with others in their place, which try every order of steps.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

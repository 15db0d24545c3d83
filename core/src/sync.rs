//! The locks of the pipeline. The schedule models (`tests/crash/models`) take their own, which try every order of steps.

#[cfg(models)]
pub(crate) use crate::models::sync::{AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, fence};
#[cfg(not(models))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
#[cfg(not(models))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

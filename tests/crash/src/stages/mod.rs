//! The stages, in the order in which they run.

pub mod damage;
pub mod ext4;
mod faults;
mod full;
mod hosts;
pub mod keep;
pub mod linear;
mod power;
mod processes;
mod removal;
pub mod serial;
mod storm;
pub mod watch;

use crate::Stage;

/// Every stage.
pub const ALL: &[Stage] = &[
    faults::FAULTS,
    full::FULL,
    hosts::PYTHON,
    hosts::LUA,
    storm::KILLS,
    damage::DAMAGE,
    keep::KEEP,
    processes::PROCESSES,
    removal::REMOVAL,
    power::POWER,
    ext4::EXT4,
    linear::LINEAR,
    serial::SERIAL,
    watch::WATCH,
    hosts::MODELS,
];

//! The stages, in the order in which they run.

pub mod ext4;
mod hosts;
mod power;
mod storm;

use crate::Stage;

/// Every stage.
pub const ALL: &[Stage] = &[hosts::PYTHON, hosts::LUA, storm::KILLS, power::POWER, ext4::EXT4];

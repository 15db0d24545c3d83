//! The stages, in the order in which they run.

mod hosts;

use crate::Stage;

/// Every stage.
pub const ALL: &[Stage] = &[hosts::PYTHON, hosts::LUA];

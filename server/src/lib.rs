//! placeholder

pub mod config;
pub mod log;

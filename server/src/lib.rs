//! placeholder

pub mod app_api;
pub mod auth;
pub mod config;
pub mod demo;
pub mod http;
pub mod log;
pub mod permissions;

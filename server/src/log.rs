//! Log output: text for people or one JSON object a line, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat, LogLevel};

/// Crates whose debug lines are about themselves, not about this server.
const QUIET: &[&str] = &[
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "fjall",
    "lsm_tree",
    "h2",
    "tokio_postgres",
];

/// Starts logging. Called again in one process, it does nothing.
pub fn init(log: Log) {
    let level = match log.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    let quiet = QUIET.iter().map(|name| format!(",{name}=warn"));
    let filter: String = std::iter::once(level.to_owned()).chain(quiet).collect();
    let builder = fmt()
        .with_env_filter(EnvFilter::new(filter))
        // Colours are for eyes, not for files and collectors.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // The error says that somebody else has started logging already, which is fine.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

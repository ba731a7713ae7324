//! The kelvin sync server: client groups, pokes, auth, permissions, mutations, HTTP and WebSocket.
//!
//! Everything that knows clients lives here; see the modules. [`serve::run`] is the whole server as
//! one call, which is how the `kelvin` binary and the demo use it.
//!
//! It is **not** a library with a stable interface: the binary is the product.
//!
//! # Invariants
//! * A fault of one connection, query or client group stays with it.
//! * Nothing that blocks runs on a Tokio worker: commits, evaluations and disk have threads of
//!   their own.
//! * Every queue has a bound, and a policy for when it is full.
//!
//! # Example
//! ```
//! use kelvin_server::config::{Config, ConfigError, Environment};
//!
//! let environment: Environment = [("NODE_ENV".into(), "development".into())].into();
//! let directory = std::env::temp_dir().join("no such directory");
//! let error = Config::load(Vec::new(), &environment, &directory).unwrap_err();
//! assert!(matches!(error, ConfigError::Missing(option) if option == "ZERO_UPSTREAM_DB"));
//! ```

pub mod analysis;
pub mod app_api;
pub mod auth;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod http;
pub mod log;
pub mod mutation;
pub mod permissions;
mod query_report;
mod replica_report;
pub mod report;
pub mod serve;
pub mod sync;

//! The doctor: whether a PostgreSQL has everything replication needs, and how to mend what it has
//! not.
//!
//! It looks and changes nothing. Every check runs in a read-only transaction of its own, settings
//! included, so that not even a pooler hands anything on. What a role may do is looked up in the
//! catalogs, never tried.
//!
//! A check that fails by itself is a finding too; the others go on.

mod capacity;
mod connection;
mod examination;
mod failover;
mod finding;
mod pooler;
mod privileges;
mod provider;
mod publications;
mod replica;
mod server;
mod settings;
mod slots;
mod tables;
mod transactions;

use std::time::Duration;

pub use examination::examine;
pub use finding::{Finding, State};

/// Application name of the doctor's connections.
const APPLICATION: &str = "kelvin-doctor";

/// How long an examination may take, and from when on something takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest a statement may run in PostgreSQL.
    pub query: Duration,
    /// Longest one check may take, connecting included.
    pub check: Duration,
    /// Longest all of them may take together.
    pub total: Duration,
    /// Age from which an open transaction is called long.
    pub long_transaction: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query: Duration::from_secs(5),
            check: Duration::from_secs(20),
            total: Duration::from_secs(60),
            long_transaction: Duration::from_secs(3600),
        }
    }
}

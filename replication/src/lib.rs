//! Everything the kelvin sync server says to PostgreSQL about replication.
//!
//! [`prepare`] checks the server, sets up what kelvin keeps in it, and opens the replica or copies
//! a new one. [`Prepared::run`] then follows the stream of changes and applies them, until it is
//! told to stop or the replica no longer continues the upstream.
//!
//! It is **not** a general PostgreSQL client, it does not decide what clients see, and it keeps
//! nothing that PostgreSQL does not have: a lost replica is copied again.
//!
//! # Invariants
//! * A version is the LSN of the commit record of an upstream transaction, or that and a number
//!   that makes up for LSNs that went back.
//! * PostgreSQL is told that something is durable only after the replica was fsynced with it.
//! * A value is the same whether it came by copy or by stream.
//! * `{app}_{n}.clients` upstream, which holds the last mutation ids, is never dropped or emptied.
//! * A table, column or server that cannot be replicated is named with the reason and what to do.
//!
//! # Example
//! ```no_run
//! use std::sync::Arc;
//!
//! use kelvin_replication::{CommitListener, ErrorKind, Options, discard, prepare};
//! use kelvin_storage::Applied;
//! use tokio_util::sync::CancellationToken;
//!
//! struct Print;
//!
//! impl CommitListener for Print {
//!     fn committed(&self, applied: Applied) {
//!         println!("{} rows changed", applied.changes.len());
//!     }
//! }
//!
//! # async fn example() -> Result<(), kelvin_replication::Error> {
//! let options = Options {
//!     upstream: "postgres://user:pass@localhost/app".into(),
//!     replica_dir: "replica".into(),
//!     ..Options::default()
//! };
//! let shutdown = CancellationToken::new();
//! loop {
//!     let prepared = prepare(&options, Arc::new(())).await?;
//!     match prepared.run(Arc::new(Print), shutdown.clone()).await {
//!         Err(error) if error.kind() == ErrorKind::Resync => discard(&options).await?,
//!         outcome => return outcome,
//!     }
//! }
//! # }
//! ```

mod address;
mod advice;
mod backfill;
#[cfg(test)]
#[path = "../tests/postgres/cluster.rs"]
#[expect(dead_code, reason = "the tests of the streams need more of it")]
mod cluster;
#[cfg(test)]
extern crate self as kelvin_replication;
mod copy;
mod decode;
mod discovery;
pub mod doctor;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod lineage;
mod listener;
mod lsn;
mod options;
mod preflight;
mod prepare;
mod progress;
mod quote;
mod resync;
mod run;
mod shift;
mod sql;
mod stream;
mod timeline;
mod tls;
mod upstream;
mod wire;

pub use address::{Address, Host, TlsMode};
pub use backfill::{Backfill, Backfills};
pub use error::{Error, ErrorKind, Result, ServerError};
pub use listener::CommitListener;
pub use lsn::{Lsn, NotAnLsn};
pub use options::Options;
pub use prepare::{Prepared, discard, prepare};
pub use progress::{CopyProgress, Progress};
pub use resync::Resynced;
pub use shift::upstream_lsn;
pub use sql::connect_sql;
pub use stream::{Lag, LagReport};

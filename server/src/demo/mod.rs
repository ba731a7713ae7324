//! `kelvin demo`: a sample application on a throwaway PostgreSQL, in one command.
//!
//! It finds an installed PostgreSQL, starts it on a directory of its own, fills it with an issue
//! tracker, starts kelvin on it, serves the page in `server/demo`, and lets simulated people work
//! in it. When it ends, nothing of it is left.
//!
//! The sync server itself is passed in ([`Serve`]), so that this module is an ordinary user of
//! kelvin: it knows a PostgreSQL address and a port, nothing of what is inside.
//!
//! # What holds
//! - Whatever was started is stopped and whatever was written is removed, however a step fails.
//!   What a killed demo left behind is removed when the next one starts (`home`).
//! - PostgreSQL never runs as root and listens on the loopback interface only, with a password.
//! - The sample data depend on the seed and the number of issues alone; times are relative to now.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kelvin_server::demo::{self, Options, Serve};
//!
//! let options = Options::parse(["--issues", "1000"].map(String::from))?;
//! let serve: Serve = Box::new(|request| {
//!     Box::pin(async move {
//!         // … start kelvin on request.upstream, then:
//!         let _ = request.ready.send(());
//!         request.shutdown.cancelled().await;
//!         Ok(())
//!     })
//! });
//! demo::run(options, serve).await?;
//! # Ok(()) }
//! ```

mod activity;
mod assets;
mod cluster;
mod content;
mod copy;
mod error;
mod home;
mod load;
mod options;
mod permissions;
mod progress;
mod schema;
mod stage;
mod summary;
mod web;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use error::{Error, ErrorKind};
pub use options::{HELP, Options};

use home::Home;

/// What a sync server needs to know to serve the demo.
#[derive(Debug)]
pub struct ServeRequest {
    /// Address of the demo's PostgreSQL, for ordinary and replication connections.
    pub upstream: String,
    /// The application id: names the schema the sync server keeps its upstream tables in.
    pub app_id: String,
    /// TCP port for sync clients.
    pub port: u16,
    /// An empty directory for the replica. It is removed when the demo ends.
    pub replica_dir: PathBuf,
    /// Cancelled when the demo ends; the server then returns.
    pub shutdown: CancellationToken,
    /// To be told once the server accepts clients.
    pub ready: oneshot::Sender<()>,
}

/// What a sync server's run comes to.
pub type Served = Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>;

/// Whatever made a sync server end.
pub type ServeError = Box<dyn std::error::Error + Send + Sync>;

/// Starts a sync server and runs it until the request's `shutdown`.
pub type Serve = Box<dyn FnOnce(ServeRequest) -> Served + Send>;

/// Runs the demo until it is interrupted (SIGINT or SIGTERM), then removes all of it.
///
/// # Errors
/// When a step fails: no usable PostgreSQL, no built page, a taken port, or a server that ended by
/// itself. Everything is cleaned up by then; the message says what to do.
pub async fn run(options: Options, serve: Serve) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let watcher = tokio::spawn(stage::cancel_on_signal(shutdown.clone()));
    let outcome = run_until(options, serve, shutdown).await;
    watcher.abort();
    outcome
}

/// Runs the demo until `shutdown`, then removes all of it. Signals are the caller's business.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    options: Options,
    serve: Serve,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let home = Home::create()?;
    let outcome = Box::pin(stage::run(&options, serve, &home, &shutdown)).await;
    let removed = home.remove();
    match outcome {
        Err(Error::Interrupted) | Ok(()) => removed,
        Err(error) => Err(error),
    }
}

//! How a CRUD mutation ends.

use kelvin_protocol::{ErrorBody, ErrorKind};
use tokio_postgres::error::SqlState;

/// Reconnect delay asked of clients while the upstream cannot be used, milliseconds.
const UPSTREAM_BACKOFF_MS: u64 = 5_000;

/// A mutation is done with: the client's id stands at or beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executed {
    /// It was applied.
    Applied,
    /// It had been applied before.
    AlreadyProcessed,
    /// It was not allowed; only the id advanced. Not an error: the client sees its change revert.
    Denied,
}

/// A mutation failed.
#[derive(Debug)]
pub(super) struct CrudFailure {
    /// What the client is told.
    pub(super) body: ErrorBody,
    /// Whether the connection ends with it.
    pub(super) close: bool,
}

impl CrudFailure {
    /// It cannot be executed; its id advanced, so that the client goes on with the next.
    pub(super) fn failed(message: &str) -> Self {
        Self {
            body: ErrorBody::new(ErrorKind::MutationFailed, message),
            close: false,
        }
    }

    /// One before it is missing.
    pub(super) fn out_of_order(received: u64, expected: i64) -> Self {
        let message =
            format!("Push contains unexpected mutation id {received}, expected {expected}.");
        Self {
            body: ErrorBody::new(ErrorKind::InvalidPush, message),
            close: true,
        }
    }

    /// The upstream cannot be used for now. The client comes back and sends it again; if it was
    /// applied after all, its id says so.
    pub(super) fn unavailable() -> Self {
        let message = "The database cannot be written to right now.";
        Self {
            body: ErrorBody {
                min_backoff_ms: Some(UPSTREAM_BACKOFF_MS),
                max_backoff_ms: None,
                ..ErrorBody::rehome(message, 0)
            },
            close: true,
        }
    }
}

/// Why one transaction was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Abort {
    /// It collided with another one; try again.
    #[error("it collided with others too often")]
    Serialization,
    /// The mutation itself is at fault.
    #[error("{0}")]
    Rejected(String),
    /// A mutation before it is missing.
    #[error("mutation {0} was expected")]
    OutOfOrder(i64),
    /// The upstream is.
    #[error("{0}")]
    Unavailable(String),
}

impl From<tokio_postgres::Error> for Abort {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            return Self::Unavailable(error.to_string());
        };
        let code = server.code();
        if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED
        {
            return Self::Serialization;
        }
        // Connection trouble, want of resources, an operator's doing, an I/O error; a standby, or a
        // database set to read only. A statement that ran into a timeout would do so again.
        let may_pass = ["08", "53", "57P", "58"]
            .iter()
            .any(|class| code.code().starts_with(class));
        if may_pass || *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            return Self::Unavailable(server.to_string());
        }
        Self::Rejected(server.message().to_owned())
    }
}

//! What can go wrong, and what the caller should do about it.

use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller does about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It may pass by itself: try again after a while.
    Retry,
    /// The replica no longer continues the upstream: [`discard`](crate::discard) it and
    /// [`prepare`](crate::prepare) anew.
    Resync,
    /// Only the operator can mend it; the message says how.
    Config,
    /// The replica on the local disk failed: see [`Error::reopens`]; else end the process, or wipe
    /// the replica where it is corrupt.
    Storage,
}

/// Any failure of replication.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something the operator has to mend. The text says what to do.
    #[error("{0}")]
    Config(String),
    /// The server cannot be reached; the text says what to check. An operator's error at the first
    /// start, but one that passes by itself while a server restarts: see [`Error::may_pass`].
    #[error("{0}")]
    Unreachable(String),
    /// The replica has to be copied anew; the text says why.
    #[error("{0}")]
    Resync(String),
    /// PostgreSQL answered with an error.
    #[error("PostgreSQL: {0}")]
    Server(#[from] ServerError),
    /// An ordinary SQL statement failed.
    #[error("PostgreSQL: {}", describe_sql(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// The connection failed.
    #[error("connection to PostgreSQL: {0}")]
    Io(#[from] io::Error),
    /// The server said something that is not in the protocol.
    #[error("PostgreSQL protocol: {0}")]
    Protocol(String),
    /// The stream brings something in binary form that is only understood as text; it is begun anew
    /// in text by itself.
    #[error("the stream goes on in text: {0}")]
    NotInBinary(String),
    /// A transaction in progress cannot be kept until it commits; the stream is begun anew by
    /// itself, and PostgreSQL keeps it.
    #[error("the stream goes on without transactions in progress: {0}")]
    Unspooled(String),
    /// Something took too long.
    #[error("{0}")]
    Timeout(String),
    /// The replica failed.
    #[error("replica: {0}")]
    Storage(#[from] kelvin_storage::Error),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Unreachable(_) => ErrorKind::Config,
            Self::Resync(_) => ErrorKind::Resync,
            Self::Server(error) => kind_of_sqlstate(&error.code),
            Self::Sql(error) => error
                .code()
                .map_or(ErrorKind::Retry, |code| kind_of_sqlstate(code.code())),
            Self::Io(_)
            | Self::Protocol(_)
            | Self::NotInBinary(_)
            | Self::Unspooled(_)
            | Self::Timeout(_) => ErrorKind::Retry,
            Self::Storage(_) => ErrorKind::Storage,
        }
    }

    /// Whether trying again later may help, of whatever kind the error is.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_)) || self.kind() == ErrorKind::Retry
    }

    /// Whether opening the replica again, after a while, is what helps: the disk was full, or
    /// writing failed. Every handle on it has to be dropped before.
    #[must_use]
    pub fn reopens(&self) -> bool {
        use kelvin_storage::{ErrorKind, Remedy};
        match self {
            Self::Storage(error) => match error.kind() {
                // A handle that is still held, and a disk that may come back.
                ErrorKind::Locked | ErrorKind::Io => true,
                kind => kind.remedy() == Remedy::Reopen,
            },
            _ => false,
        }
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            Self::Sql(error) => error.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }
}

/// Authorisation failures and a missing database do not pass by themselves; everything else may.
fn kind_of_sqlstate(code: &str) -> ErrorKind {
    match code {
        "3D000" | "42501" => ErrorKind::Config,
        _ if code.starts_with("28") => ErrorKind::Config,
        _ => ErrorKind::Retry,
    }
}

fn describe_sql(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => ServerError::from(db).to_string(),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// An `ErrorResponse` of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code}){}{}", suffix("detail", .detail), suffix("hint", .hint))]
pub struct ServerError {
    /// Five characters that name the condition.
    pub code: String,
    /// Primary message.
    pub message: String,
    /// More about it, or nothing.
    pub detail: String,
    /// What the server suggests, or nothing.
    pub hint: String,
}

fn suffix(name: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("; {name}: {text}")
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().unwrap_or_default().to_owned(),
            hint: error.hint().unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> Error {
        Error::Server(ServerError {
            code: code.into(),
            ..ServerError::default()
        })
    }

    #[test]
    fn a_full_disk_is_a_reason_to_open_the_replica_again_and_a_corrupt_one_is_not() {
        let full = kelvin_storage::Error::DiskFull { path: "/r".into() };
        assert!(Error::from(full).reopens());
        assert!(Error::from(kelvin_storage::Error::Poisoned).reopens());
        assert!(!Error::from(kelvin_storage::Error::Corrupt("x".into())).reopens());
        assert!(!Error::Config("x".into()).reopens());
    }

    #[test]
    fn only_what_an_operator_must_mend_is_a_config_error() {
        for code in ["28P01", "28000", "3D000", "42501"] {
            assert_eq!(server(code).kind(), ErrorKind::Config, "{code}");
        }
        for code in ["57P01", "53300", "55006", "08006"] {
            assert_eq!(server(code).kind(), ErrorKind::Retry, "{code}");
        }
    }
}

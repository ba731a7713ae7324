//! What can go wrong, and what to do about it.

use kelvin_protocol::Version;

/// Why a query could not be planned, evaluated or advanced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query names a table that is not replicated.
    #[error("table {0:?} does not exist or is not published; add it to the publication")]
    UnknownTable(String),
    /// The query names a table that is published but cannot be synced.
    #[error("table {table:?} cannot be synced: {reason}")]
    UnsyncedTable {
        /// The table.
        table: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The query names a column that is not replicated.
    #[error("table {table:?} has no column {column:?}{note}")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Why it is not held, where it exists upstream; starts with a colon, or is empty.
        note: String,
    },
    /// A parameter such as `authData` was not replaced by a value before planning.
    #[error("parameter {0:?} is not bound to a value")]
    UnboundParameter(String),
    /// A part of the query makes no sense.
    #[error("invalid query on table {table:?}: {problem}")]
    Invalid {
        /// The table of the (sub)query.
        table: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The query examined more rows than it may.
    #[error("query examined more than {max_rows} rows")]
    Budget {
        /// The limit that was set.
        max_rows: u64,
    },
    /// The caller's stop condition or the receiver of rows ended the evaluation.
    #[error("evaluation was stopped before its end")]
    Stopped,
    /// State and changes do not fit together; the state must be hydrated anew.
    #[error("plan state at version {state} cannot take changes from {from} to {to}: {problem}")]
    Stale {
        /// Version of the state.
        state: Version,
        /// Version the changes start at.
        from: Version,
        /// Version the changes lead to.
        to: Version,
        /// What does not fit.
        problem: &'static str,
    },
    /// The replica could not be read.
    #[error(transparent)]
    Storage(#[from] kelvin_storage::Error),
}

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The query itself is at fault: report it to whoever sent it; trying again does not help.
    Query,
    /// The query took more than it may: report it; it may work later or with a larger budget.
    Budget,
    /// Evaluation was stopped from outside: try again, or leave it.
    Stopped,
    /// The plan's state is of no use: hydrate the plan anew.
    Stale,
    /// The replica failed: ask the storage error what to do.
    Storage,
}

impl Error {
    /// Whether to report, retry or hydrate anew.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownTable(_)
            | Self::UnsyncedTable { .. }
            | Self::UnknownColumn { .. }
            | Self::UnboundParameter(_)
            | Self::Invalid { .. } => ErrorKind::Query,
            Self::Budget { .. } => ErrorKind::Budget,
            Self::Stopped => ErrorKind::Stopped,
            Self::Stale { .. } => ErrorKind::Stale,
            Self::Storage(_) => ErrorKind::Storage,
        }
    }
}

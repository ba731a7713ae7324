//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

use kelvin_protocol::Version;

use crate::TableId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a replica. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No replica there, or its load never finished.
    #[error("no complete replica in {0}: copy the database from upstream")]
    Missing(PathBuf),
    /// The directory holds something that is not a replica.
    #[error("{0} holds files that are not a replica of ours: choose another directory or empty it")]
    Foreign(PathBuf),
    /// Bytes on disk that cannot be right.
    #[error("the replica is corrupt ({0}): wipe it and copy the database from upstream")]
    Corrupt(String),
    /// Written by a newer version of this program.
    #[error(
        "the replica has format {found}, this program knows {known}: \
         run the newer program, or wipe the replica and copy the database from upstream"
    )]
    NewerFormat {
        /// Format found on disk.
        found: u32,
        /// Newest format this program knows.
        known: u32,
    },
    /// Written by an older version of this program, in a format that is no longer read.
    #[error(
        "the replica has format {found}, this program reads {known} only: \
         wipe the replica and copy the database from upstream"
    )]
    OlderFormat {
        /// Format found on disk.
        found: u32,
        /// The format this program reads.
        known: u32,
    },
    /// Another process has it open.
    #[error("{0} is in use by another process: stop that one or choose another directory")]
    Locked(PathBuf),
    /// There is no room for what has to be written, or a quota is used up.
    #[error("the disk that holds {path} is full: make room; nothing is lost")]
    DiskFull {
        /// Directory of the replica.
        path: PathBuf,
    },
    /// The file system takes no writes.
    #[error("the file system that holds {path} is read-only: check the disk and mount it writable")]
    ReadOnly {
        /// Directory of the replica.
        path: PathBuf,
    },
    /// The operating system failed us: no permission, a broken disk.
    #[error("cannot read or write {path}: {source}: check permissions and the disk")]
    Io {
        /// Directory of the replica.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A view was asked for that lies before the kept history.
    #[error("version {asked:#x} is older than the kept history, which begins at {horizon:#x}")]
    BelowHorizon {
        /// Version asked for.
        asked: Version,
        /// Oldest version there is.
        horizon: Version,
    },
    /// A view was asked for that lies in the future.
    #[error("version {asked:#x} is ahead of the replica, which stands at {watermark:#x}")]
    AheadOfWatermark {
        /// Version asked for.
        asked: Version,
        /// Newest version there is.
        watermark: Version,
    },
    /// An earlier write failed half-way; nothing more is written until the replica is opened anew.
    #[error(
        "an earlier write of the replica failed, as the log says: check the disk; \
         the replica accepts no more until it is opened again"
    )]
    Poisoned,
    /// The engine neither flushes nor compacts any more, and says nothing.
    #[error(
        "the replica has written nothing to its files for minutes: check the disk; \
         it has to be opened again"
    )]
    Stalled,
    /// The caller asked for something that makes no sense for the catalog.
    #[error("invalid request to the replica: {0}")]
    Invalid(String),
    /// A primary key too long for the engine.
    #[error(
        "a primary key of table {table:?} takes {bytes} bytes, at most {max} can be held: \
         shorten it or take the table out of the publication"
    )]
    KeyTooLong {
        /// Name of the table.
        table: String,
        /// Encoded size of the key.
        bytes: usize,
        /// Largest encoded size.
        max: usize,
    },
    /// The initial copy brought two rows with one key.
    #[error("the copy of table {0:?} brought two rows with the same key: copy it again")]
    Duplicate(String),
    /// The same index is being built already.
    #[error("an index on table {0:?} is being built already: wait for it")]
    Building(String),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// Row numbers of a table are used up.
    #[error("table {0:?} has used up its row numbers: wipe the replica and copy it anew")]
    Exhausted(TableId),
}

/// Class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`Error::Missing`].
    Missing,
    /// See [`Error::Foreign`].
    Foreign,
    /// See [`Error::Corrupt`].
    Corrupt,
    /// See [`Error::NewerFormat`].
    NewerFormat,
    /// See [`Error::OlderFormat`].
    OlderFormat,
    /// See [`Error::Locked`].
    Locked,
    /// See [`Error::DiskFull`].
    DiskFull,
    /// See [`Error::ReadOnly`].
    ReadOnly,
    /// See [`Error::Io`].
    Io,
    /// See [`Error::BelowHorizon`].
    BelowHorizon,
    /// See [`Error::AheadOfWatermark`].
    AheadOfWatermark,
    /// See [`Error::Poisoned`].
    Poisoned,
    /// See [`Error::Stalled`].
    Stalled,
    /// See [`Error::Invalid`].
    Invalid,
    /// See [`Error::KeyTooLong`].
    KeyTooLong,
    /// See [`Error::Duplicate`].
    Duplicate,
    /// See [`Error::Building`].
    Building,
    /// See [`Error::Cancelled`].
    Cancelled,
    /// See [`Error::Exhausted`].
    Exhausted,
}

/// What the caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// The same call may succeed later, or with another version.
    Retry,
    /// Open the replica again, until that works; it recovers to the last whole transaction.
    Reopen,
    /// Wipe the replica and copy the database from upstream.
    Resync,
    /// Tell the operator; nothing the program does by itself would help.
    Report,
}

impl Error {
    /// Its class.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing(_) => ErrorKind::Missing,
            Self::Foreign(_) => ErrorKind::Foreign,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::NewerFormat { .. } => ErrorKind::NewerFormat,
            Self::OlderFormat { .. } => ErrorKind::OlderFormat,
            Self::Locked(_) => ErrorKind::Locked,
            Self::DiskFull { .. } => ErrorKind::DiskFull,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Io { .. } => ErrorKind::Io,
            Self::BelowHorizon { .. } => ErrorKind::BelowHorizon,
            Self::AheadOfWatermark { .. } => ErrorKind::AheadOfWatermark,
            Self::Poisoned => ErrorKind::Poisoned,
            Self::Stalled => ErrorKind::Stalled,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::KeyTooLong { .. } => ErrorKind::KeyTooLong,
            Self::Duplicate(_) => ErrorKind::Duplicate,
            Self::Building(_) => ErrorKind::Building,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Exhausted(_) => ErrorKind::Exhausted,
        }
    }

    /// An I/O error of the file system at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Io { path, source },
        }
    }
}

impl ErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        match self {
            Self::BelowHorizon | Self::AheadOfWatermark | Self::Building | Self::Cancelled => {
                Remedy::Retry
            }
            Self::Poisoned | Self::Stalled | Self::DiskFull | Self::ReadOnly => Remedy::Reopen,
            Self::Missing
            | Self::Corrupt
            | Self::NewerFormat
            | Self::OlderFormat
            | Self::Duplicate
            | Self::Exhausted => Remedy::Resync,
            Self::Foreign | Self::Locked | Self::Io | Self::Invalid | Self::KeyTooLong => {
                Remedy::Report
            }
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput => {
                Self::Corrupt(format!("a file of it is cut short or unreadable: {source}"))
            }
            _ => Self::io("the replica", source),
        };
        match error {
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                io(source)
            }
            fjall::Error::Poisoned => Self::Poisoned,
            fjall::Error::Locked => Self::Locked(PathBuf::from("the replica")),
            other => Self::Corrupt(other.to_string()),
        }
    }
}

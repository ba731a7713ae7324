//! Why a demo could not run, in words that say what to do.

use std::path::PathBuf;

/// What to do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user has to change something: install, build, or choose another port.
    Config,
    /// Something broke that worked a moment ago; another try may succeed.
    Retry,
}

/// Why the demo ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag that does not exist or has a value it cannot have.
    #[error("{0}\nRun `kelvin demo --help` for the flags there are.")]
    Usage(String),
    /// No PostgreSQL was found that is recent enough.
    #[error(
        "the demo needs an installed PostgreSQL 15 or newer, and {found}.\n\
         Install one (Debian and Ubuntu: `sudo apt-get install postgresql`; macOS: \
         `brew install postgresql@17`) or name the directory of its programs with --postgres-bin."
    )]
    NoPostgres {
        /// What was found instead.
        found: String,
    },
    /// Root may not run PostgreSQL, and no other user was found.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody` to \
         run it as. Start the demo as an ordinary user."
    )]
    NoUser,
    /// A PostgreSQL program failed.
    #[error("{program} failed: {reason}\n{log}")]
    Postgres {
        /// The program, as it was called.
        program: String,
        /// How it ended.
        reason: String,
        /// The end of its log; may be empty.
        log: String,
    },
    /// PostgreSQL answered a statement of the demo with an error, or hung up.
    #[error("{doing}: {source}{}", detail(.source))]
    Sql {
        /// What the statement was for.
        doing: &'static str,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// The web page was not built.
    #[error(
        "the demo's page is not built: no index.html in {}.\n\
         Build it with `scripts/demo`, or with `npm ci && npm run build` in server/demo; or name a \
         directory that has it with --assets.", .looked.iter().map(|p| p.display().to_string())
        .collect::<Vec<_>>().join(", ")
    )]
    NoAssets {
        /// The directories that were looked at.
        looked: Vec<PathBuf>,
    },
    /// Another program has the port.
    #[error("port {port} is taken ({source}); choose another one with {flag}")]
    Port {
        /// The port asked for.
        port: u16,
        /// The flag that changes it.
        flag: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file or directory could not be read or written.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The sync server ended by itself.
    #[error("kelvin ended: {0}")]
    Serve(String),
    /// The user asked the demo to end. Not a failure.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_)
            | Self::NoPostgres { .. }
            | Self::NoUser
            | Self::NoAssets { .. }
            | Self::Port { .. } => ErrorKind::Config,
            Self::Postgres { .. }
            | Self::Sql { .. }
            | Self::Io { .. }
            | Self::Serve(_)
            | Self::Interrupted => ErrorKind::Retry,
        }
    }

    /// For `map_err`: an I/O error with what was tried.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// For `map_err`: an error of PostgreSQL with what the statement was for.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Sql { doing, source }
    }
}

/// PostgreSQL's own words, which the driver's message leaves out.
fn detail(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map(|db| format!(": {}", db.message()))
        .unwrap_or_default()
}

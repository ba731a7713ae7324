//! How far the initial copy is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Resynced;

/// Time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// A state of the initial copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Tables that are complete.
    pub tables_done: u64,
    /// Tables to copy.
    pub tables: u64,
    /// Rows copied.
    pub rows: u64,
    /// PostgreSQL's estimate of the rows to copy, which may be far off; zero where it has none.
    pub estimated_rows: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// Told how far the initial copy is, about once a second and at the end. Called from several
/// threads; should return at once.
pub trait Progress: Send + Sync {
    /// The copy has come this far.
    fn copying(&self, progress: CopyProgress);

    /// The replica does not continue the upstream, for this reason, and is being brought up to it.
    /// What is said of [`copying`](Progress::copying) is then about that.
    fn resyncing(&self, _reason: &str) {}

    /// The replica continues the upstream again.
    fn resynced(&self, _difference: Resynced) {}
}

/// Ignores progress; it is in the log anyway.
impl Progress for () {
    fn copying(&self, _progress: CopyProgress) {}
}

/// Counters the copy workers share.
#[derive(Debug, Default)]
pub(crate) struct CopyCounters {
    pub(crate) tables_done: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) tables: u64,
    pub(crate) estimated_rows: u64,
    logged: Mutex<Option<Instant>>,
}

impl CopyCounters {
    pub(crate) fn new(tables: u64, estimated_rows: u64) -> Self {
        Self {
            tables,
            estimated_rows,
            logged: Mutex::new(Some(Instant::now())),
            ..Self::default()
        }
    }

    pub(crate) fn now(&self) -> CopyProgress {
        CopyProgress {
            tables_done: self.tables_done.load(Ordering::Relaxed),
            tables: self.tables,
            rows: self.rows.load(Ordering::Relaxed),
            estimated_rows: self.estimated_rows,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Logs the state every few seconds.
    pub(crate) fn log(&self) {
        let Ok(mut logged) = self.logged.lock() else {
            return;
        };
        if logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        *logged = Some(Instant::now());
        let now = self.now();
        tracing::info!(
            tables_done = now.tables_done,
            tables = now.tables,
            rows = now.rows,
            estimated_rows = now.estimated_rows,
            bytes = now.bytes,
            "copying from PostgreSQL"
        );
    }
}

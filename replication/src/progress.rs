//! How far the initial copy is.

use std::fmt;
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
    /// How long it will take yet, if the rows to come are as many as estimated and come as fast as
    /// those so far; `None` where that cannot be told.
    pub time_left: Option<Duration>,
}

impl fmt::Display for CopyProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tables_done,
            tables,
            rows,
            estimated_rows,
            bytes,
            time_left,
        } = self;
        write!(f, "{tables_done} of {tables} tables, {rows} rows")?;
        if *estimated_rows > 0 {
            write!(f, " of about {estimated_rows}")?;
        }
        write!(f, ", {bytes} bytes")?;
        match time_left {
            Some(left) => write!(f, ", about {} s left", left.as_secs()),
            None => Ok(()),
        }
    }
}

/// How long `rows` of `estimated` rows leave, if they took `elapsed`.
fn time_left(elapsed: Duration, rows: u64, estimated: u64) -> Option<Duration> {
    let left = u128::from(estimated.checked_sub(rows)?);
    let millis = elapsed
        .as_millis()
        .checked_mul(left)?
        .checked_div(rows.into())?;
    Some(Duration::from_millis(u64::try_from(millis).ok()?))
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
    begun: Option<Instant>,
    logged: Mutex<Option<Instant>>,
}

impl CopyCounters {
    pub(crate) fn new(tables: u64, estimated_rows: u64) -> Self {
        Self {
            tables,
            estimated_rows,
            begun: Some(Instant::now()),
            logged: Mutex::new(Some(Instant::now())),
            ..Self::default()
        }
    }

    pub(crate) fn now(&self) -> CopyProgress {
        let rows = self.rows.load(Ordering::Relaxed);
        let elapsed = self.begun.map(|begun| begun.elapsed());
        CopyProgress {
            tables_done: self.tables_done.load(Ordering::Relaxed),
            tables: self.tables,
            rows,
            estimated_rows: self.estimated_rows,
            bytes: self.bytes.load(Ordering::Relaxed),
            time_left: elapsed.and_then(|it| time_left(it, rows, self.estimated_rows)),
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
            seconds_left = now.time_left.map(|left| left.as_secs()),
            "copying from PostgreSQL"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_rows_so_far() {
        let elapsed = Duration::from_secs(30);
        assert_eq!(time_left(elapsed, 100, 400), Some(Duration::from_secs(90)));
        assert_eq!(time_left(elapsed, 400, 400), Some(Duration::ZERO));
        // Nothing is known of what goes beyond an estimate, or before the first row.
        assert_eq!(time_left(elapsed, 401, 400), None);
        assert_eq!(time_left(elapsed, 0, 400), None);
        assert_eq!(time_left(Duration::MAX, 1, u64::MAX), None);
    }

    #[test]
    fn a_copy_says_how_far_it_is() {
        let mut progress = CopyProgress {
            tables_done: 1,
            tables: 3,
            rows: 100,
            estimated_rows: 400,
            bytes: 5000,
            time_left: Some(Duration::from_secs(90)),
        };
        let shown = "1 of 3 tables, 100 rows of about 400, 5000 bytes, about 90 s left";
        assert_eq!(progress.to_string(), shown);
        (progress.estimated_rows, progress.time_left) = (0, None);
        assert_eq!(progress.to_string(), "1 of 3 tables, 100 rows, 5000 bytes");
    }
}

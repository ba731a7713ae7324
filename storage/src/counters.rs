//! What was read and written since the replica was opened.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Parts a counter is split into, so that threads that read at once do not share a cache line.
const SHARDS: usize = 16;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

/// Counts of what one thread read, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ReadShard {
    points: AtomicU64,
    scans: AtomicU64,
    rows: AtomicU64,
}

/// What was read. Counting costs an uncontended addition.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters([ReadShard; SHARDS]);

/// Sums of [`ReadCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) points: u64,
    pub(crate) scans: u64,
    pub(crate) rows: u64,
}

impl ReadCounters {
    fn shard(&self) -> Option<&ReadShard> {
        // A thread that is ending has no number any more.
        self.0.get(SHARD.try_with(|shard| *shard).unwrap_or(0))
    }

    /// A row was looked up by its key.
    pub(crate) fn point(&self) {
        if let Some(shard) = self.shard() {
            shard.points.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A scan ended that had read this many records.
    pub(crate) fn scan(&self, rows: u64) {
        if let Some(shard) = self.shard() {
            shard.scans.fetch_add(1, Ordering::Relaxed);
            shard.rows.fetch_add(rows, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> Reads {
        let mut sum = Reads::default();
        for shard in &self.0 {
            sum.points += shard.points.load(Ordering::Relaxed);
            sum.scans += shard.scans.load(Ordering::Relaxed);
            sum.rows += shard.rows.load(Ordering::Relaxed);
        }
        sum
    }
}

/// What was written, and how long writers were held up. There is one writer, so nothing is split.
#[derive(Debug, Default)]
pub(crate) struct WriteCounters {
    pub(crate) batches: AtomicU64,
    pub(crate) transactions: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) stalls: AtomicU64,
    stall_micros: AtomicU64,
}

impl WriteCounters {
    /// A batch was applied.
    pub(crate) fn applied(&self, transactions: usize, rows: usize) {
        add(&self.batches, 1);
        add(&self.transactions, transactions as u64);
        add(&self.rows, rows as u64);
    }

    /// A writer was held up.
    pub(crate) fn stalled(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.stall_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Time writers were held up, all together.
    pub(crate) fn stall_time(&self) -> Duration {
        Duration::from_micros(self.stall_micros.load(Ordering::Relaxed))
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

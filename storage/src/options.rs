//! What an operator can tune.

use std::time::Duration;

use crate::Clock;

const MIB: u64 = 1024 * 1024;

/// Tuning of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Bytes of the block cache, shared by all tables.
    pub cache_bytes: u64,
    /// Bytes the history, or a large table, may buffer in memory before they are written to a
    /// sorted file; a smaller table gets an eighth of its size, 8 MiB at least. One batch may
    /// exceed it.
    /// The less it is, the more often files of what is written to all the time are merged.
    pub memtable_bytes: u64,
    /// Bytes all tables together may buffer in memory, the history included. Above, the largest
    /// buffers are written to sorted files, and writers wait for that. One batch may exceed it.
    pub write_buffer_bytes: u64,
    /// How long a version stays readable. Time is what the caller of
    /// [`Replica::maintain`](crate::Replica::maintain) says it is.
    pub history_age: Duration,
    /// Bytes of history and changelog above which the oldest part is dropped before its age is
    /// reached. It may be exceeded by an eighth, and by what is in compaction.
    pub history_bytes: u64,
    /// Bytes of memory all parts of a load take together, for rows and index entries that they
    /// collect, that are on their way to the disk and that wait for the merge. However little it
    /// is, each part collects 256 KiB.
    pub load_bytes: u64,
    /// Bytes of memory a part of a transaction takes about, where a transaction is applied
    /// [in parts](crate::Replica::apply_in_parts). Rows read ahead and the batch come on top.
    pub part_bytes: usize,
    /// Bytes of journal above which tables that hold it back are flushed; above twice of it,
    /// writers wait for that.
    pub journal_bytes: u64,
    /// Background threads that compact. Where there are several, one more flushes.
    pub worker_threads: usize,
    /// Measures how long writers are held up; without it, only how often.
    pub clock: Clock,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 * MIB,
            memtable_bytes: 64 * MIB,
            write_buffer_bytes: 256 * MIB,
            history_age: Duration::from_secs(3600),
            history_bytes: 2048 * MIB,
            load_bytes: 256 * MIB,
            part_bytes: 16 << 20,
            journal_bytes: 256 * MIB,
            worker_threads: 2,
            clock: Clock::default(),
        }
    }
}

//! What an operator can tune.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Tuning of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Bytes of the block cache, shared by all tables.
    pub cache_bytes: u64,
    /// Bytes a table may buffer in memory before it is written to a sorted file. There is one such
    /// buffer for each table, so keep it small where there are many tables.
    pub memtable_bytes: u64,
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
    /// Bytes of journal above which tables that hold it back are flushed.
    pub journal_bytes: u64,
    /// Background threads for flushes and compactions.
    pub worker_threads: usize,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 * MIB,
            memtable_bytes: 8 * MIB,
            history_age: Duration::from_secs(3600),
            history_bytes: 2048 * MIB,
            load_bytes: 256 * MIB,
            journal_bytes: 256 * MIB,
            worker_threads: 2,
        }
    }
}

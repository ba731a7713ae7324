//! Numbers for the admin page.

use kelvin_protocol::Version;

/// Sizes and versions of a replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageMetrics {
    /// Newest version.
    pub watermark: Version,
    /// Oldest version that can be read.
    pub horizon: Version,
    /// Tables held.
    pub tables: usize,
    /// Parts the history is cut into.
    pub buckets: usize,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes of rows and indexes in sorted files.
    pub table_bytes: u64,
    /// Bytes of history and changelog in sorted files.
    pub history_bytes: u64,
    /// Bytes of the journals.
    pub journal_bytes: u64,
    /// Journal files.
    pub journals: usize,
    /// Flushes that wait or run.
    pub outstanding_flushes: usize,
    /// Compactions that run.
    pub active_compactions: usize,
    /// Bytes that are in memory and the journal, but not yet in sorted files.
    pub memtable_bytes: u64,
}

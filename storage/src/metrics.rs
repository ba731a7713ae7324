//! Numbers for the admin page.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fjall::AbstractTree;
use kelvin_protocol::Version;

use crate::counters::get;
use crate::history::history_bytes;
use crate::unsettled::stacked;
use crate::{Replica, TableId};

/// Sizes and versions of a replica at one moment, and what happened since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageMetrics {
    /// Newest version.
    pub watermark: Version,
    /// Oldest version that can be read.
    pub horizon: Version,
    /// Time the readable history spans, as far as [`Replica::maintain`] was told the time.
    pub history_age: Duration,
    /// Tables held.
    pub tables: usize,
    /// Rows in all tables.
    pub rows: u64,
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
    /// Bytes that are in memory and the journal, but not yet in sorted files.
    pub memtable_bytes: u64,
    /// Bytes of blocks the cache may hold.
    pub cache_capacity: u64,
    /// Bytes of blocks the cache holds.
    pub cache_bytes: u64,
    /// Blocks that were found in the cache.
    pub cache_hits: u64,
    /// Blocks that were read from files.
    pub cache_misses: u64,
    /// Flushes that wait.
    pub outstanding_flushes: usize,
    /// Tables and parts of the history whose newest files wait to be compacted.
    pub uncompacted: usize,
    /// Compactions that run.
    pub active_compactions: usize,
    /// Compactions that were done, including those that found nothing to do.
    pub completed_compactions: u64,
    /// Time spent in compactions.
    pub compaction_time: Duration,
    /// Rows looked up by their key.
    pub point_reads: u64,
    /// Scans that ended.
    pub scans: u64,
    /// Records they read.
    pub rows_scanned: u64,
    /// Batches written by [`Replica::apply`].
    pub batches: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Rows they wrote, each once a batch.
    pub rows_written: u64,
    /// Bytes they wrote: rows, index entries, history and changelog.
    pub bytes_written: u64,
    /// Times a writer was held up by flushes or compactions.
    pub stalls: u64,
    /// Time writers were held up; zero without a [`Clock`](crate::Clock).
    pub stall_time: Duration,
}

/// Sizes of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMetrics {
    /// Its number.
    pub id: TableId,
    /// Name as clients say it.
    pub name: String,
    /// Rows at the newest version.
    pub rows: u64,
    /// Bytes of its rows and indexes in sorted files.
    pub disk_bytes: u64,
    /// Bytes of it that are in memory only (and in the journal).
    pub memtable_bytes: u64,
}

impl Replica {
    /// Sizes and versions; cheap enough to be asked for every second. Sizes the engine cannot tell
    /// after a failed write are zero.
    #[must_use]
    pub fn metrics(&self) -> StorageMetrics {
        let inner = &self.inner;
        let (latest, horizon) = {
            let current = inner.current();
            (current.latest.clone(), current.horizon)
        };
        let shape = &latest.inner().shape;
        let (reads, writes) = (shape.reads.sum(), &inner.gate.counters);
        let db = &inner.db;
        let keyspaces = inner.keyspaces(shape);
        let (cache_hits, cache_misses) = inner.gate.block_reads(&keyspaces);
        let spaces = shape.spaces();
        let tables = latest.catalog().tables();
        StorageMetrics {
            watermark: latest.version(),
            horizon,
            history_age: Duration::from_millis(inner.history_age_ms.load(Ordering::Relaxed)),
            tables: tables.len(),
            rows: tables
                .iter()
                .map(|table| inner.row_counts.get(table.id))
                .sum(),
            buckets: shape.buckets.len(),
            disk_bytes: db.disk_space().unwrap_or_default(),
            table_bytes: spaces
                .values()
                .map(|space| space.keyspace.disk_space())
                .sum(),
            history_bytes: history_bytes(shape),
            journal_bytes: db.journal_disk_space().unwrap_or_default(),
            journals: db.journal_count(),
            memtable_bytes: inner.gate.buffered(),
            cache_capacity: db.cache_capacity(),
            cache_bytes: db.cache_size(),
            cache_hits,
            cache_misses,
            outstanding_flushes: db.outstanding_flushes(),
            uncompacted: stacked(&keyspaces).count(),
            active_compactions: db.active_compactions(),
            completed_compactions: db.compactions_completed() as u64,
            compaction_time: db.time_compacting(),
            point_reads: reads.points,
            scans: reads.scans,
            rows_scanned: reads.rows,
            batches: get(&writes.batches),
            transactions: get(&writes.transactions),
            rows_written: get(&writes.rows),
            bytes_written: get(&writes.bytes),
            stalls: get(&writes.stalls),
            stall_time: writes.stall_time(),
        }
    }

    /// Sizes of every table, the largest first.
    #[must_use]
    pub fn table_metrics(&self) -> Vec<TableMetrics> {
        let latest = self.inner.current().latest.clone();
        let tables = latest.inner().era.tables.values();
        let mut metrics: Vec<_> = tables
            .map(|space| TableMetrics {
                id: space.table.id,
                name: space.table.name.clone(),
                rows: self.inner.row_counts.get(space.table.id),
                disk_bytes: space.keyspace.disk_space(),
                memtable_bytes: space.keyspace.tree.active_memtable().size(),
            })
            .collect();
        metrics.sort_by(|a, b| {
            let size = |table: &TableMetrics| (table.disk_bytes, table.memtable_bytes, table.rows);
            size(b).cmp(&size(a)).then_with(|| a.name.cmp(&b.name))
        });
        metrics
    }

    /// Bytes of history and changelog in sorted files.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        history_bytes(&self.inner.current().latest.inner().shape)
    }
}

//! How much a table may buffer in memory is up to whoever opens the replica.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking and uses its share of what is shared"
)]

mod sample;

use std::ops::Range;
use std::path::Path;

use kelvin_storage::{Replica, ReplicaOptions};
use sample::{insert, load_with, open_soon_with, options, transaction};

const KIB: u64 = 1024;
const SMALL: u64 = 64 * KIB;
const LARGE: u64 = 64 * 1024 * KIB;
/// Rows of a batch.
const BATCH: u32 = 20;
/// A batch takes less: its rows, their index entries, and what the engine adds to each.
const BATCH_BYTES: u64 = 64 * KIB;

fn limited(memtable_bytes: u64) -> ReplicaOptions {
    ReplicaOptions {
        memtable_bytes,
        ..options()
    }
}

/// Applies batches and returns the most the table had in memory after one.
fn most_buffered(replica: &Replica, batches: Range<u32>) -> u64 {
    let buffered = |batch| {
        let rows = batch * BATCH..(batch + 1) * BATCH;
        let ops = rows.map(|id| insert(id, &"a name that takes room".repeat(8)));
        let version = replica.watermark() + 1;
        replica
            .apply(&[transaction(version, ops.collect())])
            .unwrap();
        let tables = replica.table_metrics();
        tables.iter().map(|table| table.memtable_bytes).sum()
    };
    batches.map(buffered).max().unwrap()
}

fn reopened(dir: &Path, memtable_bytes: u64) -> Replica {
    open_soon_with(dir, &limited(memtable_bytes)).unwrap()
}

#[test]
fn the_limit_of_today_holds_for_tables_that_were_made_under_another() {
    let dir = tempfile::tempdir().unwrap();
    drop(load_with(dir.path(), &limited(LARGE), 0..10));
    let most = most_buffered(&reopened(dir.path(), SMALL), 0..100);
    assert!(most <= SMALL + BATCH_BYTES, "{most} bytes under less");
    let most = most_buffered(&reopened(dir.path(), LARGE), 100..300);
    assert!(most > 4 * SMALL, "{most} bytes under more");
}

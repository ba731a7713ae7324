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

use kelvin_storage::{Replica, ReplicaOptions, RowOp};
use sample::{ITEMS, MIB, item, load_with, open_soon_with, options, transaction};

const KIB: u64 = 1024;
const SMALL: u64 = 64 * KIB;
const LARGE: u64 = 64 * MIB;
/// What a table may buffer however small it is, where the limit is large.
const OF_SMALL_TABLE: u64 = 8 * MIB;
/// Rows of a batch.
const BATCH: u32 = 20;
/// Bytes of a row's text.
const TEXT: u64 = 200;
const LONG_TEXT: u64 = 16 * KIB;
/// What the rest of a row, its index entry and the engine add to its texts.
const REST: u64 = KIB;

fn limited(memtable_bytes: u64) -> ReplicaOptions {
    ReplicaOptions {
        memtable_bytes,
        ..options()
    }
}

/// Writes some rows, with texts of so many bytes.
fn write(replica: &Replica, ids: Range<u32>, text: u64) {
    let row = |id| {
        let mut row = item(id, "a name");
        row[2] = "x".repeat(usize::try_from(text).unwrap()).into();
        RowOp::Insert { table: ITEMS, row }
    };
    let version = replica.watermark() + 1;
    let ops = ids.map(row).collect();
    replica.apply(&[transaction(version, ops)]).unwrap();
}

/// Bytes the table has in memory.
fn buffered(replica: &Replica) -> u64 {
    let tables = replica.table_metrics();
    tables.iter().map(|table| table.memtable_bytes).sum()
}

/// Applies batches and returns the most the table had in memory after one.
fn most_buffered(replica: &Replica, batches: Range<u32>) -> u64 {
    let after = |batch| {
        write(replica, batch * BATCH..(batch + 1) * BATCH, TEXT);
        buffered(replica)
    };
    batches.map(after).max().unwrap()
}

/// The most a memtable of this limit may have after a batch.
fn bound(limit: u64, text: u64) -> u64 {
    limit + u64::from(BATCH) * (text + REST)
}

fn reopened(dir: &Path, memtable_bytes: u64) -> Replica {
    open_soon_with(dir, &limited(memtable_bytes)).unwrap()
}

#[test]
fn the_limit_of_today_holds_for_tables_that_were_made_under_another() {
    let dir = tempfile::tempdir().unwrap();
    drop(load_with(dir.path(), &limited(LARGE), 0..10));
    let most = most_buffered(&reopened(dir.path(), SMALL), 0..100);
    assert!(most <= bound(SMALL, TEXT), "{most} bytes under less");
    let most = most_buffered(&reopened(dir.path(), LARGE), 100..300);
    assert!(most > 4 * SMALL, "{most} bytes under more");
}

#[test]
fn a_small_table_buffers_little_and_its_history_all_of_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load_with(dir.path(), &limited(LARGE), 0..BATCH);
    let (mut table, mut history) = (0, 0);
    for _ in 0..120 {
        write(&replica, 0..BATCH, LONG_TEXT);
        let of_table = buffered(&replica);
        table = table.max(of_table);
        history = history.max(replica.metrics().memtable_bytes.saturating_sub(of_table));
    }
    let most = bound(OF_SMALL_TABLE, LONG_TEXT);
    assert!(table <= most, "{table} bytes of the table");
    assert!(history > 2 * most, "{history} bytes of the history");
}

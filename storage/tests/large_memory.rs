//! Memory of a transaction that is applied in parts. Alone in its process, or it would measure
//! others.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{Error, ReplicaOptions, RowOp};
use sample::{ITEMS, MIB, load_with, options, peak_memory};

#[test]
fn transactions_of_many_times_their_memory_stay_within_it() {
    const ROWS: u32 = 150_000;
    /// What a part of 4 MiB, 16 MiB of fresh writes, those on their way to a file, and the engine's
    /// own work on its files take together.
    const LIMIT: u64 = 160 * MIB;
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        part_bytes: 4 << 20,
        memtable_bytes: 4 * MIB,
        write_buffer_bytes: 16 * MIB,
        worker_threads: 2,
        ..options()
    };
    let replica = load_with(dir.path(), &options, 0..10);
    let before = peak_memory();
    let note = "x".repeat(300);
    let row = |id: u32, name: &str| {
        let name = format!("{name} {}", id % 1000);
        let values = vec![f64::from(id).into(), Value::from(name), note.clone().into()];
        Ok::<_, Error>(values)
    };
    let table = ITEMS;
    let inserts = (10..ROWS).map(|id| row(id, "new").map(|row| RowOp::Insert { table, row }));
    replica.apply_in_parts(200, inserts).unwrap();
    println!("inserted: {} MiB", (peak_memory() - before) / MIB);
    // Scattered over the table, so that neighbours are in different parts.
    let scattered = (0..ROWS).map(|n| (u64::from(n) * 7919 % u64::from(ROWS)) as u32);
    let updates = scattered.map(|id| row(id, "other").map(|row| RowOp::Insert { table, row }));
    replica.apply_in_parts(300, updates).unwrap();
    println!("updated: {} MiB", (peak_memory() - before) / MIB);
    let tables = vec![ITEMS];
    let empty = [Ok::<_, Error>(RowOp::Truncate { tables })];
    let applied = replica.apply_in_parts(400, empty).unwrap();
    println!("emptied: {} MiB", (peak_memory() - before) / MIB);
    assert_eq!(applied.swept, [ITEMS]);
    assert_eq!(replica.row_count(ITEMS), 0);
    let grown = peak_memory() - before;
    assert!(grown <= LIMIT, "it took {} MiB", grown / MIB);
}

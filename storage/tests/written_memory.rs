//! Memory of what was written and is not on the disk yet. Alone in its process, or it would measure
//! others.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{Replica, ReplicaIdentity, ReplicaOptions, RowOp};
use sample::{ITEMS, MIB, catalog, options, resident_memory, transaction};

#[test]
fn what_rows_were_is_kept_without_the_blocks_they_were_read_from() {
    const ROWS: u32 = 500_000;
    /// Rows of a block of 4 KiB, roughly.
    const APART: u32 = 25;
    /// What 20,000 rows of 150 bytes and what they were take, several times over. With a block for
    /// each of them it is 80 MiB more.
    const LIMIT: u64 = 40 * MIB;
    let dir = tempfile::tempdir().unwrap();
    // So that nothing is put on the disk meanwhile.
    let options = ReplicaOptions {
        cache_bytes: MIB,
        memtable_bytes: 64 * MIB,
        write_buffer_bytes: 256 * MIB,
        load_bytes: 8 * MIB,
        ..options()
    };
    let row = |id: u32, note: &str| -> Vec<Value> {
        vec![f64::from(id).into(), "name".into(), note.repeat(100).into()]
    };
    let loader = Replica::create(dir.path(), &options, catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    for id in 0..ROWS {
        part.insert(&row(id, "x")).unwrap();
    }
    part.finish().unwrap();
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    let before = resident_memory();
    let changed: Vec<_> = (0..ROWS).step_by(APART as usize).collect();
    for (ids, version) in changed.chunks(1000).zip(200..) {
        let update = |id: &u32| RowOp::Insert {
            table: ITEMS,
            row: row(*id, "y"),
        };
        let ops = ids.iter().map(update).collect();
        let applied = replica.apply(&[transaction(version, ops)]).unwrap();
        assert_eq!(applied.changes.len(), ids.len());
    }
    let grown = resident_memory().saturating_sub(before);
    println!("{} MiB", grown / MIB);
    let written = replica.metrics().memtable_bytes;
    assert!(written > 5 * MIB, "{written} bytes are not on the disk yet");
    assert!(grown <= LIMIT, "it took {} MiB", grown / MIB);
}

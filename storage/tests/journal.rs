//! Tables nobody writes to must not hold back the journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use std::time::Duration;

use kelvin_storage::{Catalog, Replica, ReplicaIdentity, ReplicaOptions, RowOp, TableId};
use sample::{ITEMS, item, items, options, transaction};

const MIB: u64 = 1024 * 1024;

#[test]
fn idle_tables_do_not_pin_journals() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        journal_bytes: 64 * MIB,
        memtable_bytes: 8 * MIB,
        history_bytes: 64 * MIB,
        ..options()
    };
    let tables: Vec<_> = (1..30).map(TableId).collect();
    let catalog = Catalog::new(tables.iter().map(|id| items(*id)).collect(), vec![]);
    let loader = Replica::create(dir.path(), &options, catalog).unwrap();
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    // Every table has a little in memory, and one is written to all the time.
    let ops = tables
        .iter()
        .map(|id| RowOp::Insert {
            table: *id,
            row: item(1, "idle"),
        })
        .collect();
    replica.apply(&[transaction(101, ops)]).unwrap();
    let (noise, mut most) = (incompressible(1024 * 1024), 0);
    for version in 102..300 {
        let mut row = item(2, "busy");
        row[2] = format!("{version}{noise}").into();
        replica
            .apply(&[transaction(
                version,
                vec![RowOp::Insert { table: ITEMS, row }],
            )])
            .unwrap();
        if version % 8 == 0 {
            replica.maintain(Duration::ZERO).unwrap();
            most = most.max(replica.metrics().journals);
        }
    }
    assert!(most <= 5, "{most} journals were kept");
    for id in tables {
        assert!(
            replica
                .latest()
                .unwrap()
                .get(id, &[1.0.into()])
                .unwrap()
                .is_some()
        );
    }
}

/// Text no two parts of which are alike.
fn incompressible(bytes: usize) -> String {
    let mut state = 1u64;
    let mut text = String::new();
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

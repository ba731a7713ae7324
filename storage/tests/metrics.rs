//! What the replica says about itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kelvin_storage::{Clock, Replica, ReplicaOptions, Scan};
use sample::{BY_NAME, ITEMS, delete, insert, load, options, transaction};

#[test]
fn reads_and_writes_are_counted_over_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..20);
    replica
        .apply(&[
            transaction(101, vec![insert(1, "a"), insert(30, "b")]),
            transaction(102, vec![delete(2)]),
        ])
        .unwrap();
    // A replay writes nothing and counts as nothing.
    replica.apply(&[transaction(102, vec![delete(3)])]).unwrap();
    let metrics = replica.metrics();
    assert_eq!((metrics.batches, metrics.transactions), (1, 2));
    assert_eq!((metrics.rows_written, metrics.rows), (3, 20));
    assert!(metrics.bytes_written > 100, "{metrics:?}");
    let before = metrics;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let view = replica.latest().unwrap();
                for id in 0..5u32 {
                    view.get(ITEMS, &[f64::from(id).into()]).unwrap();
                }
                assert_eq!(view.scan(ITEMS, &Scan::all()).unwrap().count(), 20);
                assert_eq!(
                    view.scan(ITEMS, &Scan::of(BY_NAME))
                        .unwrap()
                        .take(7)
                        .count(),
                    7
                );
            });
        }
    });
    let after = replica.metrics();
    assert_eq!(after.scans - before.scans, 8);
    assert_eq!(after.rows_scanned - before.rows_scanned, 4 * 27);
    // Seven rows of each index scan are looked up.
    assert_eq!(after.point_reads - before.point_reads, 4 * (5 + 7));
    assert!(after.cache_hits + after.cache_misses > before.cache_hits + before.cache_misses);
    assert_eq!(after.cache_capacity, options().cache_bytes);
    let table = replica.table_metrics().remove(0);
    assert_eq!((table.id, table.rows, &*table.name), (ITEMS, 20, "items"));
    assert!(
        table.disk_bytes > 0 && table.memtable_bytes > 0,
        "{table:?}"
    );
}

#[test]
fn commits_that_take_long_by_the_clock_count_as_held_up() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..3));
    // Every look at this clock finds a second more gone than the one before did.
    let seconds = Arc::new(AtomicU64::new(0));
    let clock = Clock::new(move || Duration::from_secs(seconds.fetch_add(1, Ordering::Relaxed)));
    let options = ReplicaOptions { clock, ..options() };
    let replica = Replica::open(dir.path(), &options).unwrap();
    for version in 101..104 {
        replica
            .apply(&[transaction(version, vec![insert(1, "x")])])
            .unwrap();
    }
    let metrics = replica.metrics();
    assert_eq!(metrics.stalls, 3);
    assert_eq!(metrics.stall_time, Duration::from_secs(3));
}

#[test]
fn the_history_spans_the_time_since_its_oldest_sample() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..3));
    let options = ReplicaOptions {
        history_age: Duration::from_secs(60),
        ..options()
    };
    let replica = Replica::open(dir.path(), &options).unwrap();
    let mut spans = Vec::new();
    for second in [1000u64, 1030, 1059, 1060, 1095] {
        let ops = vec![insert(1, "x")];
        replica.apply(&[transaction(second, ops)]).unwrap();
        replica.maintain(Duration::from_secs(second)).unwrap();
        let span = replica.metrics().history_age.as_secs();
        spans.push(span);
    }
    // At 1060 the history from 1000 on is let go of, but for what ended since; the oldest sample
    // left is then of 1030, and at 1095 of 1059.
    assert_eq!(spans, [0, 30, 59, 30, 36]);
}

//! The bulk load: any order, several threads, bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::path::Path;

use kelvin_protocol::Value;
use kelvin_storage::{
    Catalog, ErrorKind, Remedy, Replica, ReplicaIdentity, ReplicaOptions, Scan, TableId,
};
use sample::{BY_NAME, ITEMS, catalog, insert, item, items, options, transaction};

/// So little memory that every part spills many times.
fn small() -> ReplicaOptions {
    ReplicaOptions {
        load_bytes: 64 * 1024,
        ..options()
    }
}

/// A row whose key the engine cannot hold.
fn long_key() -> Vec<Value> {
    vec!["k".repeat(100_000).into(), Value::Null, Value::Null]
}

/// Visits every number below a power of two, in no order.
fn scattered(i: u32, bits: u32) -> u32 {
    (i.wrapping_mul(0x9E37_79B1)) & ((1 << bits) - 1)
}

#[test]
fn rows_from_several_threads_that_spill_come_out_sorted() {
    const BITS: u32 = 15;
    const THREADS: u32 = 4;
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &small(), catalog()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut part = loader.table(ITEMS).unwrap();
            scope.spawn(move || {
                for i in (thread..1 << BITS).step_by(THREADS as usize) {
                    let id = scattered(i, BITS);
                    part.insert(&item(id, &format!("name {:05}", (1 << BITS) - id)))
                        .unwrap();
                }
                part.finish().unwrap();
            });
        }
    });
    let spilled = std::fs::read_dir(dir.path().join("runs")).unwrap().count();
    assert!(
        spilled > THREADS as usize,
        "only {spilled} runs were spilled"
    );
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    assert!(!dir.path().join("runs").exists());

    let view = replica.latest().unwrap();
    let mut expected = 0..1 << BITS;
    for row in view.scan(ITEMS, &Scan::all()).unwrap() {
        let (row, id) = (row.unwrap(), expected.next().unwrap());
        assert_eq!(row.value(0), Value::from(f64::from(id)));
        assert_eq!((row.id, row.version), (id, 100));
    }
    assert!(expected.next().is_none());
    let mut expected = (0..1u32 << BITS).rev();
    for row in view.scan(ITEMS, &Scan::of(BY_NAME)).unwrap() {
        assert_eq!(
            row.unwrap().value(0),
            Value::from(f64::from(expected.next().unwrap()))
        );
    }
    replica
        .apply(&[transaction(101, vec![insert(1 << BITS, "next")])])
        .unwrap();
    let next = replica
        .latest()
        .unwrap()
        .get(ITEMS, &[f64::from(1 << BITS).into()])
        .unwrap();
    assert_eq!(next.unwrap().id, 1 << BITS);
}

#[test]
fn two_rows_with_one_key_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    for name in ["one", "other"] {
        let mut part = loader.table(ITEMS).unwrap();
        part.insert(&item(5, name)).unwrap();
        part.finish().unwrap();
    }
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Duplicate);
    assert!(error.to_string().contains("items"));
    let error = Replica::open(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}

#[test]
fn two_rows_with_one_key_are_found_wherever_they_were_spilled() {
    const ROWS: u32 = 20_000;
    for (first, second) in [(0, ROWS - 1), (ROWS / 2, ROWS / 2 + 1)] {
        let dir = tempfile::tempdir().unwrap();
        let loader = Replica::create(dir.path(), &small(), catalog()).unwrap();
        let mut part = loader.table(ITEMS).unwrap();
        for i in 0..ROWS {
            let id = if i == second { first } else { i };
            part.insert(&item(id, &format!("name {i}"))).unwrap();
        }
        part.finish().unwrap();
        let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Duplicate);
    }
}

#[test]
fn several_tables_are_loaded_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let tables: Vec<_> = (1..6).map(TableId).collect();
    let catalog = Catalog::new(tables.iter().map(|id| items(*id)).collect(), vec![]);
    let options = ReplicaOptions {
        worker_threads: 3,
        ..small()
    };
    let loader = Replica::create(dir.path(), &options, catalog).unwrap();
    std::thread::scope(|scope| {
        for table in &tables {
            let mut part = loader.table(*table).unwrap();
            scope.spawn(move || {
                for id in (0..table.0 * 1000).rev() {
                    let row = item(id, &format!("{}", id % 7));
                    let refs: Vec<_> = row.iter().map(Value::as_ref).collect();
                    part.insert_refs(&refs).unwrap();
                }
                part.finish().unwrap();
            });
        }
    });
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    let view = replica.latest().unwrap();
    for table in tables {
        let rows = view.scan(table, &Scan::all()).unwrap();
        let ids: Vec<_> = rows.map(|row| row.unwrap().id).collect();
        assert_eq!(ids, (0..table.0 * 1000).collect::<Vec<_>>());
        let rows = view.scan(table, &Scan::of(BY_NAME)).unwrap();
        let mut ids: Vec<_> = rows.map(|row| row.unwrap().id).collect();
        assert!(ids.is_sorted_by_key(|id| (id % 7, *id)));
        ids.sort_unstable();
        assert_eq!(ids, (0..table.0 * 1000).collect::<Vec<_>>());
    }
}

#[test]
fn a_load_whose_part_was_dropped_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    part.insert(&item(1, "one")).unwrap();
    drop(part);
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = Replica::open(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
}

#[test]
fn a_load_that_refused_a_row_is_refused_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    let error = part.insert(&[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = part.insert(&long_key()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyTooLong);
    part.finish().unwrap();
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// The disk is full as of this run.
#[cfg(target_os = "linux")]
fn fill_disk(dir: &Path, run: u32) {
    let run = dir.join(format!("runs/{run}.run"));
    std::os::unix::fs::symlink("/dev/full", run).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_such_and_the_load_stays_missing() {
    for run in [0, 5] {
        let dir = tempfile::tempdir().unwrap();
        let loader = Replica::create(dir.path(), &small(), catalog()).unwrap();
        fill_disk(dir.path(), run);
        let mut part = loader.table(ITEMS).unwrap();
        let error = (0..).find_map(|id| part.insert(&item(id, "name")).err());
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        assert_eq!(error.kind().remedy(), Remedy::Reopen);
        assert!(error.to_string().contains(&format!("{run}.run")), "{error}");
        assert!(error.to_string().contains("is full"), "{error}");
        // Whoever goes on all the same does not get a replica without those rows.
        part.insert(&item(u32::MAX, "last")).unwrap();
        part.finish().unwrap();
        let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let error = Replica::open(dir.path(), &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
    }
}

#[test]
fn empty_tables_are_loaded_too() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    loader.table(ITEMS).unwrap().finish().unwrap();
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .scan(ITEMS, &Scan::all())
            .unwrap()
            .count(),
        0
    );
    assert_eq!((replica.watermark(), replica.horizon()), (100, 100));
}

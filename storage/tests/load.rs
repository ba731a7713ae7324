//! The bulk load: any order, several threads, bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::path::Path;

use kelvin_protocol::{Value, ValueRef};
use kelvin_storage::{
    Catalog, Error, ErrorKind, Remedy, Replica, ReplicaIdentity, ReplicaOptions, Scan, TableId,
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

/// Loads parts of a table beside each other, each given as the numbers of its items in the order
/// they come. What is loaded is several times what makes a stream.
fn load_parts(dir: &Path, parts: Vec<Vec<u32>>) -> Result<Replica, Error> {
    let options = ReplicaOptions {
        load_bytes: 256 << 20,
        ..options()
    };
    let loader = Replica::create(dir, &options, catalog()).unwrap();
    std::thread::scope(|scope| {
        for ids in parts {
            let mut part = loader.table(ITEMS).unwrap();
            scope.spawn(move || {
                let note = Value::from("x".repeat(4000));
                for id in ids {
                    let name = Value::from(format!("name {:03}", id % 1000));
                    part.insert(&[f64::from(id).into(), name, note.clone()])
                        .unwrap();
                }
                part.finish().unwrap();
            });
        }
    });
    let runs = std::fs::read_dir(dir.join("runs")).unwrap().count();
    assert_eq!(runs, 0, "there was memory for all of it");
    loader.finish(ReplicaIdentity::default(), 100)
}

/// The items of a replica must be these, by key and by name, and numbered without a gap.
fn check_items(replica: &Replica, mut ids: Vec<u32>) {
    let view = replica.latest().unwrap();
    let found = |scan: &Scan| -> Vec<(u32, u32)> {
        let rows = view.scan(ITEMS, scan).unwrap().map(Result::unwrap);
        let id = |value: ValueRef<'_>| value.as_f64().unwrap() as u32;
        rows.map(|row| (id(row.value(0)), row.id)).collect()
    };
    ids.sort_unstable();
    let by_key = found(&Scan::all());
    assert!(by_key.iter().map(|(id, _)| id).eq(&ids));
    let mut numbers: Vec<_> = by_key.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ids.len() as u32).collect::<Vec<_>>());
    ids.sort_unstable_by_key(|id| (id % 1000, *id));
    let by_name = found(&Scan::of(BY_NAME));
    assert!(by_name.iter().map(|(id, _)| id).eq(&ids));
    assert_eq!(replica.row_count(ITEMS), ids.len() as u64);
    for id in ids.iter().step_by(97) {
        let row = view.get(ITEMS, &[f64::from(*id).into()]).unwrap();
        assert_eq!(row.unwrap().value(0), Value::from(f64::from(*id)));
    }
}

#[test]
fn rows_that_come_in_order_of_their_keys_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let parts = vec![
        (4000..8000).collect(),
        (0..4000).collect(),
        (8000..8500).collect(),
    ];
    let replica = load_parts(dir.path(), parts).unwrap();
    check_items(&replica, (0..8500).collect());
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    check_items(&replica, (0..8500).collect());
}

#[test]
fn rows_that_come_in_order_but_for_some_are_all_there() {
    let cases: [Vec<Vec<u32>>; 4] = [
        // Between two pieces of one part; then behind what the other has.
        vec![
            (0..2500).chain([7000]).chain(2501..5000).collect(),
            (5000..7000).chain([2500]).chain(7001..9000).collect(),
        ],
        // One lies among the other.
        vec![
            (0..10_000).step_by(2).collect(),
            (1..10_000).step_by(2).collect(),
        ],
        // In order at first, and no more.
        vec![(3000..6000).chain((0..3000).rev()).collect()],
        // In order only later.
        vec![(0..1500).rev().chain(1500..6000).collect()],
    ];
    for parts in cases {
        let dir = tempfile::tempdir().unwrap();
        let replica = load_parts(dir.path(), parts.clone()).unwrap();
        check_items(&replica, parts.concat());
    }
}

#[test]
fn a_key_that_came_in_order_and_once_more_is_an_error() {
    let cases: [Vec<Vec<u32>>; 4] = [
        vec![(0..4000).chain([0]).collect()],
        vec![(0..4000).chain([3999]).collect()],
        vec![(0..4000).collect(), (1000..5000).collect()],
        vec![(0..4000).collect(), vec![2000]],
    ];
    for parts in cases {
        let dir = tempfile::tempdir().unwrap();
        let error = load_parts(dir.path(), parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Duplicate);
        let error = Replica::open(dir.path(), &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
    }
}

#[test]
fn a_part_that_is_abandoned_leaves_nothing_and_the_load_goes_on() {
    for options in [small(), options()] {
        let dir = tempfile::tempdir().unwrap();
        let loader = Replica::create(dir.path(), &options, catalog()).unwrap();
        let fill = |ids: &mut dyn Iterator<Item = u32>| {
            let mut part = loader.table(ITEMS).unwrap();
            for id in ids {
                let note = Value::from("x".repeat(4000));
                let name = Value::from(format!("name {:03}", id % 1000));
                part.insert(&[f64::from(id).into(), name, note]).unwrap();
            }
            part
        };
        fill(&mut (0..2000)).finish().unwrap();
        // In order, and in none; more of it than is there in the end.
        fill(&mut (2000..5500)).abandon().unwrap();
        fill(&mut (2000..5500).rev()).abandon().unwrap();
        fill(&mut (2000..5000)).finish().unwrap();
        let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
        let rows = replica.latest().unwrap().scan(ITEMS, &Scan::all()).unwrap();
        let ids = rows.map(|row| row.unwrap().value(0).as_f64().unwrap() as u32);
        assert!(ids.eq(0..5000));
        assert_eq!(replica.row_count(ITEMS), 5000);
        // A new row gets a number that no other has.
        let ops = vec![insert(9999, "next")];
        replica.apply(&[transaction(101, ops)]).unwrap();
        let rows = replica.latest().unwrap().scan(ITEMS, &Scan::all()).unwrap();
        let mut numbers: Vec<_> = rows.map(|row| row.unwrap().id).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 5001);
    }
}

#[test]
fn a_table_that_is_left_out_is_not_there_and_the_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let (left, stays) = (TableId(1), TableId(2));
    let tables = [stays, left].map(items).to_vec();
    let mut loader = Replica::create(dir.path(), &options(), Catalog::new(tables, vec![])).unwrap();
    for table in [left, stays] {
        let mut part = loader.table(table).unwrap();
        for id in 0..3000 {
            let note = Value::from("x".repeat(4000));
            part.insert(&[f64::from(id).into(), Value::Null, note])
                .unwrap();
        }
        part.finish().unwrap();
    }
    loader.leave_out(left, "it is gone".into()).unwrap();
    let error = loader.leave_out(left, "it is gone".into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    let catalog = replica.catalog();
    assert!(catalog.table_by_id(left).is_none());
    assert_eq!(catalog.unsynced()[0].reason, "it is gone");
    let view = replica.latest().unwrap();
    assert_eq!(view.scan(stays, &Scan::all()).unwrap().count(), 3000);
    // Its place is free for another one.
    let load = replica.load_table(items(left), 100).unwrap();
    let id = load.table().id;
    load.part().finish().unwrap();
    assert_ne!(id, stays);
}

#[test]
fn a_load_given_up_in_the_middle_of_a_stream_leaves_nothing_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    for id in 0..3000 {
        part.insert(&item(id, &"x".repeat(4000))).unwrap();
    }
    drop(part);
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = Replica::open(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    check_items(&replica, vec![]);
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

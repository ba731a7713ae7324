//! The bulk load: any order, several threads, bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{ErrorKind, Replica, ReplicaIdentity, ReplicaOptions, Scan};
use sample::{BY_NAME, ITEMS, catalog, insert, item, options, transaction};

/// Visits every number below a power of two, in no order.
fn scattered(i: u32, bits: u32) -> u32 {
    (i.wrapping_mul(0x9E37_79B1)) & ((1 << bits) - 1)
}

#[test]
fn rows_from_several_threads_that_spill_come_out_sorted() {
    const BITS: u32 = 15;
    const THREADS: u32 = 4;
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        load_bytes: 64 * 1024,
        ..options()
    };
    let loader = Replica::create(dir.path(), &options, catalog()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut part = loader.table(ITEMS).unwrap();
            scope.spawn(move || {
                for i in (thread..1 << BITS).step_by(THREADS as usize) {
                    let id = scattered(i, BITS);
                    part.insert(item(id, &format!("name {:05}", (1 << BITS) - id)))
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
        part.insert(item(5, name)).unwrap();
        part.finish().unwrap();
    }
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Duplicate);
    assert!(error.to_string().contains("items"));
    let error = Replica::open(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
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

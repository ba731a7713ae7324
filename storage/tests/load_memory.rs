//! Memory of a bulk load. Alone in its process, or it would measure others.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{Replica, ReplicaIdentity, ReplicaOptions, Scan};
use sample::{ITEMS, MIB, catalog, options, peak_memory};

#[test]
fn a_load_of_several_times_its_memory_stays_within_it() {
    const LOAD: u64 = 64 * MIB;
    /// What the engine and the allocator take beside.
    const BESIDE: u64 = 32 * MIB;
    const THREADS: u32 = 3;
    const ROWS: u32 = 75_000;
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        load_bytes: LOAD,
        worker_threads: 2,
        ..options()
    };
    let loader = Replica::create(dir.path(), &options, catalog()).unwrap();
    let before = peak_memory();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let loader = &loader;
            scope.spawn(move || {
                let mut part = loader.table(ITEMS).unwrap();
                let note = Value::from("x".repeat(4000));
                for id in (thread..ROWS).step_by(THREADS as usize).rev() {
                    let name = Value::from(format!("name {}", id % 1000));
                    part.insert(&[f64::from(id).into(), name, note.clone()])
                        .unwrap();
                }
                part.finish().unwrap();
            });
        }
    });
    let collected = peak_memory();
    assert!(
        collected - before <= LOAD + BESIDE,
        "collecting took {} MiB",
        (collected - before) / MIB
    );
    let replica = loader.finish(ReplicaIdentity::default(), 100).unwrap();
    let merged = peak_memory();
    assert!(
        merged - before <= LOAD + BESIDE,
        "merging took {} MiB",
        (merged - before) / MIB
    );
    let view = replica.latest().unwrap();
    let rows = view.scan(ITEMS, &Scan::all()).unwrap();
    assert_eq!(rows.map(Result::unwrap).count(), ROWS as usize);
    let loaded: u64 = files(dir.path());
    assert!(loaded > 4 * LOAD, "only {} MiB were loaded", loaded / MIB);
}

/// Bytes of all files below a directory.
fn files(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let bytes = entries.map(|entry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => files(&entry.path()),
        meta => meta.len(),
    });
    bytes.sum()
}

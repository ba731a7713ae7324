//! Indexes are built while transactions go on, and are right when they can be seen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use kelvin_protocol::{Direction, Version};
use kelvin_storage::{ErrorKind, IndexBuilder, IndexId, Replica, Scan, View};
use sample::{ITEMS, delete, insert, load, options, transaction};

const BY_NOTE: [(usize, Direction); 1] = [(2, Direction::Desc)];

/// The index shows the rows that a scan of the table shows, in its order.
fn check(view: &View, index: IndexId) {
    let rows = |scan: &Scan| -> Vec<_> {
        let rows = view.scan(ITEMS, scan).unwrap();
        rows.map(|row| row.unwrap().to_values()).collect()
    };
    let mut expected = rows(&Scan::all());
    expected.sort_by(|a, b| b[2].cmp(&a[2]).then(a[0].cmp(&b[0])));
    assert_eq!(rows(&Scan::of(index)), expected, "at {}", view.version());
}

#[test]
fn commits_go_on_while_an_index_is_built_and_every_version_has_it_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..6000);
    let done = AtomicBool::new(false);
    let index = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut version: Version = 100;
            while !done.load(Ordering::Relaxed) {
                version += 1;
                let id = u32::try_from(version * 37 % 6000).unwrap();
                let ops = vec![insert(id, &format!("at {version}")), delete(id / 2)];
                replica.apply(&[transaction(version, ops)]).unwrap();
            }
            version
        });
        // At each pause the build waits for a commit, which never comes if commits wait for it.
        let seen = Cell::new(replica.watermark());
        let commit = || {
            while replica.watermark() == seen.get() {
                std::thread::yield_now();
            }
            seen.set(replica.watermark());
            true
        };
        let index = replica.add_index(ITEMS, &BY_NOTE, &commit).unwrap();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        index
    });
    let watermark = replica.watermark();
    for version in [100, 101, watermark / 2 + 50, watermark - 1, watermark] {
        check(&replica.at(version).unwrap(), index);
    }
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    check(&replica.latest().unwrap(), index);
    check(&replica.at(100).unwrap(), index);
}

#[test]
fn a_build_is_listed_with_its_progress_and_cannot_be_begun_twice() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3000);
    let most = Cell::new(0);
    let look = || {
        let builds = replica.index_builds();
        assert_eq!(builds.len(), 1);
        assert_eq!(
            (builds[0].table, &builds[0].columns[..]),
            (ITEMS, &BY_NOTE[..])
        );
        assert_eq!(builds[0].rows_total, 3000);
        most.set(most.get().max(builds[0].rows_done));
        let again = replica.add_index(ITEMS, &BY_NOTE, &|| true).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Building);
        true
    };
    let index = replica.add_index(ITEMS, &BY_NOTE, &look).unwrap();
    assert!(most.get() > 1000, "{} rows at most", most.get());
    assert_eq!(replica.index_builds(), []);
    let again = replica.add_index(ITEMS, &BY_NOTE, &|| panic!("it is there"));
    assert_eq!(again.unwrap(), index);
}

#[test]
fn a_build_that_is_given_up_leaves_nothing_to_be_found() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3000);
    let pauses = Cell::new(0);
    for stop_at in 1..5 {
        pauses.set(0);
        let go_on = || {
            pauses.set(pauses.get() + 1);
            pauses.get() < stop_at
        };
        let error = replica.add_index(ITEMS, &BY_NOTE, &go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(replica.index_builds(), []);
        assert_eq!(
            replica.catalog().table_by_id(ITEMS).unwrap().indexes.len(),
            1
        );
    }
    for _ in 0..8 {
        replica.maintain(std::time::Duration::ZERO).unwrap();
    }
    replica
        .apply(&[transaction(101, vec![insert(1, "new")])])
        .unwrap();
    let index = replica.add_index(ITEMS, &BY_NOTE, &|| true).unwrap();
    check(&replica.latest().unwrap(), index);
    check(&replica.at(100).unwrap(), index);
    assert!(!dir.path().join("runs").exists() || is_empty(&dir.path().join("runs")));
}

fn is_empty(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn the_builder_builds_what_is_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..100);
    let builder = IndexBuilder::start(replica.clone()).unwrap();
    for _ in 0..10 {
        assert!(builder.request(ITEMS, &BY_NOTE));
    }
    let indexes = || replica.catalog().table_by_id(ITEMS).unwrap().indexes.len();
    while indexes() < 2 {
        std::thread::yield_now();
    }
    assert!(builder.request(ITEMS, &BY_NOTE));
    assert!(builder.request(ITEMS, &[(1, Direction::Desc)]));
    while indexes() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(indexes(), 3);
    while builder.pending(ITEMS) > 0 {
        std::thread::yield_now();
    }
}

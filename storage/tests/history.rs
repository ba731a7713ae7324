//! Views far back, views that outlive what they show, and letting go of the past.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kelvin_protocol::{Value, ValueRef, Version};
use kelvin_storage::{ErrorKind, Replica, ReplicaOptions, RowOp, Scan, View};
use sample::{BY_NAME, ITEMS, delete, insert, load, options, transaction};

fn names(view: &View, scan: &Scan) -> Vec<String> {
    let rows = view.scan(ITEMS, scan).unwrap();
    rows.map(|row| row.unwrap().value(1).as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_view_outlives_the_history_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        history_bytes: 8 * 1024,
        ..options()
    };
    drop(load(dir.path(), 0..3));
    let replica = Replica::open(dir.path(), &options).unwrap();
    for version in 101..150 {
        replica
            .apply(&[transaction(
                version,
                vec![insert(1, &format!("at {version}"))],
            )])
            .unwrap();
    }
    let old = replica.at(110).unwrap();
    for version in 150..400 {
        replica
            .apply(&[transaction(
                version,
                vec![insert(1, &format!("at {version}"))],
            )])
            .unwrap();
        if version % 25 == 0 {
            replica.trim_history(version).unwrap();
        }
    }
    assert_eq!(replica.at(110).unwrap_err().kind(), ErrorKind::BelowHorizon);
    assert_eq!(names(&old, &Scan::all()), ["item 0", "at 110", "item 2"]);
    assert_eq!(
        names(&old, &Scan::of(BY_NAME)),
        ["at 110", "item 0", "item 2"]
    );
    replica.trim_history(399).unwrap();
    assert!(replica.metrics().buckets <= 2);
}

#[test]
fn history_is_dropped_by_age_as_the_caller_tells_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        history_age: Duration::from_secs(60),
        ..options()
    };
    drop(load(dir.path(), 0..3));
    let replica = Replica::open(dir.path(), &options).unwrap();
    let at = |second: u64, version: Version| {
        replica
            .apply(&[transaction(version, vec![insert(1, "x")])])
            .unwrap();
        replica.maintain(Duration::from_secs(second)).unwrap();
    };
    at(1000, 200);
    at(1030, 230);
    at(1059, 259);
    assert_eq!(replica.horizon(), 100);
    at(1060, 260);
    assert_eq!(replica.horizon(), 200);
    at(1095, 295);
    assert_eq!(replica.horizon(), 230);
}

#[test]
fn history_is_dropped_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let history_bytes = 128 * 1024;
    let options = ReplicaOptions {
        history_bytes,
        memtable_bytes: 16 * 1024,
        ..options()
    };
    drop(load(dir.path(), 0..3));
    let replica = Replica::open(dir.path(), &options).unwrap();
    let noise = |seed: u64| -> String {
        let step = |i: u64| char::from(b'a' + u8::try_from((seed * 31 + i * i * 7) % 26).unwrap());
        (0..400).map(step).collect()
    };
    for version in 101..1500 {
        let ops = vec![insert(
            u32::try_from(version % 50).unwrap(),
            &noise(version),
        )];
        replica.apply(&[transaction(version, ops)]).unwrap();
        if version % 50 == 0 {
            replica.maintain(Duration::ZERO).unwrap();
        }
    }
    assert!(replica.horizon() > 100);
    assert!(
        replica.history_bytes() < 3 * history_bytes,
        "{}",
        replica.history_bytes()
    );
}

#[test]
fn views_stay_right_while_another_thread_applies() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..50);
    let done = AtomicBool::new(false);
    // Every transaction gives all items the same name, so that a torn view would show two.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 101..300 {
                let ops = (0..50).map(|id| insert(id, &version.to_string())).collect();
                replica.apply(&[transaction(version, ops)]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let reader = || {
            let mut kept: Vec<View> = Vec::new();
            while !done.load(Ordering::Acquire) {
                let latest = replica.latest().unwrap();
                kept.push(
                    replica
                        .at(latest.version().max(110) - 10)
                        .unwrap_or(latest.clone()),
                );
                kept.push(latest);
                for view in &kept {
                    check_uniform(view);
                }
                if kept.len() > 4 {
                    kept.drain(..2);
                }
            }
        };
        scope.spawn(reader);
        scope.spawn(reader);
    });
    check_uniform(&replica.at(200).unwrap());
}

fn check_uniform(view: &View) {
    for scan in [Scan::all(), Scan::of(BY_NAME).reverse()] {
        let names = names(view, &scan);
        assert_eq!(names.len(), 50);
        if view.version() > 100 {
            assert!(
                names.iter().all(|name| *name == view.version().to_string()),
                "{view:?}"
            );
        }
    }
}

#[test]
fn a_queue_that_is_consumed_leaves_every_version_readable() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..200);
    for id in 0..150 {
        replica
            .apply(&[transaction(101 + u64::from(id), vec![delete(id)])])
            .unwrap();
    }
    for id in [0u32, 1, 75, 149] {
        let view = replica.at(100 + u64::from(id)).unwrap();
        assert_eq!(names(&view, &Scan::all())[0], format!("item {id}"));
        assert_eq!(names(&view, &Scan::all()).len(), 200 - id as usize);
    }
}

#[test]
fn the_state_before_each_commit_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let key = [1.0.into()];
    for version in 101..160 {
        let op = match version % 3 {
            0 => delete(1),
            1 => RowOp::Truncate {
                tables: vec![ITEMS],
            },
            _ => insert(1, &version.to_string()),
        };
        let before = replica.latest().unwrap().get(ITEMS, &key).unwrap();
        let applied = replica.apply(&[transaction(version, vec![op])]).unwrap();
        let view = replica.at(applied.from).unwrap();
        assert_eq!(view.get(ITEMS, &key).unwrap(), before);
        let change = applied.changes.iter().find(|change| {
            let row = change.old.as_ref().or(change.new.as_ref()).unwrap();
            row.value(0) == key[0]
        });
        assert_eq!(
            change.and_then(|change| change.old.clone()),
            before.filter(|_| change.is_some())
        );
    }
}

#[test]
fn an_idle_replica_does_not_pin_its_past() {
    let dir = tempfile::tempdir().unwrap();
    let replica: Replica = load(dir.path(), 0..3);
    replica
        .apply(&[transaction(101, vec![insert(1, "x")])])
        .unwrap();
    replica.maintain(Duration::ZERO).unwrap();
    replica.maintain(Duration::ZERO).unwrap();
    // The view before the commit now comes from the history, and is the same.
    assert_eq!(
        names(&replica.at(100).unwrap(), &Scan::all()),
        ["item 0", "item 1", "item 2"]
    );
}

#[test]
fn every_old_row_of_a_large_transaction_is_told_whichever_thread_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3000);
    // Every third is changed, every third is new, and some of both come twice.
    let ids: Vec<u32> = (0..3000).filter(|id| id % 3 == 0).collect();
    let news: Vec<u32> = (3000..4000).collect();
    let all = ids.iter().chain(&news).chain(&ids[..100]);
    let ops = all.map(|id| insert(*id, "renamed")).collect();
    let applied = replica.apply(&[transaction(101, ops)]).unwrap();
    assert_eq!(applied.changes.len(), 2000);
    for change in &applied.changes {
        let new = change.new.as_ref().unwrap();
        let id = new.value(0).as_f64().unwrap();
        assert_eq!(new.value(1), ValueRef::String("renamed"));
        let old = change.old.as_ref().map(|row| row.value(1).to_value());
        let expected = (id < 3000.0).then(|| Value::from(format!("item {id}")));
        assert_eq!(old, expected);
    }
    assert_eq!(replica.row_count(ITEMS), 4000);
}

#[test]
fn a_scan_for_a_whole_key_finds_its_row_now_and_then_and_costs_no_scan() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    for (version, op) in [
        (101, insert(1, "new")),
        (102, delete(1)),
        (103, insert(7, "x")),
    ] {
        replica.apply(&[transaction(version, vec![op])]).unwrap();
    }
    let scans = replica.metrics().scans;
    let of = |id: u32| Scan::all().prefix(vec![Value::from(f64::from(id))]);
    for scan in [of(1), of(1).reverse()] {
        let found = |version| names(&replica.at(version).unwrap(), &scan);
        assert_eq!(found(100), ["item 1"]);
        assert_eq!(found(101), ["new"]);
        assert!(found(102).is_empty());
        assert!(found(103).is_empty());
    }
    let latest = replica.latest().unwrap();
    assert_eq!(names(&latest, &of(7)), ["x"]);
    // No row has a key as long as that.
    let long = Scan::all().prefix(vec![Value::from("x".repeat(100_000))]);
    assert!(names(&latest, &long).is_empty());
    assert_eq!(replica.metrics().scans, scans);
    let beyond = of(7).start(vec![Value::from(1.0)], true);
    assert!(latest.scan(ITEMS, &beyond).is_err(), "no column is left");
}

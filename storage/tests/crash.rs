//! kill -9 while applying: the replica comes back at a transaction boundary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kelvin_protocol::{Value, Version};
use kelvin_storage::{Replica, RowOp, Scan};
use sample::{BY_NAME, ITEMS, delete, insert, load, open_soon, transaction};

const DIR: &str = "KELVIN_CRASH_DIR";
const ITEM_COUNT: u32 = 40;
const ROUNDS: u64 = 5;
/// Rounds in which memory is full of memtables that wait to be flushed when the process dies.
const FULL_ROUNDS: u64 = 6;
/// Set for a process that fills them.
const FULL: &str = "KELVIN_CRASH_FULL";

/// The transaction at `version`: renames some items, drops some, and counts.
fn ops(version: Version) -> Vec<RowOp> {
    let v = u32::try_from(version).unwrap();
    let mut ops: Vec<_> = (0..4)
        .map(|i| insert((v * 7 + i * 11) % ITEM_COUNT, &format!("name {}", v % 17)))
        .collect();
    ops.push(delete((v * 3) % ITEM_COUNT));
    ops.push(insert(1000, &version.to_string()));
    ops
}

/// Items with more in them than a memtable of these tests may hold.
fn large_ops(version: Version) -> Vec<RowOp> {
    let mut state = version;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{state:016x}")
    };
    let text: String = (0..6000).map(|_| noise()).collect();
    (0..2)
        .map(|i| insert(u32::try_from(version % 7 + i).unwrap(), &text))
        .collect()
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[test]
fn applies_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let replica = open_soon(Path::new(&dir)).unwrap();
    let mut version = replica.watermark();
    while std::env::var(FULL).is_ok() {
        version += 1;
        replica
            .apply(&[transaction(version, large_ops(version))])
            .unwrap();
        println!("applied {version}");
    }
    loop {
        let batch: Vec<_> = (version + 1..version + 1 + version % 4)
            .map(|version| transaction(version, ops(version)))
            .collect();
        version += 1 + version % 4;
        replica.apply(&batch).unwrap();
        replica
            .apply(&[transaction(version, ops(version))])
            .unwrap();
        if version % 50 < 4 {
            replica.trim_history(version - 40).unwrap();
            replica.sync().unwrap();
        }
        println!("applied {version}");
    }
}

#[test]
fn a_killed_replica_reopens_at_a_transaction_boundary() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..ITEM_COUNT));
    for round in 0..ROUNDS {
        let printed = run_and_kill(dir.path(), 20 + round * 137, false);
        let replica = open_soon(dir.path()).unwrap();
        let watermark = replica.watermark();
        assert!(
            watermark >= printed,
            "lost {printed}, came back at {watermark}"
        );
        compare(&replica, watermark);
        // Replaying what is there changes nothing; what is not there yet goes on from here.
        let again: Vec<_> = (watermark - 3..=watermark + 2)
            .map(|v| transaction(v, ops(v)))
            .collect();
        let applied = replica.apply(&again).unwrap();
        assert_eq!((applied.from, applied.version), (watermark, watermark + 2));
        compare(&replica, watermark + 2);
        compare(&replica, watermark);
        compare(&replica, replica.horizon());
    }
}

#[test]
fn memtables_that_waited_when_the_process_died_do_not_block_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..ITEM_COUNT));
    let mut last = 100;
    for round in 0..FULL_ROUNDS {
        // The process has to open the replica, and to write, before it says anything.
        let printed = run_and_kill(dir.path(), 3 + round * 29, true);
        assert!(printed > last, "nothing was applied after {last}");
        last = printed;
    }
    let replica = open_soon(dir.path()).unwrap();
    let version = replica.watermark() + 1;
    assert!(version > last);
    let ops = large_ops(version);
    replica.apply(&[transaction(version, ops.clone())]).unwrap();
    let view = replica.latest().unwrap();
    for op in ops {
        let RowOp::Insert { row, .. } = op else {
            unreachable!()
        };
        let found = view.get(ITEMS, &row[..1]).unwrap().unwrap();
        assert_eq!(found.to_values(), row);
    }
}

/// Lets a process apply until it has said so `lines` times, then kills it. Returns the last version
/// it spoke of.
fn run_and_kill(dir: &Path, lines: u64, full: bool) -> Version {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if full {
        command.env(FULL, "1");
    }
    let mut child = command
        .args(["--exact", "applies_until_it_is_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let versions = out.lines().map_while(Result::ok).filter_map(|line| {
        let (_, version) = line.split_once("applied ")?;
        version.parse().ok()
    });
    let mut versions = versions.fuse();
    let mut last = 0;
    for version in versions.by_ref().take(usize::try_from(lines).unwrap()) {
        last = version;
    }
    child.kill().unwrap();
    let last = versions.last().unwrap_or(last);
    child.wait().unwrap();
    last
}

/// The database at `version` is what its transactions make of the load.
fn compare(replica: &Replica, version: Version) {
    let mut expected: std::collections::BTreeMap<Value, Vec<Value>> = (0..ITEM_COUNT)
        .map(|id| {
            (
                f64::from(id).into(),
                sample::item(id, &format!("item {id}")),
            )
        })
        .collect();
    for op in (101..=version).flat_map(ops) {
        match op {
            RowOp::Insert { row, .. } => {
                expected.insert(row[0].clone(), row);
            }
            RowOp::Delete { key, .. } => {
                expected.remove(&key[0]);
            }
            _ => unreachable!(),
        }
    }
    if version == replica.watermark() {
        assert_eq!(replica.row_count(ITEMS), expected.len() as u64);
    }
    let view = replica.at(version).unwrap();
    let rows = view.scan(ITEMS, &Scan::all()).unwrap();
    let rows: Vec<_> = rows.map(|row| row.unwrap().to_values()).collect();
    assert_eq!(rows, expected.values().cloned().collect::<Vec<_>>());
    for row in &rows {
        assert_eq!(
            view.get(ITEMS, &row[..1]).unwrap().unwrap().to_values(),
            *row
        );
    }
    let mut by_name: Vec<_> = rows
        .iter()
        .map(|row| (row[1].clone(), row[0].clone()))
        .collect();
    by_name.sort();
    let found = view.scan(ITEMS, &Scan::of(BY_NAME)).unwrap();
    let found: Vec<_> = found
        .map(|row| row.unwrap())
        .map(|row| (row.value(1).to_value(), row.value(0).to_value()))
        .collect();
    assert_eq!(found, by_name);
}

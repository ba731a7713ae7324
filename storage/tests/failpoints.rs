//! The process dies at places where a write is half done; the replica comes back whole.
//!
//! A child process runs a workload that follows from a seed alone, and aborts when it passes one of
//! the places for the n-th time. The parent opens what is left, and compares it with what the same
//! transactions make of a simple map.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kelvin_protocol::{Direction, Value, ValueType, Version};
use kelvin_storage::{
    Alteration, Catalog, Column, Datum, Error, ErrorKind, IndexId, Replica, ReplicaIdentity,
    ReplicaOptions, RowOp, Scan, SchemaChange, Table, TableId, View,
};
use sample::{BY_NAME, ITEMS, item, items, once_unlocked, open_soon_with, transaction};

/// With parts of one operation each.
fn options() -> ReplicaOptions {
    ReplicaOptions {
        part_bytes: 1,
        ..sample::options()
    }
}

const DIR: &str = "KELVIN_CRASH_DIR";
const POINT: &str = "KELVIN_CRASH_POINT";
const AT: &str = "KELVIN_CRASH_AT";
const SEED: &str = "KELVIN_CRASH_SEED";

/// Places of the workload, and how often to let them pass.
const POINTS: [&str; 17] = [
    "apply-before-commit",
    "apply-after-commit",
    "part-after-note",
    "part-before-commit",
    "part-after-commit",
    "undo-after-commit",
    "rewrite-after-ingest",
    "index-build-after-reserve",
    "index-build-after-ingest",
    "index-build-after-history",
    "index-build-before-install",
    "index-build-after-install",
    "trim-before-drop",
    "retire-before-drop",
    "sweep-after-commit",
    "load-after-complete",
    "load-table-after-ingest",
];
/// Every so many versions a table is loaded beside the replica.
const LOADS: Version = 6;
const PASSES: [u32; 3] = [0, 1, 4];
const ITEM_COUNT: u32 = 30;
/// Versions of one round of the workload; the schema changes at fixed places of it.
const ROUND: Version = 12;
/// Versions after which a workload that does not die ends.
const LAST: Version = 100 + 5 * ROUND;

/// The form of the table from this version on.
fn form(version: Version) -> Table {
    let mut table = items(ITEMS);
    let round = (version - 100) / ROUND;
    let step = (version - 100) % ROUND;
    // A column that is another one in each round from its fourth version on.
    let age = if step >= 4 { round + 1 } else { round };
    if age > 0 {
        table.columns.push(Column {
            name: format!("extra {age}"),
            attnum: i16::try_from(10 + age).unwrap(),
            upstream_type: "int4".into(),
            type_oid: 23,
            value_type: ValueType::Number,
            not_null: false,
        });
    }
    // The key changes back and forth, for which rows are rewritten.
    let keys = if step >= 8 { round + 1 } else { round };
    table.key = if keys % 2 == 0 { vec![0] } else { vec![1, 0] };
    table.unique_keys = vec![table.key.clone()];
    table.indexes = vec![];
    table
}

fn spread(seed: u64, version: Version) -> u32 {
    let mixed = (seed << 32 | version).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u32::try_from(mixed >> 40).unwrap() % ITEM_COUNT
}

/// What the transaction at `version` does, and the row it leaves.
fn ops(seed: u64, version: Version) -> (Vec<RowOp>, Vec<Value>) {
    let (before, table) = (form(version - 1), form(version));
    let mut ops = Vec::new();
    if before != table {
        let fills = match table.columns.get(3) {
            Some(column) if before.columns.get(3) != Some(column) => {
                vec![(column.attnum, Value::from(version as f64))]
            }
            _ => vec![],
        };
        let alteration = Alteration {
            table: table.clone(),
            fills,
            made_anew: false,
        };
        ops.push(RowOp::Schema(Box::new(SchemaChange::AlterTable(
            alteration,
        ))));
    }
    // A row of its own for each version: keys never meet, whatever they are made of.
    let id = 1000 + u32::try_from(version).unwrap();
    let mut row = item(id, &format!("name {}", spread(seed, version)));
    row.resize(table.columns.len(), Value::from(0.0));
    ops.push(RowOp::Insert {
        table: ITEMS,
        row: row.clone(),
    });
    (ops, row)
}

/// Whether the transaction at `version` is one that is applied in parts. It writes rows anew that
/// are there, some of them twice, and others that are gone again at its end.
fn is_large(version: Version) -> bool {
    let step = (version - 100) % ROUND;
    step == 3 || step == 10
}

/// What a large transaction makes of the name of a row that was there before the workload.
fn large_name(seed: u64, version: Version, id: u32) -> Option<String> {
    let picked = (u64::from(id) + seed + version).is_multiple_of(3);
    picked.then(|| format!("large {version}"))
}

/// What a large transaction does beside what others do.
fn large_ops(seed: u64, version: Version) -> Vec<RowOp> {
    let table = ITEMS;
    let filled = expected(seed, version - 1);
    let named = |id: u32, name: &str| {
        let mut row = filled[&Value::from(f64::from(id))].clone();
        row[1] = name.into();
        row
    };
    let key = |row: &[Value]| {
        let form = form(version);
        form.key
            .iter()
            .map(|at| row[*at].clone())
            .collect::<Vec<_>>()
    };
    let mut ops = Vec::new();
    for id in 0..ITEM_COUNT {
        let Some(name) = large_name(seed, version, id) else {
            continue;
        };
        let mut old = filled[&Value::from(f64::from(id))].clone();
        for name in ["for a while", &name] {
            let row = named(id, name);
            let old_key = (key(&old) != key(&row)).then(|| key(&old));
            let datums = row.iter().cloned().map(Datum::Value).collect();
            ops.push(RowOp::Update {
                table,
                old_key,
                row: datums,
            });
            old = row;
        }
        let passing = {
            let mut row = named(id, "passing");
            row[0] = f64::from(500 + id).into();
            row
        };
        let key = key(&passing);
        ops.push(RowOp::Insert {
            table,
            row: passing,
        });
        ops.push(RowOp::Delete { table, key });
    }
    ops
}

/// Applies a transaction in parts, once broken off half-way and taken back.
fn apply_large(replica: &Replica, version: Version, ops: &[RowOp]) {
    let half = ops.len() / 2;
    let broken = ops.iter().take(half).cloned().map(Ok);
    let broken = broken.chain([Err(Error::Cancelled)]);
    replica.apply_in_parts(version, broken).unwrap_err();
    replica.roll_back().unwrap();
    let whole = ops.iter().cloned().map(Ok::<_, Error>);
    let applied = replica.apply_in_parts(version, whole).unwrap();
    assert_eq!(applied.swept, [ITEMS]);
}

/// The rows by number, as of `version`.
fn expected(seed: u64, version: Version) -> BTreeMap<Value, Vec<Value>> {
    let mut rows: BTreeMap<Value, Vec<Value>> = (0..ITEM_COUNT)
        .map(|id| (f64::from(id).into(), item(id, &format!("item {id}"))))
        .collect();
    for at in 101..=version {
        let (before, table) = (form(at - 1), form(at));
        if let Some(column) = table.columns.get(3)
            && before.columns.get(3) != Some(column)
        {
            for row in rows.values_mut() {
                row.truncate(3);
                row.push(Value::from(at as f64));
            }
        }
        let (_, row) = ops(seed, at);
        rows.insert(row[0].clone(), row);
        for id in (0..ITEM_COUNT).filter(|_| is_large(at)) {
            if let Some(name) = large_name(seed, at, id) {
                rows.get_mut(&Value::from(f64::from(id))).unwrap()[1] = name.into();
            }
        }
    }
    rows
}

fn load(dir: &Path) -> Replica {
    let mut table = items(ITEMS);
    table.indexes = vec![];
    let catalog = Catalog::new(vec![table], vec![]);
    let create = || Replica::create(dir, &options(), catalog.clone());
    let loader = once_unlocked(create).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    for id in 0..ITEM_COUNT {
        part.insert(&item(id, &format!("item {id}"))).unwrap();
    }
    part.finish().unwrap();
    loader.finish(ReplicaIdentity::default(), 100).unwrap()
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[test]
fn works_until_it_dies() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let number = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (seed, passes) = (number(SEED), number(AT));
    let point = std::env::var(POINT).unwrap();
    let left = std::sync::atomic::AtomicU64::new(passes);
    let die = move || {
        let before = left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        if before == 0 {
            std::process::abort();
        }
    };
    fail::cfg_callback(point, die).unwrap();
    let dir = Path::new(&dir);
    let replica = match open_soon_with(dir, &options()) {
        Err(error) if error.kind() == ErrorKind::Missing => load(dir),
        opened => opened.unwrap(),
    };
    work(&replica, seed);
}

fn work(replica: &Replica, seed: u64) {
    while replica.watermark() < LAST {
        let version = replica.watermark() + 1;
        let (mut ops, _) = ops(seed, version);
        if is_large(version) {
            ops.extend(large_ops(seed, version));
            apply_large(replica, version, &ops);
        } else {
            if version.is_multiple_of(LOADS) {
                load_beside(replica, version, &mut ops);
            }
            replica.apply(&[transaction(version, ops)]).unwrap();
        }
        match version % 6 {
            1 => {
                let columns = [(1, Direction::Desc)];
                replica.add_index(ITEMS, &columns, &|| true).unwrap();
            }
            3 => {
                let catalog = replica.catalog();
                let table = catalog.table_by_id(ITEMS).unwrap();
                let gone = table.indexes.first().map(|index| index.id);
                if let Some(index) = gone {
                    drop_index(replica, seed, index);
                }
            }
            5 => {
                replica.trim_history(version.saturating_sub(8)).unwrap();
                replica.maintain(Duration::ZERO).unwrap();
                replica.maintain(Duration::ZERO).unwrap();
            }
            _ => {}
        }
        if version.is_multiple_of(7) {
            replica.sync().unwrap();
        }
    }
}

/// Loads a table, and lets it take the place of the one before in the transaction at `version`.
fn load_beside(replica: &Replica, version: Version, ops: &mut Vec<RowOp>) {
    let table = items(TableId(0));
    let load = replica.load_table(table, version - 3).unwrap();
    let id = load.table().id;
    let mut part = load.part();
    for number in 0..ITEM_COUNT {
        part.insert(&item(number, "loaded")).unwrap();
    }
    part.finish().unwrap();
    let catalog = replica.catalog();
    let others = catalog.tables().iter().filter(|table| table.id != ITEMS);
    let changes = others.map(|table| SchemaChange::DropTable(table.id));
    let changes: Vec<_> = changes
        .chain([SchemaChange::LoadTable(load.finish().unwrap())])
        .collect();
    ops.extend(
        changes
            .into_iter()
            .map(|change| RowOp::Schema(Box::new(change))),
    );
    ops.push(RowOp::Insert {
        table: id,
        row: item(1, &format!("written at {version}")),
    });
}

/// Drops an index together with the next version's own operations.
fn drop_index(replica: &Replica, seed: u64, index: IndexId) {
    let version = replica.watermark() + 1;
    let table = ITEMS;
    let (mut ops, _) = ops(seed, version);
    let change = SchemaChange::DropIndex { table, index };
    ops.insert(0, RowOp::Schema(Box::new(change)));
    replica.apply(&[transaction(version, ops)]).unwrap();
}

#[test]
fn a_process_that_dies_anywhere_leaves_a_whole_replica() {
    let mut died = BTreeMap::new();
    for (seed, (point, passes)) in (1..).zip(POINTS.iter().flat_map(|p| PASSES.map(|n| (*p, n)))) {
        // Only the process dies, so that memory will do for a disk where there is some.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let status = run(dir.path(), point, passes, seed);
        if !status {
            *died.entry(point).or_insert(0) += 1;
        }
        check(dir.path(), seed, point);
    }
    for point in POINTS {
        assert!(died.contains_key(point), "nobody came past {point:?}");
    }
}

#[test]
fn a_load_that_dies_before_its_end_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!run(dir.path(), "load-before-complete", 0, 1));
    let error = open_soon_with(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    check_rows(&load(dir.path()), 1, 100);
}

/// Whether the workload came to its end.
fn run(dir: &Path, point: &str, passes: u32, seed: u64) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "works_until_it_dies"])
        .env(DIR, dir)
        .env(POINT, point)
        .env(AT, passes.to_string())
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "at {point:?}: {said}");
    output.status.success()
}

fn check(dir: &Path, seed: u64, point: &str) {
    println!("seed {seed}: {point}");
    let replica = open_soon_with(dir, &options()).unwrap();
    let (horizon, watermark) = (replica.horizon(), replica.watermark());
    for version in [horizon, horizon + (watermark - horizon) / 2, watermark] {
        check_rows(&replica, seed, version);
    }
    // It goes on from there.
    work(&replica, seed);
    replica.trim_history(replica.watermark()).unwrap();
    for _ in 0..20 {
        replica.maintain(Duration::ZERO).unwrap();
    }
    check_rows(&replica, seed, replica.watermark());
    let index = replica.add_index(ITEMS, &[(1, Direction::Asc)], &|| true);
    let view = replica.latest().unwrap();
    let rows = view.scan(ITEMS, &Scan::of(index.unwrap())).unwrap();
    let names: Vec<_> = rows.map(|row| row.unwrap().value(1).to_value()).collect();
    assert!(names.is_sorted());
    assert_eq!(names.len() as u64, replica.row_count(ITEMS));
}

/// The table that was loaded last before `version` is there with all of its rows, and no other one.
fn check_loaded(view: &View, version: Version) {
    let tables = view.catalog().tables().iter();
    let mut loaded = tables.filter(|table| table.id != ITEMS);
    let since = version - version % LOADS;
    if since <= 100 {
        assert!(loaded.next().is_none());
        return;
    }
    let table = loaded.next().unwrap();
    assert!(loaded.next().is_none());
    for scan in [Scan::all(), Scan::of(BY_NAME)] {
        let rows = view.scan(table.id, &scan).unwrap();
        let rows = rows.map(|row| row.unwrap().value(1).to_value());
        let mut names: Vec<_> = rows.collect();
        names.sort();
        let mut expected = vec![Value::from("loaded"); ITEM_COUNT as usize - 1];
        expected.push(format!("written at {since}").as_str().into());
        assert_eq!(names, expected, "at {version}");
    }
}

fn check_rows(replica: &Replica, seed: u64, version: Version) {
    let view = replica.at(version).unwrap();
    check_loaded(&view, version);
    let table = view
        .catalog()
        .table_by_id(TableId(ITEMS.0))
        .unwrap()
        .clone();
    let form = form(version);
    assert_eq!((&table.columns, &table.key), (&form.columns, &form.key));
    let expected = expected(seed, version);
    for index in table.indexes.iter().map(|index| index.id) {
        let rows = view.scan(ITEMS, &Scan::of(index)).unwrap();
        assert_eq!(rows.filter(Result::is_ok).count(), expected.len());
    }
    let rows = view.scan(ITEMS, &Scan::all()).unwrap();
    let rows = rows.map(|row| row.unwrap().to_values());
    let found: BTreeMap<_, _> = rows.map(|row| (row[0].clone(), row)).collect();
    assert_eq!(found, expected, "at {version}");
    for row in expected.values() {
        let key: Vec<_> = table.key.iter().map(|at| row[*at].clone()).collect();
        let found = view.get(ITEMS, &key).unwrap().unwrap();
        assert_eq!(&found.to_values(), row);
    }
}

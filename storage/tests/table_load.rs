//! Loading a table beside a live replica.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::path::Path;

use kelvin_protocol::Value;
use kelvin_storage::{
    ErrorKind, LoadedTable, Replica, RowOp, Scan, SchemaChange, Table, TableId, View,
};
use sample::{BY_NAME, ITEMS, insert, item, items, load, options, transaction};

fn other() -> Table {
    Table {
        name: "others".into(),
        ..items(TableId(0))
    }
}

/// A table of these items as of `version`, loaded in two parts.
fn loaded(replica: &Replica, count: u32, version: u64) -> LoadedTable {
    let load = replica.load_table(other(), version).unwrap();
    for half in 0..2 {
        let mut part = load.part();
        for id in (half..count).step_by(2) {
            part.insert(&item(id, &format!("other {}", count - id)))
                .unwrap();
        }
        part.finish().unwrap();
    }
    load.finish().unwrap()
}

fn becomes(loaded: &LoadedTable) -> RowOp {
    RowOp::Schema(Box::new(SchemaChange::LoadTable(loaded.clone())))
}

fn ids(view: &View, table: TableId, scan: &Scan) -> Vec<Value> {
    let rows = view.scan(table, scan).unwrap();
    rows.map(|row| row.unwrap().value(0).to_value()).collect()
}

fn numbers(ids: impl Iterator<Item = u32>) -> Vec<Value> {
    ids.map(|id| Value::from(f64::from(id))).collect()
}

fn keyspaces(dir: &Path) -> usize {
    let folder = dir.join("store").join("keyspaces");
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_loaded_table_appears_whole_with_its_transaction_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let others = loaded(&replica, 500, 103);
    // Commits go on meanwhile.
    replica
        .apply(&[transaction(104, vec![insert(9, "meanwhile")])])
        .unwrap();
    assert!(replica.catalog().table("others").is_none());
    let id = others.table().id;
    let written = RowOp::Insert {
        table: id,
        row: item(1000, "late"),
    };
    let gone = RowOp::Delete {
        table: id,
        key: vec![7.0.into()],
    };
    let ops = vec![becomes(&others), written, gone];
    let applied = replica.apply(&[transaction(110, ops)]).unwrap();
    assert_eq!(applied.altered, [id]);
    let expected = || numbers((0..500).filter(|id| *id != 7).chain([1000]));
    let check = |replica: &Replica| {
        let view = replica.at(110).unwrap();
        assert_eq!(ids(&view, id, &Scan::all()), expected());
        let mut by_name = ids(&view, id, &Scan::of(BY_NAME));
        by_name.sort();
        assert_eq!(by_name, expected());
        assert_eq!(replica.row_count(id), 500);
        let before = replica.at(104).unwrap();
        assert!(before.catalog().table("others").is_none());
        assert!(before.scan(id, &Scan::all()).is_err());
        assert_eq!(
            ids(&before, ITEMS, &Scan::all()),
            numbers([0, 1, 2, 9].into_iter())
        );
    };
    check(&replica);
    // Row numbers go on behind those of the load.
    let next = RowOp::Insert {
        table: id,
        row: item(2000, "next"),
    };
    replica.apply(&[transaction(111, vec![next])]).unwrap();
    let view = replica.at(111).unwrap();
    let rows = view.scan(id, &Scan::all()).unwrap();
    let mut given: Vec<_> = rows.map(|row| row.unwrap().id).collect();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 501);
    assert_eq!(replica.changes(110, 111).unwrap().changes.len(), 1);
    drop((view, others));
    drop(replica);
    check_reopened(dir.path(), id);
}

fn check_reopened(dir: &Path, id: TableId) {
    let replica = Replica::open(dir, &options()).unwrap();
    assert_eq!(replica.row_count(id), 501);
    let view = replica.at(111).unwrap();
    assert_eq!(ids(&view, id, &Scan::all()).len(), 501);
    assert_ne!(loaded(&replica, 2, 111).table().id, id);
}

/// The engine tells its keyspaces apart by numbers, and gives one again that was only ever loaded and
/// dropped before it was opened.
#[test]
fn a_loaded_table_stays_where_one_was_given_up_before_the_replica_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    drop(loaded(&replica, 5, 100));
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    let others = loaded(&replica, 5, 100);
    let id = others.table().id;
    let ops = vec![becomes(&others)];
    replica.apply(&[transaction(101, ops)]).unwrap();
    drop((others, replica));
    for _ in 0..2 {
        let replica = Replica::open(dir.path(), &options()).unwrap();
        let view = replica.latest().unwrap();
        assert_eq!(ids(&view, id, &Scan::all()), numbers(0..5));
    }
}

#[test]
fn a_loaded_table_takes_the_place_of_another_one_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let load = replica.load_table(items(ITEMS), 100).unwrap();
    let id = load.table().id;
    let mut part = load.part();
    part.insert(&item(5, "new")).unwrap();
    part.finish().unwrap();
    let drop_old = RowOp::Schema(Box::new(SchemaChange::DropTable(ITEMS)));
    let ops = vec![drop_old, becomes(&load.finish().unwrap())];
    let applied = replica.apply(&[transaction(101, ops)]).unwrap();
    assert_eq!(applied.altered, [ITEMS, id]);
    assert_eq!(replica.catalog().table("items").unwrap().id, id);
    assert_eq!(
        ids(&replica.at(101).unwrap(), id, &Scan::all()),
        numbers([5].into_iter())
    );
    let before = replica.at(100).unwrap();
    assert_eq!(ids(&before, ITEMS, &Scan::all()), numbers(0..3));
}

#[test]
fn what_was_loaded_in_vain_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let before = keyspaces(dir.path());
    drop(loaded(&replica, 500, 100));
    let given_up = replica.load_table(other(), 100).unwrap();
    drop(given_up.part());
    assert_eq!(given_up.finish().unwrap_err().kind(), ErrorKind::Invalid);
    let load = replica.load_table(other(), 100).unwrap();
    let mut part = load.part();
    part.insert(&item(1, "twice")).unwrap();
    part.insert(&item(1, "twice")).unwrap();
    part.finish().unwrap();
    assert_eq!(load.finish().unwrap_err().kind(), ErrorKind::Duplicate);
    drop(replica);
    // The engine removes files of a dropped keyspace when nobody has it open any more.
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(keyspaces(dir.path()), before);
    drop(replica);
}

#[test]
fn a_loaded_table_is_taken_once_and_by_its_own_replica_only() {
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (replica, foreign) = (load(dir.path(), 0..3), load(foreign.path(), 0..3));
    let others = loaded(&replica, 4, 105);
    let apply =
        |replica: &Replica, version| replica.apply(&[transaction(version, vec![becomes(&others)])]);
    for error in [apply(&foreign, 110), apply(&replica, 104)] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    }
    apply(&replica, 105).unwrap();
    assert_eq!(apply(&replica, 106).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(replica.row_count(others.table().id), 4);
}

//! Changes of the schema: what each version shows, what is rewritten, and what is given back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use kelvin_protocol::{Direction, Value, ValueRef, ValueType, Version};
use kelvin_storage::{
    Alteration, Applied, Column, Datum, ErrorKind, Replica, ReplicaOptions, RowOp, Scan,
    SchemaChange, Table, TableId, UnsyncedTable, View,
};
use sample::{BY_NAME, ITEMS, insert, items, load, options, transaction};

fn change(change: SchemaChange) -> RowOp {
    RowOp::Schema(Box::new(change))
}

fn alter(table: Table, fills: Vec<(i16, Value)>) -> RowOp {
    change(SchemaChange::AlterTable(Alteration {
        table,
        fills,
        made_anew: false,
    }))
}

fn stars() -> Column {
    Column {
        name: "stars".into(),
        attnum: 4,
        upstream_type: "int4".into(),
        type_oid: 23,
        value_type: ValueType::Number,
        not_null: true,
    }
}

/// Items with a fourth column.
fn with_stars() -> Table {
    let mut table = items(ITEMS);
    table.columns.push(stars());
    table
}

fn apply(replica: &Replica, version: Version, ops: Vec<RowOp>) -> Applied {
    replica.apply(&[transaction(version, ops)]).unwrap()
}

fn column(view: &View, at: usize, scan: &Scan) -> Vec<Value> {
    let rows = view.scan(ITEMS, scan).unwrap();
    rows.map(|row| row.unwrap().value(at).to_value()).collect()
}

fn table_folders(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir.join("store").join("keyspaces"))
        .unwrap()
        .count()
}

#[test]
fn an_added_column_has_its_fill_in_rows_that_were_there() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let new_row = RowOp::Insert {
        table: ITEMS,
        row: vec![9.0.into(), "new".into(), Value::Null, 5.0.into()],
    };
    let ops = vec![
        insert(3, "before, in the same transaction"),
        alter(with_stars(), vec![(4, 1.0.into())]),
        new_row,
    ];
    let applied = apply(&replica, 101, ops);
    assert_eq!(applied.altered, [ITEMS]);
    let check = |replica: &Replica| {
        let now = replica.at(101).unwrap();
        let stars = column(&now, 3, &Scan::all());
        assert_eq!(stars, [1.0, 1.0, 1.0, 1.0, 5.0].map(Value::from));
        assert_eq!(now.catalog().table("items").unwrap().columns.len(), 4);
        let then = replica.at(100).unwrap();
        assert_eq!(then.catalog().table("items").unwrap().columns.len(), 3);
        let row = then.get(ITEMS, &[0.0.into()]).unwrap().unwrap();
        assert_eq!(row.values().len(), 3);
        assert_eq!(row.value(3), ValueRef::Null);
        assert_eq!(replica.changes(100, 101).unwrap().altered, [ITEMS]);
    };
    check(&replica);
    drop(replica);
    check(&Replica::open(dir.path(), &options()).unwrap());
}

#[test]
fn a_table_that_was_made_anew_keeps_rows_and_indexes_whatever_the_order_of_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let rows = |view: &View| -> Vec<Vec<Value>> {
        let rows = view.scan(ITEMS, &Scan::of(BY_NAME)).unwrap();
        let values = rows.map(|row| row.unwrap().values().map(ValueRef::to_value).collect());
        values.collect()
    };
    let mut expected = rows(&replica.latest().unwrap());
    assert_eq!(expected.len(), 3);
    expected.iter_mut().for_each(|row| row.reverse());
    let mut table = items(ITEMS);
    table.columns.reverse();
    for (column, attnum) in table.columns.iter_mut().zip(1..) {
        column.attnum = attnum;
    }
    let last = table.columns.len() - 1;
    let keys = table.unique_keys.iter_mut().flatten();
    keys.chain(&mut table.key).for_each(|at| *at = last - *at);
    table.oid += 1;
    let alteration = Alteration {
        table,
        fills: Vec::new(),
        made_anew: true,
    };
    apply(
        &replica,
        101,
        vec![change(SchemaChange::AlterTable(alteration))],
    );
    assert_eq!(rows(&replica.latest().unwrap()), expected);
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(rows(&replica.latest().unwrap()), expected);
}

#[test]
fn an_update_keeps_the_fill_of_a_column_it_does_not_send() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..2);
    let fills = vec![(4, 7.0.into())];
    apply(&replica, 101, vec![alter(with_stars(), fills)]);
    let row = vec![
        Datum::Value(1.0.into()),
        Datum::Value("renamed".into()),
        Datum::Unchanged,
        Datum::Unchanged,
    ];
    let update = RowOp::Update {
        table: ITEMS,
        old_key: None,
        row,
    };
    apply(&replica, 102, vec![update]);
    let row = replica.latest().unwrap().get(ITEMS, &[1.0.into()]).unwrap();
    let values = row.unwrap().to_values();
    assert_eq!(
        values[1..],
        ["renamed".into(), "note of item 1".into(), 7.0.into()]
    );
}

#[test]
fn a_column_that_came_and_went_in_one_transaction_leaves_no_trace_in_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let columns = |replica: &Replica| {
        let catalog = replica.catalog();
        catalog.table("items").unwrap().columns.len()
    };
    let new_name = vec![1.0.into(), "renamed".into(), Value::Null, 5.0.into()];
    let ops = vec![
        alter(with_stars(), vec![(4, 1.0.into())]),
        RowOp::Insert {
            table: ITEMS,
            row: new_name,
        },
        alter(items(ITEMS), vec![]),
    ];
    let applied = apply(&replica, 101, ops);
    assert_eq!((applied.altered.len(), columns(&replica)), (0, 3));
    assert_eq!(applied.changes.len(), 1);
    let change = &applied.changes[0];
    let values = |row: &Option<kelvin_storage::Row>| row.as_ref().unwrap().to_values();
    let old = ["item 1".into(), "note of item 1".into()];
    assert_eq!(values(&change.old)[1..], old);
    assert_eq!(values(&change.new)[1..], ["renamed".into(), Value::Null]);
}

#[test]
fn a_dropped_column_takes_its_indexes_along_and_the_rest_keeps_working() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..4);
    let by_note = replica
        .add_index(ITEMS, &[(2, Direction::Desc)], &|| true)
        .unwrap();
    let mut table = items(ITEMS);
    table.columns.remove(1);
    apply(&replica, 101, vec![alter(table, vec![])]);
    let now = replica.latest().unwrap();
    let error = now.scan(ITEMS, &Scan::of(BY_NAME)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let notes = column(&now, 1, &Scan::of(by_note));
    let expected = [3, 2, 1, 0].map(|id| Value::from(format!("note of item {id}")));
    assert_eq!(notes, expected);
    // The version before still has the column, its index, and what both held.
    let then = replica.at(100).unwrap();
    let names = column(&then, 1, &Scan::of(BY_NAME));
    assert_eq!(
        names,
        [0, 1, 2, 3].map(|id| Value::from(format!("item {id}")))
    );
}

#[test]
fn entries_of_dropped_indexes_are_removed_when_no_version_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..500);
    let drop_index = SchemaChange::DropIndex {
        table: ITEMS,
        index: BY_NAME,
    };
    apply(&replica, 101, vec![change(drop_index)]);
    apply(&replica, 102, vec![insert(1, "changed")]);
    assert_eq!(
        replica
            .at(100)
            .unwrap()
            .scan(ITEMS, &Scan::of(BY_NAME))
            .unwrap()
            .count(),
        500
    );
    replica.trim_history(102).unwrap();
    for _ in 0..3 {
        replica.maintain(std::time::Duration::ZERO).unwrap();
    }
    // A new index does not take the old one's number, nor find anything of it.
    let index = replica
        .add_index(ITEMS, &[(1, Direction::Asc)], &|| true)
        .unwrap();
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .scan(ITEMS, &Scan::of(index))
            .unwrap()
            .count(),
        500
    );
    assert!(index > BY_NAME);
}

#[test]
fn a_changed_key_rewrites_the_rows_and_keeps_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..100);
    let before = (0..100).map(f64::from).map(|id| {
        let row = replica.latest().unwrap().get(ITEMS, &[id.into()]);
        row.unwrap().unwrap().id
    });
    let before: Vec<_> = before.collect();
    let mut table = items(ITEMS);
    table.key = vec![1];
    table.unique_keys = vec![vec![1], vec![0]];
    let ops = vec![
        insert(7, "written before the key changed"),
        alter(table, vec![]),
        RowOp::Delete {
            table: ITEMS,
            key: vec!["item 3".into()],
        },
    ];
    let applied = apply(&replica, 101, ops);
    assert_eq!(applied.altered, [ITEMS]);
    let check = |replica: &Replica| {
        let now = replica.latest().unwrap();
        for (id, number) in before.iter().enumerate() {
            let name = match id {
                7 => "written before the key changed".to_owned(),
                _ => format!("item {id}"),
            };
            let row = now.get(ITEMS, &[name.as_str().into()]).unwrap();
            if id == 3 {
                assert!(row.is_none());
                continue;
            }
            let row = row.unwrap();
            assert_eq!(row.id, *number);
            assert_eq!(row.version, if id == 7 { 101 } else { 100 });
        }
        let by_name = column(&now, 1, &Scan::of(BY_NAME));
        assert_eq!(by_name.len(), 99);
        assert!(by_name.is_sorted());
        assert_eq!(replica.row_count(ITEMS), 99);
        let then = replica.at(100).unwrap();
        assert_eq!(then.scan(ITEMS, &Scan::all()).unwrap().count(), 100);
    };
    check(&replica);
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    check(&replica);
    // The old keyspace goes when no version reads it any more.
    let folders = table_folders(dir.path());
    replica.trim_history(101).unwrap();
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(table_folders(dir.path()), folders - 1);
    assert_eq!(
        column(&replica.latest().unwrap(), 1, &Scan::of(BY_NAME)).len(),
        99
    );
}

#[test]
fn two_rows_that_come_to_the_same_new_key_are_an_error_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..2);
    let mut table = items(ITEMS);
    table.key = vec![1];
    let ops = vec![insert(0, "same"), insert(1, "same"), alter(table, vec![])];
    let error = replica.apply(&[transaction(101, ops)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Duplicate);
    assert_eq!(replica.watermark(), 100);
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .scan(ITEMS, &Scan::all())
            .unwrap()
            .count(),
        2
    );
}

#[test]
fn tables_come_and_go_by_version_and_their_space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..10);
    let folders = table_folders(dir.path());
    let other = TableId(8);
    let row = RowOp::Insert {
        table: other,
        row: sample::item(1, "one"),
    };
    let ops = vec![change(SchemaChange::CreateTable(items(other))), row];
    assert_eq!(apply(&replica, 101, ops).altered, [other]);
    assert_eq!(table_folders(dir.path()), folders + 1);
    let dropped = apply(&replica, 102, vec![change(SchemaChange::DropTable(ITEMS))]);
    assert_eq!(dropped.altered, [ITEMS]);
    let tables = |version| {
        let view = replica.at(version).unwrap();
        let tables = view.catalog().tables().iter();
        tables.map(|table| table.id).collect::<Vec<_>>()
    };
    assert_eq!(tables(100), [ITEMS]);
    assert_eq!(tables(101), [ITEMS, other]);
    assert_eq!(tables(102), [other]);
    assert_eq!(
        replica
            .at(101)
            .unwrap()
            .scan(ITEMS, &Scan::all())
            .unwrap()
            .count(),
        10
    );
    let error = replica
        .apply(&[transaction(103, vec![insert(1, "gone")])])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let again = change(SchemaChange::CreateTable(items(ITEMS)));
    let error = replica.apply(&[transaction(103, vec![again])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    replica.trim_history(102).unwrap();
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(table_folders(dir.path()), folders);
    let view = replica.latest().unwrap();
    assert_eq!(
        view.get(other, &[1.0.into()]).unwrap().unwrap().value(1),
        Value::from("one")
    );
}

#[test]
fn a_schema_change_among_other_transactions_of_a_batch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..1);
    let batch = [
        transaction(101, vec![insert(1, "one")]),
        transaction(102, vec![alter(with_stars(), vec![])]),
    ];
    let error = replica.apply(&batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(replica.watermark(), 100);
}

#[test]
fn tables_that_are_not_held_are_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..1);
    let unsynced = UnsyncedTable {
        name: "log".into(),
        reason: "it has no key".into(),
    };
    apply(
        &replica,
        101,
        vec![change(SchemaChange::SetUnsynced(vec![unsynced.clone()]))],
    );
    assert_eq!(
        replica.catalog().unsynced(),
        std::slice::from_ref(&unsynced)
    );
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(replica.catalog().unsynced(), [unsynced]);
}

#[test]
fn forms_of_a_table_do_not_pile_up_beyond_the_horizon() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..5);
    for version in 101..160 {
        let mut table = with_stars();
        table.columns[3].attnum = i16::try_from(version).unwrap();
        table.columns[3].name = format!("stars{version}");
        let fills = vec![(i16::try_from(version).unwrap(), Value::from(version as f64))];
        apply(&replica, version, vec![alter(table, fills)]);
        replica.trim_history(version.saturating_sub(3)).unwrap();
        let stars = column(&replica.at(version).unwrap(), 3, &Scan::all());
        assert_eq!(stars, vec![Value::from(version as f64); 5]);
    }
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    for version in 157..160 {
        let stars = column(&replica.at(version).unwrap(), 3, &Scan::all());
        assert_eq!(stars, vec![Value::from(version as f64); 5]);
    }
}

#[test]
fn the_changelog_tells_which_transactions_wrote_to_a_table_and_where_telling_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..3));
    let in_small_parts = ReplicaOptions {
        part_bytes: 1,
        ..options()
    };
    let replica = Replica::open(dir.path(), &in_small_parts).unwrap();
    apply(&replica, 101, vec![insert(1, "one"), insert(2, "two")]);
    let one_batch = [102, 103].map(|version| transaction(version, vec![insert(1, "again")]));
    replica.apply(&one_batch).unwrap();
    let written = |from, to, most| replica.written(from, to, most).unwrap();
    let all = written(100, 103, 3).unwrap();
    let rows: Vec<_> = all.rows[&ITEMS]
        .iter()
        .map(|(at, rows)| (*at, *rows))
        .collect();
    assert_eq!(rows, [(101, 2), (102, 1), (103, 1)]);
    assert!(all.broken.is_empty());
    assert_eq!(written(101, 102, 9).unwrap().rows[&ITEMS].len(), 1);
    assert!(written(100, 103, 2).is_none());
    // A column comes and goes: the table is the same at both ends.
    apply(&replica, 104, vec![alter(with_stars(), vec![])]);
    apply(&replica, 105, vec![alter(items(ITEMS), vec![])]);
    assert_eq!(written(100, 105, 9).unwrap().broken[&ITEMS], 105);
    assert!(written(105, 105, 9).unwrap().broken.is_empty());
    let in_parts = [insert(5, "five"), insert(6, "six")].map(Ok::<_, kelvin_storage::Error>);
    replica.apply_in_parts(106, in_parts).unwrap();
    let swept = written(105, 106, 9).unwrap();
    assert!(swept.rows.is_empty());
    assert_eq!(swept.broken[&ITEMS], 106);
}

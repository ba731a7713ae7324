//! Finding rows by keys of every kind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{ErrorKind, RowOp, Scan, TableId};
use sample::{BY_NAME, ITEMS, item, load, transaction};

#[test]
fn a_unique_key_finds_its_row_with_and_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..50);
    let view = replica.latest().unwrap();
    let values = item(7, "item 7");
    for columns in [&[1][..], &[2], &[2, 1], &[1, 0], &[2, 0, 1]] {
        let key: Vec<_> = columns
            .iter()
            .map(|at: &usize| values[*at].clone())
            .collect();
        let row = view.get_by_unique(ITEMS, columns, &key).unwrap().unwrap();
        assert_eq!(row.to_values(), values, "{columns:?}");
        let mut other = key;
        other[0] = "nothing".into();
        assert!(
            view.get_by_unique(ITEMS, columns, &other)
                .unwrap()
                .is_none(),
            "{columns:?}"
        );
    }
}

#[test]
fn texts_longer_than_an_index_entry_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let long = |end: &str| Value::from(format!("{}{end}", "x".repeat(200_000)));
    let ops = [(10, "a"), (11, "b"), (12, "a")].map(|(id, end)| {
        let mut row = item(id, "");
        row[1] = long(end);
        RowOp::Insert { table: ITEMS, row }
    });
    replica.apply(&[transaction(101, ops.to_vec())]).unwrap();
    let view = replica.latest().unwrap();
    let found = |end: &str| -> Vec<Value> {
        let scan = Scan::of(BY_NAME).prefix(vec![long(end)]);
        let rows = view.scan(ITEMS, &scan).unwrap();
        rows.map(|row| row.unwrap().value(0).to_value()).collect()
    };
    assert_eq!(found("a"), [Value::from(10.0), Value::from(12.0)]);
    assert_eq!(found("b"), [Value::from(11.0)]);
    assert!(found("c").is_empty());
    replica
        .apply(&[transaction(102, vec![sample::delete(10)])])
        .unwrap();
    let scan = Scan::of(BY_NAME).prefix(vec![long("a")]);
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .scan(ITEMS, &scan)
            .unwrap()
            .count(),
        1
    );
    assert_eq!(
        replica.at(101).unwrap().scan(ITEMS, &scan).unwrap().count(),
        2
    );
}

#[test]
fn requests_that_make_no_sense_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let view = replica.latest().unwrap();
    let one = || Value::from(1.0);
    let kinds = [
        view.get(TableId(99), &[one()]).unwrap_err(),
        view.get(ITEMS, &[one(), one()]).unwrap_err(),
        view.get_by_unique(ITEMS, &[0], &[]).unwrap_err(),
        view.scan(ITEMS, &Scan::of(kelvin_storage::IndexId(9)))
            .unwrap_err(),
        view.scan(ITEMS, &Scan::all().prefix(vec![one(), one()]))
            .unwrap_err(),
        replica.add_index(ITEMS, &[], &|| true).unwrap_err(),
        replica.changes(101, 100).unwrap_err(),
    ];
    assert!(kinds.iter().all(|error| error.kind() == ErrorKind::Invalid));
    // A value of another type is no error; nothing equals it.
    assert!(view.get(ITEMS, &["1".into()]).unwrap().is_none());
}

//! Row counts are exact, whatever happens to the rows and to the process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use kelvin_storage::{Replica, RowOp, Scan, TableId};
use sample::{ITEMS, delete, insert, load, options, transaction};

fn counted(replica: &Replica) -> u64 {
    let rows = replica.latest().unwrap().scan(ITEMS, &Scan::all()).unwrap();
    rows.map(Result::unwrap).fold(0, |count, _| count + 1)
}

#[test]
fn every_change_of_rows_is_counted_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..10);
    assert_eq!(replica.row_count(ITEMS), 10);
    assert_eq!(replica.row_count(TableId(99)), 0);
    let batches = [
        // A row that is there, one that is new.
        vec![insert(3, "again"), insert(10, "new")],
        // One that is not there, one that comes and goes.
        vec![delete(77), insert(11, "short"), delete(11)],
        vec![delete(0), delete(1), insert(1, "back"), delete(2)],
        vec![insert(500, "kept"), insert(501, "too")],
    ];
    for (version, ops) in (101..).zip(batches) {
        replica.apply(&[transaction(version, ops)]).unwrap();
        assert_eq!(replica.row_count(ITEMS), counted(&replica), "at {version}");
    }
    assert_eq!(replica.row_count(ITEMS), 11);
    drop(replica);
    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(replica.row_count(ITEMS), 11);
    let truncate = RowOp::Truncate {
        tables: vec![ITEMS],
    };
    let ops = vec![truncate, insert(1, "only")];
    replica.apply(&[transaction(105, ops)]).unwrap();
    assert_eq!((replica.row_count(ITEMS), counted(&replica)), (1, 1));
    // A batch that is refused counts nothing.
    let bad = RowOp::Insert {
        table: ITEMS,
        row: vec![],
    };
    let refused = transaction(106, vec![insert(2, "x"), bad]);
    assert!(replica.apply(&[refused]).is_err());
    assert_eq!(replica.row_count(ITEMS), 1);
}

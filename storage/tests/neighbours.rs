//! Rows that an index leads to and that lie side by side in their table.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use kelvin_protocol::Value;
use kelvin_storage::{Replica, Scan};
use sample::{BY_NAME, ITEMS, delete, insert, load, transaction};

fn named(name: &str) -> Scan {
    Scan::of(BY_NAME).prefix(vec![name.into()])
}

/// The ids that a scan yields, and how many rows were got by their key and how many scans begun.
fn read(replica: &Replica, scan: &Scan) -> (Vec<Value>, u64, u64) {
    let before = replica.metrics();
    let rows = replica.latest().unwrap().scan(ITEMS, scan).unwrap();
    let ids = rows.map(|row| row.unwrap().value(0).to_value()).collect();
    let after = replica.metrics();
    let points = after.point_reads - before.point_reads;
    (ids, points, after.scans - before.scans)
}

fn ids(ids: impl IntoIterator<Item = u32>) -> Vec<Value> {
    ids.into_iter().map(|id| f64::from(id).into()).collect()
}

#[test]
fn neighbours_are_read_in_one_scan_where_many_are_expected() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..0);
    // Every third one has another name, and one in the middle is gone.
    let name = |id| if id % 3 == 0 { "other" } else { "same" };
    let ops = (100..130).map(|id| insert(id, name(id))).collect();
    let gone = transaction(102, vec![delete(110)]);
    replica.apply(&[transaction(101, ops), gone]).unwrap();

    let expected = ids((100..130).filter(|id| id % 3 != 0 && *id != 110));
    let many = named("same").expecting(usize::MAX);
    assert_eq!(read(&replica, &many), (expected.clone(), 0, 2));
    let one_by_one = read(&replica, &named("same"));
    assert_eq!(one_by_one, (expected.clone(), 19, 1));
    let (backwards, ..) = read(&replica, &many.clone().reverse());
    assert!(backwards.iter().rev().eq(&expected));

    // More than are read at once, of which the last are too few to look for.
    let ops = (1000..1130).map(|id| insert(id, "many")).collect();
    replica.apply(&[transaction(103, ops)]).unwrap();
    let found = read(&replica, &named("many").expecting(130));
    assert_eq!(found, (ids(1000..1130), 2, 3));
}

#[test]
fn rows_far_apart_are_got_by_their_keys_and_looked_for_seldom() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..0);
    // Five rows among a hundred that are not asked for.
    let name = |id| if id % 20 == 0 { "wanted" } else { "other" };
    let ops = (100..200).map(|id| insert(id, name(id))).collect();
    replica.apply(&[transaction(101, ops)]).unwrap();

    let scan = named("wanted").expecting(usize::MAX);
    let looked = (0..200).filter(|_| {
        let (found, points, scans) = read(&replica, &scan);
        assert_eq!(found, ids((100..200).step_by(20)));
        assert!(points >= 4, "{points} of them were got");
        scans == 2
    });
    assert_eq!(looked.count(), 4);
}

#[test]
fn a_view_shows_its_own_version_of_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..0);
    let ops = (0..10).map(|id| insert(id, "same")).collect();
    replica.apply(&[transaction(101, ops)]).unwrap();
    let before = replica.latest().unwrap();
    let changes = vec![delete(3), insert(4, "other"), insert(20, "same")];
    replica.apply(&[transaction(102, changes)]).unwrap();

    let scan = named("same").expecting(usize::MAX);
    let shown = |view: &kelvin_storage::View| -> Vec<Value> {
        let rows = view.scan(ITEMS, &scan).unwrap();
        rows.map(|row| row.unwrap().value(0).to_value()).collect()
    };
    assert_eq!(shown(&before), ids(0..10));
    assert_eq!(shown(&replica.at(101).unwrap()), ids(0..10));
    let now = ids([0, 1, 2, 5, 6, 7, 8, 9, 20]);
    assert_eq!(shown(&replica.latest().unwrap()), now);
}

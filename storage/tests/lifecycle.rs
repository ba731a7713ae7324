//! Opening, refusing to open, wiping.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use kelvin_storage::{ErrorKind, Remedy, Replica, ReplicaIdentity, ReplicaOptions, RowOp};
use sample::{ITEMS, catalog, insert, item, load, options, transaction};

#[test]
fn an_empty_or_absent_directory_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("absent")] {
        let error = Replica::open(&path, &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
        assert_eq!(error.kind().remedy(), Remedy::Resync);
    }
}

#[test]
fn a_load_that_never_finished_is_missing_and_can_be_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let mut part = loader.table(ITEMS).unwrap();
    part.insert(&item(1, "one")).unwrap();
    part.finish().unwrap();
    drop(loader);
    let error = Replica::open(dir.path(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_eq!(load(dir.path(), 0..3).watermark(), 100);
}

#[test]
fn finishing_a_load_with_an_open_part_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let loader = Replica::create(dir.path(), &options(), catalog()).unwrap();
    let part = loader.table(ITEMS).unwrap();
    let error = loader.finish(ReplicaIdentity::default(), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    drop(part);
}

#[test]
fn a_replica_is_open_once_and_cannot_be_wiped_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let kind = |result: Result<(), kelvin_storage::Error>| result.unwrap_err().kind();
    assert_eq!(
        kind(Replica::open(dir.path(), &options()).map(drop)),
        ErrorKind::Locked
    );
    assert_eq!(kind(Replica::probe(dir.path())), ErrorKind::Locked);
    assert_eq!(kind(Replica::wipe(dir.path())), ErrorKind::Locked);
    let create = Replica::create(dir.path(), &options(), catalog());
    assert_eq!(kind(create.map(drop)), ErrorKind::Locked);
    drop(replica);
    Replica::probe(dir.path()).unwrap();
    Replica::open(dir.path(), &options()).unwrap();
}

#[test]
fn wiping_leaves_what_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    drop(load(dir.path(), 0..3));
    Replica::wipe(dir.path()).unwrap();
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["notes.txt"]);
    Replica::wipe(dir.path()).unwrap();
}

#[test]
fn files_of_others_are_foreign_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Replica::probe(dir.path()).unwrap_err();
    assert_eq!(probe.kind(), ErrorKind::Missing);
    fs::create_dir(dir.path().join("store")).unwrap();
    fs::write(dir.path().join("store/precious"), "data").unwrap();
    let kind = |result: Result<(), kelvin_storage::Error>| result.unwrap_err().kind();
    assert_eq!(
        kind(Replica::open(dir.path(), &options()).map(drop)),
        ErrorKind::Foreign
    );
    assert_eq!(kind(Replica::probe(dir.path())), ErrorKind::Foreign);
    assert_eq!(kind(Replica::wipe(dir.path())), ErrorKind::Foreign);
    let create = Replica::create(dir.path(), &options(), catalog());
    assert_eq!(kind(create.map(drop)), ErrorKind::Foreign);
    assert!(dir.path().join("store/precious").exists());
}

#[test]
fn other_formats_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..3));
    let marker = dir.path().join("KELVIN-REPLICA");
    let open_with = |text: &str| {
        fs::write(&marker, text).unwrap();
        Replica::open(dir.path(), &options()).unwrap_err()
    };
    let newer = open_with("kelvin replica, format 999\n");
    assert_eq!(newer.kind(), ErrorKind::NewerFormat);
    assert!(newer.to_string().contains("999"), "{newer}");
    assert_eq!(
        open_with("kelvin replica, format 0\n").kind(),
        ErrorKind::OlderFormat
    );
    assert_eq!(open_with("something else").kind(), ErrorKind::Foreign);
    assert_eq!(open_with("").kind(), ErrorKind::Missing);
}

#[test]
fn damaged_files_are_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..2000));
    let files = list(dir.path());
    assert!(files.len() > 4);
    for (at, file) in files.iter().enumerate() {
        let copy = tempfile::tempdir().unwrap();
        for file in &files {
            fs::create_dir_all(copy.path().join(file).parent().unwrap()).unwrap();
            fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        let bytes = fs::read(dir.path().join(file)).unwrap();
        let half = bytes.get(..bytes.len() / 2).unwrap();
        fs::write(
            copy.path().join(file),
            if at % 2 == 0 { b"damage" } else { half },
        )
        .unwrap();
        // Whatever it says, it says it as an error; a journal cut short is no damage at all.
        if let Ok(replica) = Replica::open(copy.path(), &options()) {
            let view = replica.latest().unwrap();
            let all = view.scan(ITEMS, &kelvin_storage::Scan::all()).unwrap();
            all.take_while(Result::is_ok).for_each(drop);
        }
    }
}

/// All files below `dir`, relative to it.
fn list(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files
}

#[test]
fn an_unwritable_directory_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Replica::create(&file.join("replica"), &options(), catalog()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.kind().remedy(), Remedy::Report);
}

#[test]
fn identity_groups_and_indexes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..10);
    let identity = ReplicaIdentity {
        slot: "other".into(),
        epoch: 3,
        ..replica.identity()
    };
    replica.set_identity(identity.clone()).unwrap();
    let groups = replica.groups();
    let record = |name: &str, bytes: Option<&[u8]>| (name.to_owned(), bytes.map(<[u8]>::to_vec));
    groups
        .write([
            record("group/a", Some(b"one")),
            record("group/b", Some(b"two")),
            record("other", Some(b"three")),
        ])
        .unwrap();
    groups.write([record("group/a", None)]).unwrap();
    let nameless = [record("group/b", None), record("", Some(b"four"))];
    assert!(groups.write(nameless).is_err());
    let index = replica
        .add_index(ITEMS, &[(2, kelvin_protocol::Direction::Desc)], &|| true)
        .unwrap();
    drop((replica, groups));

    let replica = Replica::open(dir.path(), &options()).unwrap();
    assert_eq!(replica.identity(), identity);
    let groups = replica.groups();
    assert_eq!(groups.get("group/a").unwrap(), None);
    assert_eq!(groups.get("group/b").unwrap().as_deref(), Some(&b"two"[..]));
    let records: Vec<_> = groups.prefix("group/").map(Result::unwrap).collect();
    assert_eq!(records, [("group/b".to_owned(), b"two".to_vec())]);
    assert_eq!(groups.prefix("").count(), 2);
    let scan = kelvin_storage::Scan::of(index);
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .scan(ITEMS, &scan)
            .unwrap()
            .count(),
        10
    );
}

#[test]
fn a_failed_apply_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..3);
    let bad = RowOp::Insert {
        table: ITEMS,
        row: vec![],
    };
    let error = replica
        .apply(&[transaction(101, vec![insert(7, "x"), bad])])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(replica.watermark(), 100);
    replica
        .apply(&[transaction(102, vec![insert(8, "y")])])
        .unwrap();
    let view = replica.latest().unwrap();
    assert!(view.get(ITEMS, &[7.0.into()]).unwrap().is_none());
    assert_eq!(view.get(ITEMS, &[8.0.into()]).unwrap().unwrap().id, 3);
}

#[test]
fn keys_the_engine_cannot_hold_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..1);
    let mut row = item(1, "x");
    row[0] = "k".repeat(100_000).into();
    let key = row[0].clone();
    let op = RowOp::Insert { table: ITEMS, row };
    let error = replica.apply(&[transaction(101, vec![op])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyTooLong);
    assert!(error.to_string().contains("items"));
    assert!(
        replica
            .latest()
            .unwrap()
            .get(ITEMS, &[key])
            .unwrap()
            .is_none()
    );
}

#[test]
fn default_options_open_what_small_ones_wrote() {
    let dir = tempfile::tempdir().unwrap();
    drop(load(dir.path(), 0..5));
    let replica = Replica::open(dir.path(), &ReplicaOptions::default()).unwrap();
    assert_eq!(
        replica
            .latest()
            .unwrap()
            .get(ITEMS, &[4.0.into()])
            .unwrap()
            .unwrap()
            .id,
        4
    );
}

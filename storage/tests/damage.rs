//! Files of a replica that are gone, cut short, or out of reach: each is an error that says what to
//! do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use kelvin_storage::{ErrorKind, Remedy, Replica, ReplicaOptions, Result, Scan};
use sample::{BY_NAME, ITEMS, insert, load, open_soon, open_soon_with, options, transaction};

/// Items in the loaded replica; more than one block of them.
const COUNT: u32 = 3000;

/// A replica with loaded rows, flushed rows, history, and rows that are in the journal only.
fn replica(dir: &Path) {
    let options = ReplicaOptions {
        write_buffer_bytes: 1,
        ..options()
    };
    drop(load(dir, 0..COUNT));
    let replica = open_soon_with(dir, &options).unwrap();
    for version in 101..140 {
        let ops = (0..100).map(|id| insert(id * 7, &format!("{version} of {id}")));
        replica
            .apply(&[transaction(version, ops.collect())])
            .unwrap();
    }
}

/// Opens the replica and reads all of it: the newest version, the oldest, and what lies between.
fn read_all(dir: &Path) -> Result<usize> {
    let replica = open_soon(dir)?;
    replica.changes(replica.horizon(), replica.watermark())?;
    let mut rows = 0;
    for version in [replica.watermark(), replica.horizon()] {
        let view = replica.at(version)?;
        for scan in [Scan::all(), Scan::of(BY_NAME).reverse()] {
            for row in view.scan(ITEMS, &scan)? {
                row?;
                rows += 1;
            }
        }
    }
    Ok(rows)
}

fn refused(dir: &Path) -> kelvin_storage::Error {
    read_all(dir).unwrap_err()
}

/// A copy of all files below `dir`.
fn copy(dir: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in files(dir) {
        let target = to.path().join(file.strip_prefix(dir).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
    to
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn in_folder(path: &Path, folder: &str) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with(folder))
}

/// The sorted files of the tables; the engine's own list of keyspaces is keyspace 0.
fn sorted_files(dir: &Path) -> Vec<PathBuf> {
    let own = dir.join("store/keyspaces/0");
    let mut sorted = files(dir);
    sorted.retain(|path| in_folder(path, "tables") && !path.starts_with(&own));
    assert!(!sorted.is_empty());
    sorted
}

#[test]
fn a_sorted_file_that_is_gone_is_corruption() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    assert_eq!(read_all(dir.path()).unwrap(), 4 * COUNT as usize);
    for file in sorted_files(dir.path()) {
        let copied = copy(dir.path());
        let relative = file.strip_prefix(dir.path()).unwrap();
        fs::remove_file(copied.path().join(relative)).unwrap();
        let error = refused(copied.path());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{relative:?}: {error}");
        assert_eq!(error.kind().remedy(), Remedy::Resync);
    }
}

#[test]
fn a_sorted_file_that_is_cut_short_is_corruption_at_the_latest_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    for file in sorted_files(dir.path()) {
        let bytes = fs::read(&file).unwrap();
        for part in [0, 1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let copied = copy(dir.path());
            let relative = file.strip_prefix(dir.path()).unwrap();
            fs::write(copied.path().join(relative), &bytes[..part]).unwrap();
            let error = refused(copied.path());
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "{relative:?} at {part}: {error}"
            );
        }
    }
}

#[test]
fn damage_within_a_sorted_file_is_corruption_at_the_latest_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    let largest = sorted_files(dir.path())
        .into_iter()
        .max_by_key(|file| fs::metadata(file).unwrap().len())
        .unwrap();
    let bytes = fs::read(&largest).unwrap();
    for at in (0..bytes.len() / 2).step_by(bytes.len() / 23) {
        let copied = copy(dir.path());
        let relative = largest.strip_prefix(dir.path()).unwrap();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(copied.path().join(relative), damaged).unwrap();
        let error = refused(copied.path());
        assert_eq!(
            error.kind(),
            ErrorKind::Corrupt,
            "{relative:?} at {at}: {error}"
        );
    }
}

#[test]
fn a_keyspace_that_is_gone_is_corruption_and_not_an_empty_table() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    let keyspaces = Path::new("store").join("keyspaces");
    let numbers: Vec<_> = fs::read_dir(dir.path().join(&keyspaces))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "0")
        .collect();
    // Those of the table, of the history, of client groups and of the records.
    assert!(numbers.len() >= 4, "{numbers:?}");
    for number in numbers {
        let damaged = copy(dir.path());
        fs::remove_dir_all(damaged.path().join(&keyspaces).join(&number)).unwrap();
        let error = refused(damaged.path());
        assert_eq!(error.kind().remedy(), Remedy::Resync, "{number:?}: {error}");
    }
}

#[test]
fn a_journal_that_is_gone_is_corruption_and_not_a_loss_of_rows() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    let journals: Vec<_> = files(dir.path())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    assert_eq!(journals.len(), 1);
    // One that is gone from among several, too.
    let copied = copy(dir.path());
    let journal = copied
        .path()
        .join(journals[0].strip_prefix(dir.path()).unwrap());
    fs::copy(&journal, journal.with_file_name("7.jnl")).unwrap();
    assert_eq!(refused(copied.path()).kind(), ErrorKind::Corrupt);
    fs::remove_file(&journals[0]).unwrap();
    let error = refused(dir.path());
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("journal"), "{error}");
}

#[test]
fn a_marker_without_a_store_is_no_replica() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    assert_eq!(refused(dir.path()).kind(), ErrorKind::Missing);
    fs::create_dir(dir.path().join("store")).unwrap();
    assert_eq!(refused(dir.path()).kind(), ErrorKind::Missing);
    assert_eq!(load(dir.path(), 0..3).row_count(ITEMS), 3);
}

#[test]
fn a_store_without_its_own_marker_is_never_taken_for_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    replica(dir.path());
    fs::remove_file(dir.path().join("store/version")).unwrap();
    let error = refused(dir.path());
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// Permissions mean nothing to root, so this runs itself again as nobody there.
#[cfg(unix)]
#[test]
fn files_out_of_reach_are_an_error_of_their_own_and_are_left_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    const NOBODY: &str = "65534";
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    if fs::metadata(dir.path()).unwrap().uid() == 0 {
        let program = dir.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        mode(dir.path(), 0o777);
        mode(&program, 0o755);
        let mut command = std::process::Command::new("setpriv");
        let child = command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(&program)
            .args([
                "--exact",
                "files_out_of_reach_are_an_error_of_their_own_and_are_left_alone",
            ])
            .env("TMPDIR", dir.path())
            .status()
            .unwrap_or_else(|error| panic!("setpriv (of util-linux) is needed: {error}"));
        assert!(child.success());
        return;
    }
    let path = dir.path().join("replica");
    replica(&path);
    let journal = path.join("store/0.jnl");
    for (part, closed, open) in [
        (path.join("KELVIN-REPLICA"), 0o000, 0o644),
        (path.join("KELVIN-REPLICA"), 0o444, 0o644),
        (path.clone(), 0o000, 0o755),
        (path.clone(), 0o555, 0o755),
        (path.join("store"), 0o000, 0o755),
        (path.join("store/keyspaces"), 0o000, 0o755),
        (journal, 0o000, 0o644),
    ] {
        mode(&part, closed);
        let error = refused(&path);
        mode(&part, open);
        assert_eq!(error.kind(), ErrorKind::Io, "{part:?}: {error}");
        assert_eq!(error.kind().remedy(), Remedy::Report);
        assert!(error.to_string().contains("permission"), "{error}");
    }
    mode(&path, 0o000);
    assert_eq!(Replica::wipe(&path).unwrap_err().kind(), ErrorKind::Io);
    let created = Replica::create(&path, &options(), sample::catalog());
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Io);
    mode(&path, 0o755);
    assert_eq!(read_all(&path).unwrap(), 4 * COUNT as usize);
}

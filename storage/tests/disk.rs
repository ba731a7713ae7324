//! Full, read-only and broken disks, on a real small file system.
//!
//! Each test runs itself again in a mount namespace of its own: as root by `unshare -m`, else by
//! `unshare -Urm`, which needs a kernel that lets users make namespaces (on Debian and Ubuntu:
//! `sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`).
//! Where neither works the tests fail; run them as root there.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sample;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kelvin_protocol::{Direction, Version};
use kelvin_storage::{Error, ErrorKind, Remedy, Replica, ReplicaIdentity, ReplicaOptions, Scan};
use sample::{ITEMS, catalog, insert, item, load, open_soon, options, transaction};

/// Set in the process that runs in the namespace: where the small file system is.
const MOUNT: &str = "KELVIN_DISK_MOUNT";
const MIB: u64 = 1024 * 1024;
/// Size of the small file system.
const SIZE: &str = "48m";
/// A test that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs the test called `name` again on a file system of its own, or gives its mount point to the
/// process that was started for that.
fn small_disk(name: &str) -> Option<PathBuf> {
    if let Ok(mount) = std::env::var(MOUNT) {
        return Some(PathBuf::from(mount));
    }
    let point = tempfile::tempdir().unwrap();
    let flags = if is_root() { "-m" } else { "-Urm" };
    let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" || exit 77; shift 2; exec \"$@\"";
    let mut child = Command::new("unshare")
        .args([flags, "--", "sh", "-c", script, "sh", SIZE])
        .arg(point.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MOUNT, point.path())
        .spawn()
        .unwrap_or_else(|error| panic!("unshare (of util-linux) is needed: {error}"));
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let hint = "no file system could be mounted: see the head of storage/tests/disk.rs";
            assert!(
                status.success(),
                "{name} ended with {status}; {hint} if it never began"
            );
            return None;
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Takes all room of a file system but `left` bytes. Returns the file to remove.
fn fill(mount: &Path, left: u64) -> PathBuf {
    let path = mount.join("ballast");
    let mut file = File::create(&path).unwrap();
    let chunk = vec![1; 64 * 1024];
    let mut written = 0;
    loop {
        match file.write(&chunk) {
            Ok(bytes) => written += bytes as u64,
            Err(error) if error.kind() == IoErrorKind::StorageFull => break,
            Err(error) => panic!("{error}"),
        }
    }
    file.set_len(written.saturating_sub(left)).unwrap();
    path
}

/// Text no two parts of which are alike.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed | 1;
    let mut text = String::new();
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

/// Every item by its number, as its text.
type Items = BTreeMap<u32, String>;

fn check(replica: &Replica, expected: &Items) {
    let rows = replica.latest().unwrap().scan(ITEMS, &Scan::all()).unwrap();
    let mut found = rows.map(|row| row.unwrap().to_values());
    for (id, text) in expected {
        let row = found.next().unwrap();
        assert_eq!(row[0], f64::from(*id).into());
        assert_eq!(row[1], text[..].into(), "item {id}");
    }
    assert!(found.next().is_none());
    assert_eq!(replica.row_count(ITEMS), expected.len() as u64);
}

fn write_group(replica: &Replica) -> kelvin_storage::Result<()> {
    let groups = replica.groups();
    groups.write([("group".to_owned(), Some(b"x".to_vec()))])
}

/// Applies until that fails. `sizes` are those of the rows. What is applied is noted in `items`.
fn apply_until_it_fails(replica: &Replica, items: &mut Items, size: usize) -> Error {
    loop {
        let version = replica.watermark() + 1;
        let (one, two) = (version as u32 % 5, 5 + version as u32 % 3);
        let text = noise(version, size);
        let ops = vec![insert(one, &text), insert(two, &text)];
        if let Err(error) = replica.apply(&[transaction(version, ops)]) {
            return error;
        }
        items.extend([(one, text.clone()), (two, text)]);
        // A failure of a background thread comes to light here, if not at the next batch.
        let upkeep = replica.maintain(Duration::ZERO);
        if let Err(error) = upkeep.and_then(|()| replica.sync()) {
            return error;
        }
    }
}

#[test]
fn a_full_disk_is_reported_and_nothing_is_lost_once_there_is_room() {
    let name = "a_full_disk_is_reported_and_nothing_is_lost_once_there_is_room";
    let Some(mount) = small_disk(name) else {
        return;
    };
    let dir = mount.join("replica");
    let mut replica = load(&dir, 0..0);
    let mut items = Items::new();
    // Where it fails depends on how much is left: in the journal, a flush or a compaction.
    let rounds = [
        (7, 2_000),
        (5, 30_000),
        (6, 9_000),
        (3, 60_000),
        (4, 500),
        (9, 20_000),
    ];
    for (left, size) in rounds {
        let ballast = fill(&mount, left * MIB);
        let error = apply_until_it_fails(&replica, &mut items, size);
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert_eq!(error.kind().remedy(), Remedy::Reopen);
        assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
        // It accepts nothing more, says why, and can still be read.
        let watermark = replica.watermark();
        let again = transaction(watermark + 1, vec![insert(77, "never")]);
        assert_eq!(
            replica.apply(&[again]).unwrap_err().kind(),
            ErrorKind::DiskFull
        );
        assert_eq!(
            write_group(&replica).unwrap_err().kind(),
            ErrorKind::DiskFull
        );
        check(&replica, &items);
        drop(replica);
        // As long as the disk is full it does not even open.
        let fuller = mount.join("more");
        let filled = fs::write(&fuller, vec![1; 64 << 20]).unwrap_err();
        assert_eq!(filled.kind(), IoErrorKind::StorageFull);
        let refused = Replica::open(&dir, &options()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused}");
        fs::remove_file(fuller).unwrap();
        fs::remove_file(ballast).unwrap();
        replica = Replica::open(&dir, &options()).unwrap();
        // A batch that failed while it was made safe may be there as a whole, and then is replayed.
        assert!((watermark..=watermark + 1).contains(&replica.watermark()));
        if replica.watermark() == watermark {
            check(&replica, &items);
        } else {
            let version = watermark + 1;
            let text = noise(version, size);
            let (one, two) = (version as u32 % 5, 5 + version as u32 % 3);
            items.extend([(one, text.clone()), (two, text)]);
            check(&replica, &items);
        }
    }
    let version = replica.watermark() + 1;
    let ops = vec![insert(3, "goes on")];
    replica.apply(&[transaction(version, ops)]).unwrap();
    items.insert(3, "goes on".into());
    check(&replica, &items);
    assert_eq!(replica.sync().unwrap(), version);
}

#[test]
fn a_load_onto_a_full_disk_fails_as_such_and_can_be_done_again() {
    let name = "a_load_onto_a_full_disk_fails_as_such_and_can_be_done_again";
    let Some(mount) = small_disk(name) else {
        return;
    };
    let dir = mount.join("replica");
    let options = ReplicaOptions {
        load_bytes: 1024 * 1024,
        ..options()
    };
    // It fails while spilling, while merging, or at once.
    for left in [0, 2, 6] {
        let ballast = fill(&mount, left * MIB);
        let attempt = || -> Result<Replica, Error> {
            let loader = Replica::create(&dir, &options, catalog())?;
            let mut part = loader.table(ITEMS)?;
            for id in 0..400 {
                part.insert(&item(id, &noise(id.into(), 9_000)))?;
            }
            part.finish()?;
            loader.finish(ReplicaIdentity::default(), 100)
        };
        let error = attempt().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        fs::remove_file(ballast).unwrap();
        let missing = Replica::open(&dir, &options).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Missing, "{missing}");
        let replica = attempt().unwrap();
        assert_eq!(replica.row_count(ITEMS), 400);
        drop(replica);
        Replica::wipe(&dir).unwrap();
    }
}

#[test]
fn an_index_that_finds_no_room_is_not_there_after_reopening() {
    let name = "an_index_that_finds_no_room_is_not_there_after_reopening";
    let Some(mount) = small_disk(name) else {
        return;
    };
    let dir = mount.join("replica");
    let replica = load(&dir, 0..20_000);
    let ballast = fill(&mount, 64 * 1024);
    let columns = [(2, Direction::Desc)];
    let error = replica.add_index(ITEMS, &columns, &|| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
    drop(replica);
    fs::remove_file(ballast).unwrap();
    let replica = Replica::open(&dir, &options()).unwrap();
    assert_eq!(replica.catalog().tables()[0].indexes.len(), 1);
    let index = replica.add_index(ITEMS, &columns, &|| true).unwrap();
    let view = replica.latest().unwrap();
    assert_eq!(view.scan(ITEMS, &Scan::of(index)).unwrap().count(), 20_000);
}

#[test]
fn a_read_only_file_system_is_told_as_such() {
    let Some(mount) = small_disk("a_read_only_file_system_is_told_as_such") else {
        return;
    };
    let dir = mount.join("replica");
    drop(load(&dir, 0..3));
    let remount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(&mount);
        assert!(command.status().unwrap().success());
    };
    remount("remount,bind,ro");
    for error in [
        Replica::open(&dir, &options()).unwrap_err(),
        Replica::create(&dir, &options(), catalog()).unwrap_err(),
        Replica::wipe(&dir).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert_eq!(error.kind().remedy(), Remedy::Reopen);
    }
    remount("remount,bind,rw");
    assert_eq!(Replica::open(&dir, &options()).unwrap().row_count(ITEMS), 3);
}

/// A flush that fails for another reason than room: the folder it writes to is gone.
#[test]
fn a_background_failure_comes_to_light_and_is_healed_by_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let replica = load(dir.path(), 0..0);
    let mut items = Items::new();
    let keyspaces = dir.path().join("store/keyspaces");
    let hidden = dir.path().join("store/hidden");
    fs::rename(&keyspaces, &hidden).unwrap();
    let error = apply_until_it_fails(&replica, &mut items, 30_000);
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    assert_eq!(error.kind().remedy(), Remedy::Reopen);
    let watermark: Version = replica.watermark();
    drop(replica);
    fs::rename(&hidden, &keyspaces).unwrap();
    let replica = open_soon(dir.path()).unwrap();
    assert_eq!(replica.watermark(), watermark);
    check(&replica, &items);
}

//! The directory of the replica: whether it can be written, has room, and is in use.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use kelvin_storage::{ErrorKind, Replica};

use super::finding::{Finding, bytes};
use crate::options::Options;

const DIRECTORY: &str = "replica_directory";
const SPACE: &str = "disk_space";
const REPLICA: &str = "replica";

/// Disk that a copy takes, as a multiple of the tables in PostgreSQL: the rows and their indexes,
/// sorted runs on the way, and history after it.
const COPY_FACTOR: u64 = 2;
/// Disk that a replica should have beside itself, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;

/// Looks at the local disk. `published` is the size of the published tables, where it is known.
pub(super) async fn look(options: &Options, published: Option<u64>) -> Vec<Finding> {
    let directory = options.replica_dir.clone();
    let auto_reset = options.auto_reset;
    let looked = tokio::task::spawn_blocking(move || look_at(&directory, published, auto_reset));
    looked.await.unwrap_or_else(|error| {
        let found = format!("could not be checked: {error}");
        vec![Finding::warning(
            DIRECTORY,
            "replica directory",
            found,
            "report this defect",
        )]
    })
}

fn look_at(directory: &Path, published: Option<u64>, auto_reset: bool) -> Vec<Finding> {
    let there = Replica::probe(directory).map_err(|error| (error.kind(), error.to_string()));
    let complete = !matches!(there, Err((ErrorKind::Missing, _)));
    vec![
        writable(directory),
        space(directory, published, complete),
        in_use(directory, there, auto_reset),
    ]
}

fn writable(directory: &Path) -> Finding {
    let subject = "replica directory";
    let existing = existing(directory);
    let absent = existing != directory;
    match try_to_write(&existing) {
        Ok(()) if absent => Finding::ok(
            DIRECTORY,
            subject,
            format!("{} can be created", directory.display()),
        ),
        Ok(()) => Finding::ok(
            DIRECTORY,
            subject,
            format!("{} can be written", directory.display()),
        ),
        Err(error) => Finding::error(
            DIRECTORY,
            subject,
            format!("{} cannot be written: {error}", existing.display()),
            "choose another place by ZERO_REPLICA_FILE, or correct owner and permissions",
        ),
    }
}

/// The directory, or the nearest one above it that is there.
fn existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let there = absolute.ancestors().find(|path| path.exists());
    match there {
        Some(path) if path == absolute => directory.to_owned(),
        Some(path) => path.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// Permissions do not tell about read-only mounts and full disks, so a file is made and removed.
fn try_to_write(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!(".kelvin-doctor-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)?;
    fs::remove_file(file)
}

fn space(directory: &Path, published: Option<u64>, complete: bool) -> Finding {
    let subject = "disk space";
    match rustix::fs::statvfs(existing(directory)) {
        Ok(disk) => judge_space(
            disk.f_bavail.saturating_mul(disk.f_frsize),
            published,
            complete,
        ),
        Err(error) => {
            let found = format!("could not be checked: {}", io::Error::from(error));
            Finding::note(SPACE, subject, found, "see that the directory is reachable")
        }
    }
}

fn judge_space(free: u64, published: Option<u64>, complete: bool) -> Finding {
    let subject = "disk space";
    let fix = "free some, or choose another disk by ZERO_REPLICA_FILE";
    let shown = format!("{} free", bytes(free));
    match published {
        Some(size) if !complete && free < size => Finding::error(
            SPACE,
            subject,
            format!(
                "{shown}, less than the {} of the published tables",
                bytes(size)
            ),
            fix,
        ),
        Some(size) if !complete && free < size.saturating_mul(COPY_FACTOR) => Finding::warning(
            SPACE,
            subject,
            format!(
                "{shown}, scarce for a copy of the {} of published tables",
                bytes(size)
            ),
            fix,
        ),
        _ if free < LITTLE_SPACE => Finding::warning(SPACE, subject, shown, fix),
        Some(size) => {
            let found = format!("{shown}; the published tables have {}", bytes(size));
            Finding::ok(SPACE, subject, found)
        }
        None => Finding::ok(SPACE, subject, shown),
    }
}

fn in_use(directory: &Path, there: Result<(), (ErrorKind, String)>, auto_reset: bool) -> Finding {
    let shown = directory.display();
    match there {
        Ok(()) => Finding::ok(REPLICA, REPLICA, "there, and not in use"),
        Err((ErrorKind::Missing, _)) => Finding::ok(
            REPLICA,
            REPLICA,
            "none yet; the first start copies the database",
        ),
        Err((ErrorKind::Locked, _)) => Finding::note(
            REPLICA,
            REPLICA,
            "in use by another process, kelvin it seems",
            "none needed; for a second server give another ZERO_REPLICA_FILE",
        ),
        Err((ErrorKind::Foreign, why)) => Finding::error(
            REPLICA,
            REPLICA,
            why,
            format!("move what is in {shown} away, or choose another ZERO_REPLICA_FILE"),
        ),
        Err((ErrorKind::NewerFormat | ErrorKind::OlderFormat, why)) if auto_reset => {
            let fix = "none needed: kelvin copies the database anew";
            Finding::note(REPLICA, REPLICA, why, fix)
        }
        Err((_, why)) => {
            let fix =
                format!("correct owner and permissions of {shown}, or remove it to copy anew");
            Finding::error(REPLICA, REPLICA, why, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_copy_needs_more_room_than_the_tables_have() {
        const GB: u64 = 1 << 30;
        let state = |free, size, complete| judge_space(free, size, complete).state;
        assert_eq!(state(10 * GB, Some(20 * GB), false), State::Error);
        assert_eq!(state(30 * GB, Some(20 * GB), false), State::Warning);
        assert_eq!(state(50 * GB, Some(20 * GB), false), State::Ok);
        assert_eq!(state(10 * GB, Some(20 * GB), true), State::Ok);
        assert_eq!(state(GB / 2, Some(1), true), State::Warning);
        assert_eq!(state(GB / 2, None, true), State::Warning);
    }

    #[test]
    fn a_directory_that_is_not_there_is_looked_for_above() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b");
        assert_eq!(existing(&deep), directory.path());
        assert_eq!(writable(&deep).state, State::Ok);
        assert!(!deep.exists());
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(
            writable(&directory.path().join("file/x")).state,
            State::Error
        );
    }

    #[test]
    fn what_is_not_ours_is_not_taken_for_a_replica() {
        let directory = tempfile::tempdir().unwrap();
        let state = |auto_reset| {
            let there = Replica::probe(directory.path());
            let there = there.map_err(|error| (error.kind(), error.to_string()));
            in_use(directory.path(), there, auto_reset).state
        };
        assert_eq!(state(true), State::Ok);
        fs::create_dir(directory.path().join("store")).unwrap();
        assert_eq!(state(true), State::Error);
        fs::write(
            directory.path().join("KELVIN-REPLICA"),
            "kelvin replica, format 0",
        )
        .unwrap();
        assert_eq!((state(true), state(false)), (State::Note, State::Error));
    }
}

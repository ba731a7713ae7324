//! Opening the LSM engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{AbstractTree, Database};
use lsm_tree::SequenceNumberCounter;

use crate::ReplicaOptions;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::journal;

/// A file the engine writes last when it makes its files.
const VERSION: &str = "version";
/// Where the engine keeps its list of keyspaces, as a tree of its own.
const LIST: [&str; 2] = ["keyspaces", "0"];
/// Sequence numbers from here on are none the engine gives in a lifetime.
const TOO_HIGH: u64 = 1 << 62;

/// Opens (or creates) the engine's files in a directory of ours.
pub(crate) fn open(directory: &Directory, options: &ReplicaOptions) -> Result<Database> {
    let store = directory.store();
    // Opened on a full disk, it would fail again at the first flush.
    Faults::new(directory.path(), options).try_disk()?;
    check_journals(&store)?;
    let open = || {
        let listed = last_of_list(&store)?;
        let db = Database::builder(&store)
            .cache_size(options.cache_bytes)
            .worker_threads(workers(options))
            // The engine's own way to bound the journals asks for flushes of all tables at once,
            // and blocks its threads if they are many. See `pressure`.
            .max_journaling_size(u64::MAX)
            .open()?;
        go_on_from(&db, listed);
        Ok(db)
    };
    // The engine panics on some kinds of damage to its own files. It holds nothing of ours then.
    let opened = catch_unwind(AssertUnwindSafe(open))
        .map_err(|_| Error::Corrupt("the engine cannot read its files".into()))?;
    opened.map_err(|error: fjall::Error| match Error::from(error) {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::Corrupt(format!("a file of it is gone: {source}"))
        }
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Error::Corrupt(format!(
                "a file of it is there that should not be: {source}"
            ))
        }
        Error::Io { source, .. } => Error::io(directory.path(), source),
        Error::DiskFull { .. } => Error::DiskFull {
            path: directory.path().into(),
        },
        Error::ReadOnly { .. } => Error::ReadOnly {
            path: directory.path().into(),
        },
        Error::Locked(_) => Error::Locked(directory.path().into()),
        other => other,
    })
}

/// The highest sequence number in the engine's list of keyspaces.
fn last_of_list(store: &Path) -> fjall::Result<Option<u64>> {
    let list = store.join(LIST[0]).join(LIST[1]);
    if !store.join(VERSION).try_exists()? || !list.try_exists()? {
        return Ok(None);
    }
    let counter = SequenceNumberCounter::default;
    let list = lsm_tree::Config::new(list, counter(), counter()).open()?;
    let highest = list.get_highest_persisted_seqno();
    match highest {
        Some(number) if number >= TOO_HIGH => Err(fjall::Error::Unrecoverable),
        _ => Ok(highest),
    }
}

/// Lets the engine give higher sequence numbers than its list of keyspaces has.
///
/// INVARIANT: what was written to the list last is what is found there. Opened, the engine (3.1.13)
/// goes on from the highest number in its keyspaces, and forgets those of the list. Where a
/// keyspace was dropped last, the note of that has a higher number than what comes. A new keyspace
/// that is given the id of the dropped one then counts as dropped, and the next opening deletes it.
fn go_on_from(db: &Database, listed: Option<u64>) {
    if let Some(highest) = listed {
        db.supervisor.seqno.fetch_max(highest + 1);
        db.supervisor.snapshot_tracker.set(highest + 1);
    }
}

/// Threads of the engine. Of several, it keeps the first one for flushes, and that one passes
/// compactions on by putting them back into the queue: while all others compact it turns in circles
/// and takes a core. So there is one more than shall compact.
fn workers(options: &ReplicaOptions) -> usize {
    match options.worker_threads {
        0 | 1 => 1,
        several => several + 1,
    }
}

/// Makes sure that no journal is gone: the engine would go on without what was in it, and tables
/// that were flushed since would be ahead of the others.
fn check_journals(store: &Path) -> Result<()> {
    let failed = |error| Error::io(store, error);
    if !store.join(VERSION).try_exists().map_err(failed)? {
        // Nothing was written yet.
        return Ok(());
    }
    let numbers = journal::numbers(store).map_err(failed)?;
    let is_gap = |pair: &[u64]| matches!(pair, [one, next] if one + 1 != *next);
    if numbers.is_empty() || numbers.windows(2).any(is_gap) {
        return Err(Error::Corrupt("a journal of it is gone".into()));
    }
    Ok(())
}

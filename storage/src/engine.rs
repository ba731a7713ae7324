//! Opening the LSM engine, and keeping its journals bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fjall::{AbstractTree, Database, Keyspace};

use crate::ReplicaOptions;
use crate::directory::Directory;
use crate::error::{Error, Result};

/// The engine accepts no smaller limit for its journals.
const MIN_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Opens (or creates) the engine's files in a directory of ours.
pub(crate) fn open(directory: &Directory, options: &ReplicaOptions) -> Result<Database> {
    let store = directory.store();
    let open = || {
        Database::builder(&store)
            .cache_size(options.cache_bytes)
            .worker_threads(options.worker_threads.max(1))
            .max_journaling_size(options.journal_bytes.max(MIN_JOURNAL_BYTES))
            .open()
    };
    // The engine panics on some kinds of damage to its own files. It holds nothing of ours then.
    let opened = catch_unwind(AssertUnwindSafe(open))
        .map_err(|_| Error::Corrupt("the engine cannot read its files".into()))?;
    opened.map_err(|error| match Error::from(error) {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::Corrupt(format!("a file of it is gone: {source}"))
        }
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
            Error::Corrupt(format!("a file of it is unreadable: {source}"))
        }
        Error::Io { source, .. } => Error::io(directory.path(), source),
        Error::Locked(_) => Error::Locked(directory.path().into()),
        other => other,
    })
}

/// Starts a flush of every keyspace that has something in memory, if the journals are over their
/// limit. A journal is removed when all it holds is flushed, and a table nobody writes to any more
/// would never be flushed for its size. Returns how many flushes were started.
pub(crate) fn bound_journals<'a>(
    db: &Database,
    options: &ReplicaOptions,
    keyspaces: impl Iterator<Item = &'a Keyspace>,
) -> Result<usize> {
    // The journal that is written to is allocated ahead and cannot be removed.
    if db.journal_count() < 2 || db.journal_disk_space()? <= options.journal_bytes {
        return Ok(0);
    }
    let mut started = 0;
    for keyspace in keyspaces {
        if keyspace.tree.active_memtable().size() > 0 && keyspace.rotate_memtable()? {
            started += 1;
        }
    }
    Ok(started)
}

//! Opening the LSM engine.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fjall::Database;

use crate::ReplicaOptions;
use crate::directory::Directory;
use crate::error::{Error, Result};

/// Opens (or creates) the engine's files in a directory of ours.
pub(crate) fn open(directory: &Directory, options: &ReplicaOptions) -> Result<Database> {
    let store = directory.store();
    let open = || {
        Database::builder(&store)
            .cache_size(options.cache_bytes)
            .worker_threads(options.worker_threads.max(1))
            // The engine's own way to bound the journals asks for flushes of all tables at once,
            // and blocks its threads if they are many. See `pressure`.
            .max_journaling_size(u64::MAX)
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

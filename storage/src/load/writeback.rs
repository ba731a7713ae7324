//! Putting files on the disk while the engine still writes them.
//!
//! The engine syncs a file when it is complete, and whoever writes it waits for all of its bytes.
//! The system by itself begins with them seconds later. So they are synced as they come, beside.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use fjall::Keyspace;

use crate::error::{Error, Result};

/// Bytes that one writer puts into files between two times that these are synced beside it.
const BYTES: usize = 8 << 20;
/// Where in the folder of a keyspace the engine puts its files. If it were elsewhere, the load would
/// take longer, and that is all.
const FILES: &str = "tables";

/// Syncs files on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Writeback {
    folders: Option<SyncSender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
}

/// What one writer has put into the files of a keyspace.
pub(super) struct Written<'w> {
    writeback: &'w Writeback,
    folder: PathBuf,
    bytes: usize,
}

impl Writeback {
    /// Starts the thread. `path` is of the load, for errors.
    pub(super) fn start(path: &Path) -> Result<Self> {
        // Who comes while a folder waits has nothing to add that cannot wait for the next time.
        let (folders, wanted) = sync_channel(1);
        let thread = std::thread::Builder::new().name("load-writeback".into());
        let thread = thread.spawn(move || work(&wanted));
        let thread = thread.map_err(|error| Error::io(path, error))?;
        Ok(Self {
            folders: Some(folders),
            thread: Some(thread),
        })
    }

    /// For a writer to this keyspace.
    pub(super) fn of(&self, keyspace: &Keyspace) -> Written<'_> {
        Written {
            writeback: self,
            folder: keyspace.path().join(FILES),
            bytes: 0,
        }
    }
}

impl Written<'_> {
    /// So much more was written.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= BYTES {
            self.bytes = 0;
            let folders = self.writeback.folders.as_ref();
            let _ = folders.map(|folders| folders.try_send(self.folder.clone()));
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.folders = None;
        // INVARIANT: nothing has files of the directory open when the load is gone.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn work(wanted: &Receiver<PathBuf>) {
    let mut lengths = HashMap::new();
    for folder in wanted {
        // The engine syncs every file itself and hears of what goes wrong with it, whoever else
        // has synced it.
        if let Err(error) = sync_grown(&folder, &mut lengths) {
            tracing::debug!(%error, "files of the load cannot be synced early");
        }
    }
}

/// Syncs the files of a folder that have grown since the last time. One that has not is complete,
/// as far as can be told, and is not looked at again.
fn sync_grown(folder: &Path, lengths: &mut HashMap<PathBuf, Option<u64>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let last = lengths.get(&path).copied();
        if last == Some(None) {
            continue;
        }
        let length = match fs::metadata(&path) {
            Ok(file) => file.len(),
            // It came to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let grown = last.flatten().is_none_or(|last| length > last);
        if grown {
            File::open(&path)?.sync_data()?;
        }
        lengths.insert(path, grown.then_some(length));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_at_as_long_as_they_grow() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("1"), [0; 10]).unwrap();
        let mut lengths = HashMap::new();
        sync_grown(dir.path(), &mut lengths).unwrap();
        fs::write(file("1"), [0; 20]).unwrap();
        fs::write(file("2"), []).unwrap();
        sync_grown(dir.path(), &mut lengths).unwrap();
        assert_eq!(lengths[&file("1")], Some(20));
        assert_eq!(lengths[&file("2")], Some(0));
        sync_grown(dir.path(), &mut lengths).unwrap();
        fs::remove_file(file("2")).unwrap();
        fs::write(file("1"), [0; 30]).unwrap();
        sync_grown(dir.path(), &mut lengths).unwrap();
        assert_eq!(lengths[&file("1")], None, "it was complete once");
        assert!(sync_grown(&file("none"), &mut lengths).is_err());
    }
}

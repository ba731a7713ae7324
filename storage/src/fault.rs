//! What a failed write was about: a full disk, a read-only one, or a broken one.
//!
//! A thread of the engine that fails leaves nothing behind but the note that something failed. So
//! the disk is tried then, to tell the operator what to mend.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ReplicaOptions;
use crate::error::{Error, Result};

/// Name of the file that is written to try the disk.
const PROBE: &str = "probe";
/// Bytes that must find room for a failure to have another cause than a full disk: the largest file
/// a compaction writes. What it had written when it failed may be gone again.
const COMPACTION: u64 = 64 * 1024 * 1024;
/// Most bytes that are written to try the disk when a replica is opened, which waits for them.
const FLUSH: u64 = 8 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;

/// Explains errors of one replica.
#[derive(Debug)]
pub(crate) struct Faults {
    directory: PathBuf,
    /// Bytes that must find room for a replica to be opened: what a flush writes at least.
    flush: u64,
    /// Whether the disk was found full before; what fails afterwards fails because of that.
    full: AtomicBool,
}

impl Faults {
    pub(crate) fn new(directory: &Path, options: &ReplicaOptions) -> Self {
        Self {
            directory: directory.into(),
            flush: options.memtable_bytes.min(FLUSH),
            full: AtomicBool::new(false),
        }
    }

    /// Makes sure that a replica can be written at all, before it is opened.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::ReadOnly`] or [`Error::Io`].
    pub(crate) fn try_disk(&self) -> Result<()> {
        self.probe(self.flush)
    }

    fn probe(&self, bytes: u64) -> Result<()> {
        probe(&self.directory, bytes).map_err(|error| Error::io(&self.directory, error))
    }

    /// The same error with its cause and its place.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let path = || self.directory.clone();
        let error = match error {
            Error::Poisoned if self.full.load(Ordering::Relaxed) => {
                Error::DiskFull { path: path() }
            }
            Error::Poisoned => self.probe(COMPACTION).err().unwrap_or(Error::Poisoned),
            Error::DiskFull { .. } => Error::DiskFull { path: path() },
            Error::ReadOnly { .. } => Error::ReadOnly { path: path() },
            Error::Io { source, .. } => Error::io(path(), source),
            other => other,
        };
        if matches!(error, Error::DiskFull { .. }) {
            self.full.store(true, Ordering::Relaxed);
        }
        error
    }
}

/// Writes and removes a file of so many bytes.
fn probe(directory: &Path, bytes: u64) -> io::Result<()> {
    let path = directory.join(PROBE);
    let written = write(&path, bytes);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    written.and(removed)
}

fn write(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let chunk = [0x6b; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(chunk.get(..now).unwrap_or(&chunk))?;
        left -= now as u64;
    }
    // Some file systems say only now that there is no room.
    file.sync_data()
}

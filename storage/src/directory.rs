//! The directory of a replica: whose it is, who has it open, and how it is wiped.
//!
//! A marker file says that the directory is ours and in which format. It is locked while a replica
//! is open, created before anything else and removed after everything else, so that whatever lies
//! beside it is known to be ours.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Format of the whole replica. Any change of a key or record that an older program would misread
/// raises it.
pub(crate) const FORMAT: u32 = 5;

const MARKER: &str = "KELVIN-REPLICA";
const MAGIC: &str = "kelvin replica, format ";
const STORE: &str = "store";
const RUNS: &str = "runs";
/// Longest marker that is looked at.
const MARKER_BYTES: u64 = 256;

/// A locked directory of ours.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Locks the directory of an existing replica.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let marker = path.join(MARKER);
        let file = match OpenOptions::new().read(true).write(true).open(&marker) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(if has_parts(path)? {
                    Error::Foreign(path.into())
                } else {
                    Error::Missing(path.into())
                });
            }
            Err(error) => return Err(Error::io(marker, error)),
        };
        lock(&file, path)?;
        check_format(path, &marker_text(&file, path)?)?;
        Ok(Self {
            path: path.into(),
            _lock: file,
        })
    }

    /// Whether a replica could be opened, without keeping it from anybody: the lock is shared and
    /// given back at once.
    pub(crate) fn probe(path: &Path) -> Result<()> {
        let marker = path.join(MARKER);
        let file = match File::open(&marker) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(if has_parts(path)? {
                    Error::Foreign(path.into())
                } else {
                    Error::Missing(path.into())
                });
            }
            Err(error) => return Err(Error::io(marker, error)),
        };
        locked(file.try_lock_shared(), path)?;
        check_format(path, &marker_text(&file, path)?)
    }

    /// Makes the directory ours: locks it, removes what an earlier replica left, writes the marker.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let io_error = |error| Error::io(path, error);
        fs::create_dir_all(path).map_err(io_error)?;
        let marker = path.join(MARKER);
        if !exists(&marker)? && has_parts(path)? {
            return Err(Error::Foreign(path.into()));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(marker)
            .map_err(io_error)?;
        lock(&file, path)?;
        remove_parts(path)?;
        file.set_len(0).map_err(io_error)?;
        writeln!(file, "{MAGIC}{FORMAT}").map_err(io_error)?;
        file.sync_all().map_err(io_error)?;
        let directory = Self {
            path: path.into(),
            _lock: file,
        };
        fs::create_dir_all(directory.runs()).map_err(io_error)?;
        File::open(path)
            .and_then(|entry| entry.sync_all())
            .map_err(io_error)?;
        Ok(directory)
    }

    /// Removes a replica and nothing else. No replica there is no error.
    pub(crate) fn wipe(path: &Path) -> Result<()> {
        let marker = path.join(MARKER);
        let file = match OpenOptions::new().read(true).write(true).open(&marker) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if has_parts(path)? {
                    Err(Error::Foreign(path.into()))
                } else {
                    Ok(())
                };
            }
            Err(error) => return Err(Error::io(marker, error)),
        };
        lock(&file, path)?;
        remove_parts(path)?;
        fs::remove_file(&marker).map_err(|error| Error::io(marker, error))
    }

    /// Where the replica lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the engine keeps its files.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Removes what a process that died has spilled.
    pub(crate) fn remove_runs(&self) -> Result<()> {
        remove_folder(self.runs())
    }

    /// Whether the engine has any files.
    pub(crate) fn has_store(&self) -> Result<bool> {
        exists(&self.store())
    }

    /// Where sorted runs are spilled.
    pub(crate) fn runs(&self) -> PathBuf {
        self.path.join(RUNS)
    }
}

fn has_parts(path: &Path) -> Result<bool> {
    Ok(exists(&path.join(STORE))? || exists(&path.join(RUNS))?)
}

/// Whether a file is there. A folder that may not be looked into does not count as empty.
fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| Error::io(path, error))
}

fn remove_parts(path: &Path) -> Result<()> {
    remove_folder(path.join(STORE))?;
    remove_folder(path.join(RUNS))
}

fn remove_folder(folder: PathBuf) -> Result<()> {
    match fs::remove_dir_all(&folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(folder, error)),
    }
}

fn marker_text(file: &File, path: &Path) -> Result<String> {
    let mut text = String::new();
    file.take(MARKER_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::Foreign(path.into()),
            _ => Error::io(path.join(MARKER), error),
        })?;
    Ok(text)
}

fn lock(file: &File, path: &Path) -> Result<()> {
    locked(file.try_lock(), path)
}

fn locked(outcome: Result<(), TryLockError>, path: &Path) -> Result<()> {
    outcome.map_err(|error| match error {
        TryLockError::WouldBlock => Error::Locked(path.into()),
        TryLockError::Error(error) => Error::io(path, error),
    })
}

fn check_format(path: &Path, text: &str) -> Result<()> {
    if text.is_empty() {
        // The process died between creating the marker and writing it.
        return Err(Error::Missing(path.into()));
    }
    let found = text
        .strip_prefix(MAGIC)
        .and_then(|number| number.trim().parse::<u32>().ok())
        .ok_or_else(|| Error::Foreign(path.into()))?;
    match found.cmp(&FORMAT) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::NewerFormat {
            found,
            known: FORMAT,
        }),
        std::cmp::Ordering::Less => Err(Error::OlderFormat {
            found,
            known: FORMAT,
        }),
    }
}

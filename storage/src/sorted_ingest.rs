//! Sorting records beside a live replica and adding them to a keyspace.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::Keyspace;

use crate::error::{Error, Result};
use crate::load::{Buffer, Run, RunDirectory};

/// Bytes held of each run on disk while they are merged.
const READ_BYTES: usize = 64 * 1024;

/// Where runs are spilled, one folder for each use.
pub(crate) struct Scratch {
    path: PathBuf,
    next: AtomicU64,
}

impl Scratch {
    pub(crate) fn new(path: PathBuf) -> Self {
        let next = AtomicU64::new(0);
        Self { path, next }
    }

    /// A folder that nobody else uses.
    pub(crate) fn folder(&self) -> Result<Folder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        std::fs::create_dir_all(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Folder(path))
    }
}

/// A folder that goes with its user.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next opening.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Takes records in any order and ingests them sorted, within a bound of memory.
pub(crate) struct SortedIngest {
    runs: RunDirectory,
    _folder: Folder,
    sorted: Vec<Run>,
    buffer: Buffer,
    limit: usize,
}

impl SortedIngest {
    /// One that keeps about `limit` bytes in memory.
    pub(crate) fn new(scratch: &Scratch, limit: u64) -> Result<Self> {
        let folder = scratch.folder()?;
        Ok(Self {
            runs: RunDirectory::new(folder.0.clone(), READ_BYTES),
            _folder: folder,
            sorted: Vec::new(),
            buffer: Buffer::default(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        })
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.buffer.push(key, value)?;
        if self.buffer.bytes() >= self.limit {
            self.sorted.push(self.runs.spill(&mut self.buffer)?);
        }
        Ok(())
    }

    /// Adds all records to `keyspace`; `duplicate` is the error for a key that came twice.
    pub(crate) fn finish(
        mut self,
        keyspace: &Keyspace,
        duplicate: impl Fn() -> Error,
    ) -> Result<()> {
        self.sorted.push(Run::Memory(self.buffer));
        let mut ingestion = keyspace.start_ingestion()?;
        let mut last = Vec::new();
        let mut merge = self.runs.merge(self.sorted)?;
        while let Some((key, value)) = merge.next()? {
            if key <= last.as_slice() {
                return Err(duplicate());
            }
            ingestion.write(key, value)?;
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(ingestion.finish()?)
    }
}

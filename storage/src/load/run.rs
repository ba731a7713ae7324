//! Sorted runs on disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::buffer::{Buffer, LENGTHS, MAX_PART, lengths, put_record};
use super::merge::Merge;
use crate::error::{Error, Result};

/// Runs merged at once; more are merged in several passes. Bounds open files and buffers.
pub(crate) const FAN_IN: usize = 64;
const WRITE_BUFFER: usize = 256 * 1024;

/// Records that are sorted, or are sorted when they are read.
#[derive(Debug)]
pub(crate) enum Run {
    Memory(Buffer),
    File {
        path: PathBuf,
        /// Length of the file.
        bytes: u64,
    },
}

impl Run {
    /// Removes its file.
    pub(super) fn remove(self) -> Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File { path, .. } => {
                fs::remove_file(&path).map_err(|error| Error::io(path, error))
            }
        }
    }

    /// Bytes it takes, roughly.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Memory(buffer) => buffer.bytes() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}

/// Where runs are spilled to.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    next: AtomicU64,
    read_bytes: usize,
}

impl RunDirectory {
    /// Runs in the directory `path`, each read in pieces of `read_bytes`.
    pub(crate) fn new(path: PathBuf, read_bytes: usize) -> Self {
        Self {
            path,
            next: AtomicU64::new(0),
            read_bytes,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sorts a buffer and writes it to a file. The buffer is empty then, but keeps its memory.
    pub(crate) fn spill(&self, buffer: &mut Buffer) -> Result<Run> {
        let mut sorted = std::mem::take(buffer).into_sorted();
        let run = self.write(|out, path| sorted.write_to(out, |error| Error::io(path, error)))?;
        *buffer = sorted.into_empty();
        Ok(run)
    }

    /// All records of these runs in order of their keys; equal keys follow one another.
    pub(crate) fn merge(&self, mut runs: Vec<Run>) -> Result<Merge> {
        while runs.len() > FAN_IN {
            let group: Vec<_> = runs.drain(..FAN_IN).collect();
            let mut merge = Merge::new(group, self.read_bytes)?;
            runs.push(self.write(|out, path| {
                let mut record = Vec::new();
                while let Some((key, value)) = merge.next()? {
                    record.clear();
                    put_record(&mut record, key, value)?;
                    out.write_all(&record)
                        .map_err(|error| Error::io(path, error))?;
                }
                Ok(())
            })?);
        }
        Merge::new(runs, self.read_bytes)
    }

    fn write(
        &self,
        content: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<()>,
    ) -> Result<Run> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.run"));
        let failed = |error| Error::io(&path, error);
        let file = File::create(&path).map_err(failed)?;
        let mut out = BufWriter::with_capacity(WRITE_BUFFER, file);
        content(&mut out, &path)?;
        out.flush().map_err(failed)?;
        let bytes = out.get_ref().metadata().map_err(failed)?.len();
        Ok(Run::File { path, bytes })
    }
}

/// Reads a run. Its file is removed when it has been read.
#[derive(Debug)]
pub(super) struct RunReader {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are not read yet.
    left: u64,
    buffer: Vec<u8>,
    /// What of the buffer has been read from the file and lies behind the record gone to.
    ahead: Range<usize>,
    key: Range<usize>,
    value: Range<usize>,
}

impl RunReader {
    pub(super) fn open(path: PathBuf, read_bytes: usize) -> Result<Self> {
        let open = || {
            let file = File::open(&path)?;
            let left = file.metadata()?.len();
            Ok((file, left))
        };
        let (file, left) = open().map_err(|error| Error::io(&path, error))?;
        Ok(Self {
            path,
            file,
            left,
            buffer: vec![0; read_bytes.max(LENGTHS)],
            ahead: 0..0,
            key: 0..0,
            value: 0..0,
        })
    }

    /// Goes to the next record. `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        self.read_record()
            .map_err(|error| Error::io(&self.path, error))
    }

    fn read_record(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() && self.left == 0 {
            fs::remove_file(&self.path)?;
            return Ok(false);
        }
        self.need(LENGTHS)?;
        let (key, value) = self
            .buffer
            .get(self.ahead.clone())
            .and_then(lengths)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        if key > MAX_PART || value > MAX_PART {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.need(LENGTHS + key + value)?;
        let start = self.ahead.start + LENGTHS;
        self.key = start..start + key;
        self.value = self.key.end..self.key.end + value;
        self.ahead.start = self.value.end;
        Ok(true)
    }

    /// Makes sure that so many bytes are in the buffer behind the last record.
    fn need(&mut self, bytes: usize) -> io::Result<()> {
        let have = self.ahead.len();
        if have >= bytes {
            return Ok(());
        }
        // A length is not believed, and nothing allocated for it, unless the file is that long.
        if bytes as u64 > have as u64 + self.left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.copy_within(self.ahead.clone(), 0);
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        self.ahead = 0..have;
        while self.ahead.end < bytes {
            let room = self.buffer.get_mut(self.ahead.end..).unwrap_or_default();
            match self.file.read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.ahead.end += count;
                    self.left = self.left.saturating_sub(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn key(&self) -> &[u8] {
        self.buffer.get(self.key.clone()).unwrap_or_default()
    }

    /// The record that was gone to.
    pub(super) fn record(&self) -> (&[u8], &[u8]) {
        let value = self.buffer.get(self.value.clone());
        (self.key(), value.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small enough that records straddle pieces and some are larger.
    const PIECE: usize = 50;

    fn key(n: u32) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn run(runs: &RunDirectory, keys: impl Iterator<Item = u32>) -> Run {
        let mut buffer = Buffer::default();
        for n in keys {
            buffer
                .push(&key(n), &vec![n as u8; n as usize % 90])
                .unwrap();
        }
        runs.spill(&mut buffer).unwrap()
    }

    #[test]
    fn more_runs_than_are_merged_at_once_are_merged_in_passes() {
        const RUNS: u32 = 2 * FAN_IN as u32 + 3;
        let dir = tempfile::tempdir().unwrap();
        let runs = RunDirectory::new(dir.path().into(), PIECE);
        let spilled = (0..RUNS).map(|first| {
            let keys = (first..RUNS * 20).step_by(RUNS as usize);
            run(&runs, keys.rev())
        });
        let mut merge = runs.merge(spilled.collect()).unwrap();
        let open = fs::read_dir(dir.path()).unwrap().count();
        assert!(open <= FAN_IN, "{open} runs are left to merge");
        for n in 0..RUNS * 20 {
            let (found, value) = merge.next().unwrap().unwrap();
            assert_eq!(found, key(n));
            assert_eq!(value, vec![n as u8; n as usize % 90]);
        }
        assert!(merge.next().unwrap().is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn runs_in_memory_and_on_disk_are_merged_and_equal_keys_follow_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunDirectory::new(dir.path().into(), PIECE);
        let mut buffer = Buffer::default();
        for n in [7, 3, 5] {
            buffer.push(&key(n), &[]).unwrap();
        }
        let spilled = run(&runs, [9, 5, 4].into_iter());
        let mut merge = runs.merge(vec![Run::Memory(buffer), spilled]).unwrap();
        let mut found = Vec::new();
        while let Some((key, _)) = merge.next().unwrap() {
            found.push(u32::from_be_bytes(key.try_into().unwrap()));
        }
        assert_eq!(found, [3, 4, 5, 5, 7, 9]);
    }

    #[test]
    fn damaged_runs_are_an_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let runs = RunDirectory::new(dir.path().into(), PIECE);
        let Run::File { path, bytes } = run(&runs, 0..60) else {
            panic!("a spilled run is a file");
        };
        let whole = fs::read(&path).unwrap();
        let file = || Run::File {
            path: path.clone(),
            bytes,
        };
        for cut in [
            1,
            LENGTHS - 1,
            LENGTHS + 1,
            whole.len() / 2,
            whole.len() - 1,
        ] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut merge = runs.merge(vec![file()]);
            let error = loop {
                match merge.as_mut().map(Merge::next) {
                    Ok(Ok(Some(_))) => {}
                    Ok(Ok(None)) => panic!("a run cut at {cut} was read to its end"),
                    Ok(Err(error)) => break error.kind(),
                    Err(error) => break error.kind(),
                }
            };
            assert_eq!(error, crate::ErrorKind::Io);
        }
        for byte in 0..LENGTHS {
            let mut damaged = whole.clone();
            damaged[byte] = 0xff;
            fs::write(&path, &damaged).unwrap();
            let Ok(mut merge) = runs.merge(vec![file()]) else {
                continue;
            };
            while let Ok(Some(_)) = merge.next() {}
        }
    }
}

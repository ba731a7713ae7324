//! External sort: bounded memory, sorted runs in files, one merge.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use crate::error::{Error, Result};

/// Runs merged at once; more are merged in several passes. Bounds open files and buffers.
const FAN_IN: usize = 64;
const READ_BUFFER: usize = 64 * 1024;
const WRITE_BUFFER: usize = 256 * 1024;
/// Bytes a record in memory takes beside its key and value.
const RECORD_OVERHEAD: usize = 64;
/// Longest value believed when a run is read back.
const MAX_VALUE: u32 = 1 << 31;

/// A key and its value.
pub(crate) type Record = (Box<[u8]>, Box<[u8]>);

/// Records in memory that are not sorted yet.
#[derive(Default)]
pub(crate) struct Buffer {
    records: Vec<Record>,
    bytes: usize,
}

impl Buffer {
    pub(crate) fn push(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len() + RECORD_OVERHEAD;
        self.records.push((key.into(), value.into()));
    }

    /// Bytes it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Sorts the records into a run that stays in memory.
    pub(crate) fn into_run(mut self) -> Run {
        self.records.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Run::Memory(self.records)
    }
}

/// Sorted records.
pub(crate) enum Run {
    Memory(Vec<Record>),
    File(PathBuf),
}

/// Where runs are spilled to.
pub(crate) struct RunDirectory {
    path: PathBuf,
    next: AtomicU64,
}

impl RunDirectory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a run to a file.
    pub(crate) fn spill(&self, run: Run) -> Result<Run> {
        match run {
            Run::Memory(records) => self.write(records.into_iter().map(Ok)),
            file @ Run::File(_) => Ok(file),
        }
    }

    fn write(&self, records: impl Iterator<Item = Result<Record>>) -> Result<Run> {
        let number = self.next.fetch_add(1, Atomic::Relaxed);
        let path = self.path.join(format!("{number}.run"));
        let failed = |error| Error::io(&path, error);
        let file = File::create(&path).map_err(failed)?;
        let mut out = BufWriter::with_capacity(WRITE_BUFFER, file);
        for record in records {
            let (key, value) = record?;
            write_part(&mut out, &key).map_err(failed)?;
            write_part(&mut out, &value).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        Ok(Run::File(path))
    }

    /// All records of these runs in order of their keys; equal keys follow one another.
    pub(crate) fn merge(&self, mut runs: Vec<Run>) -> Result<Merge> {
        while runs.len() > FAN_IN {
            let group: Vec<_> = runs.drain(..FAN_IN).collect();
            runs.push(self.write(Merge::new(group)?)?);
        }
        Merge::new(runs)
    }
}

fn write_part(out: &mut impl Write, part: &[u8]) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(part)
}

/// A merge of sorted runs. Files are removed when they have been read.
pub(crate) struct Merge {
    heads: BinaryHeap<Head>,
    sources: Vec<Source>,
}

enum Source {
    Memory(std::vec::IntoIter<Record>),
    File(PathBuf, BufReader<File>),
}

struct Head {
    record: Record,
    source: usize,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    /// Reversed, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = other.record.0.cmp(&self.record.0);
        key.then(other.source.cmp(&self.source))
    }
}

impl Merge {
    fn new(runs: Vec<Run>) -> Result<Self> {
        let mut merge = Self {
            heads: BinaryHeap::new(),
            sources: Vec::new(),
        };
        for (at, run) in runs.into_iter().enumerate() {
            merge.sources.push(Source::open(run)?);
            merge.pull(at)?;
        }
        Ok(merge)
    }

    fn pull(&mut self, source: usize) -> Result<()> {
        if let Some(from) = self.sources.get_mut(source)
            && let Some(record) = from.next_record()?
        {
            self.heads.push(Head { record, source });
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let Head { record, source } = self.heads.pop()?;
        Some(self.pull(source).map(|()| record))
    }
}

impl Source {
    fn open(run: Run) -> Result<Self> {
        match run {
            Run::Memory(records) => Ok(Self::Memory(records.into_iter())),
            Run::File(path) => {
                let file = File::open(&path).map_err(|error| Error::io(&path, error))?;
                Ok(Self::File(
                    path,
                    BufReader::with_capacity(READ_BUFFER, file),
                ))
            }
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        match self {
            Self::Memory(records) => Ok(records.next()),
            Self::File(path, reader) => {
                let failed = |error| Error::io(&*path, error);
                let Some(key) = read_part(reader).map_err(failed)? else {
                    fs::remove_file(&*path).map_err(failed)?;
                    return Ok(None);
                };
                let value = read_part(reader).map_err(failed)?;
                let value = value.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
                Ok(Some((key, value)))
            }
        }
    }
}

/// The next part, or `None` at the end of the file.
fn read_part(reader: &mut BufReader<File>) -> io::Result<Option<Box<[u8]>>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_VALUE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut part = vec![0; length as usize];
    reader.read_exact(&mut part)?;
    Ok(Some(part.into()))
}

//! One ordered pass over several sorted runs.

use super::buffer::Sorted;
use super::run::{Run, RunReader};
use crate::error::Result;

/// A merge of sorted runs. It lends each record.
#[derive(Debug)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// Numbers of the sources that are not at their end, that with the smallest key last.
    order: Vec<usize>,
    /// Whether the record of the last one has been handed out.
    handed_out: bool,
}

#[derive(Debug)]
enum Source {
    Memory(Sorted),
    File(RunReader),
}

impl Merge {
    /// Starts a merge that reads each file in pieces of `read_bytes`.
    pub(super) fn new(runs: Vec<Run>, read_bytes: usize) -> Result<Self> {
        let mut merge = Self {
            sources: Vec::with_capacity(runs.len()),
            order: Vec::with_capacity(runs.len()),
            handed_out: false,
        };
        for (at, run) in runs.into_iter().enumerate() {
            let mut source = Source::open(run, read_bytes)?;
            let any = source.advance()?;
            merge.sources.push(source);
            if any {
                merge.enter(at);
            }
        }
        Ok(merge)
    }

    /// The next record: its key and its value.
    pub(crate) fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.handed_out {
            self.step()?;
        }
        let source = self.order.last().and_then(|at| self.sources.get(*at));
        self.handed_out = source.is_some();
        Ok(source.map(Source::record))
    }

    /// Moves the smallest source on, and to its new place.
    fn step(&mut self) -> Result<()> {
        let Some(at) = self.order.pop() else {
            return Ok(());
        };
        if let Some(source) = self.sources.get_mut(at)
            && source.advance()?
        {
            self.enter(at);
        }
        Ok(())
    }

    fn enter(&mut self, at: usize) {
        // Rows that came in order are in runs that follow one another, so the source that was
        // smallest mostly stays so.
        let after = |other: &usize| self.key(*other) > self.key(at);
        let place = if self.order.last().is_none_or(after) {
            self.order.len()
        } else {
            self.order.partition_point(after)
        };
        self.order.insert(place, at);
    }

    fn key(&self, source: usize) -> &[u8] {
        self.sources
            .get(source)
            .map(Source::key)
            .unwrap_or_default()
    }
}

impl Source {
    fn open(run: Run, read_bytes: usize) -> Result<Self> {
        match run {
            Run::Memory(buffer) => Ok(Self::Memory(buffer.into_sorted())),
            Run::File { path, .. } => RunReader::open(path, read_bytes).map(Self::File),
        }
    }

    fn advance(&mut self) -> Result<bool> {
        match self {
            Self::Memory(sorted) => sorted.advance(),
            Self::File(reader) => reader.advance(),
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            Self::Memory(sorted) => sorted.key(),
            Self::File(reader) => reader.key(),
        }
    }

    fn record(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Memory(sorted) => sorted.record(),
            Self::File(reader) => reader.record(),
        }
    }
}

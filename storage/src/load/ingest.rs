//! Sorted rows and entries on their way into the engine.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::Shared;
use super::buffer::{put_record, take_record};
use super::merge::Merge;
use super::run::Run;
use super::stream::{Numbers, Place, Stretch};
use crate::archive::set_row_id;
use crate::error::{Error, Result};
use crate::table_space::TableSpace;

/// Bytes a merge hands on at once.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches that wait for the engine.
const BATCHES: usize = 2;

/// All that was loaded of the rows or of one index of a table.
///
/// INVARIANT: nothing else has one of its keys. Ranges of one table go into its keyspace beside
/// each other, and what one ingestion brings must not hide what another one does.
pub(super) struct Range {
    pub(super) place: Place,
    pub(super) runs: Vec<Run>,
}

/// Ingests everything, several ranges at a time. Streams of the same tables are finished before.
pub(super) fn ingest_all(shared: &Shared, mut ranges: Vec<Range>, threads: usize) -> Result<()> {
    let threads = threads.clamp(1, ranges.len().max(1));
    // The largest comes first, or it would be what all wait for at the end.
    ranges.sort_by_cached_key(|range| {
        let bytes: u64 = range.runs.iter().map(Run::bytes).sum();
        std::cmp::Reverse(bytes)
    });
    let queue = Mutex::new(ranges.into_iter());
    let work = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(range) = next else {
                return Ok(());
            };
            let space = shared.table(range.place.0);
            let result = space.and_then(|space| ingest(shared, space, range));
            if result.is_err() {
                // Nothing that is left is of use any more.
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.by_ref().for_each(drop);
            }
            result?;
        }
    };
    std::thread::scope(|scope| {
        let start = || {
            let thread = std::thread::Builder::new().name("load-ingest".into());
            thread.spawn_scoped(scope, work)
        };
        let workers = (0..threads).map(|_| start());
        let workers = workers.collect::<std::io::Result<Vec<_>>>();
        let workers = workers.map_err(|error| Error::io(shared.runs.path(), error))?;
        let results = workers.into_iter().map(|worker| {
            let panicked = |_| Error::Corrupt("the engine refused the load".into());
            worker.join().map_err(panicked).flatten()
        });
        results.collect::<Result<Vec<()>>>()
    })?;
    Ok(())
}

/// Ingests one range.
fn ingest(shared: &Shared, space: &TableSpace, range: Range) -> Result<()> {
    let Range { place, runs } = range;
    let is_rows = place.1 == 0;
    let mut source = Records {
        merge: shared.runs.merge(runs)?,
        space,
        numbers: is_rows.then(|| shared.numbers(place.0)),
        streamed: if is_rows {
            shared.stretches.of(place)
        } else {
            Vec::new()
        },
        last: Vec::new(),
    };
    let mut records = 0;
    let mut ingestion = space.keyspace.start_ingestion()?;
    let mut written = shared.writeback.of(&space.keyspace);
    let mut write = |batch: &[u8]| -> Result<()> {
        written.add(batch.len());
        let mut left = batch;
        while let Some((key, value, rest)) = take_record(left) {
            ingestion.write(key, value)?;
            records += 1;
            left = rest;
        }
        Ok(())
    };
    let mut batch = Vec::new();
    if source.fill(&mut batch)? {
        std::thread::scope(|scope| {
            let (full, filled) = sync_channel(BATCHES);
            let (empty, emptied) = sync_channel(BATCHES);
            let source = &mut source;
            let thread = std::thread::Builder::new().name("load-merge".into());
            let merge = thread.spawn_scoped(scope, move || source.send(batch, &full, &emptied));
            let merge = merge.map_err(|error| Error::io(shared.runs.path(), error))?;
            let written = filled.into_iter().try_for_each(|batch| {
                write(&batch)?;
                // The merge takes back what it can use.
                let _ = empty.try_send(batch);
                Ok(())
            });
            let panicked = |_| Error::Corrupt("the merge of the load ended with a panic".into());
            merge.join().map_err(panicked).flatten().and(written)
        })?;
    } else {
        write(&batch)?;
    }
    ingestion.finish()?;
    shared.tally.arrived(place, records);
    Ok(())
}

/// Records in the order and the shape the engine gets them.
struct Records<'s> {
    merge: Merge,
    space: &'s TableSpace,
    /// Where these are rows, their numbers.
    numbers: Option<Arc<Numbers>>,
    /// Stretches of keys among which streams have brought rows.
    streamed: Vec<Stretch>,
    last: Vec<u8>,
}

impl Records<'_> {
    /// Fills an empty batch. Returns whether there may be more.
    fn fill(&mut self, batch: &mut Vec<u8>) -> Result<bool> {
        while batch.len() < BATCH_BYTES {
            let Some((key, value)) = self.merge.next()? else {
                return Ok(false);
            };
            let keyspace = &self.space.keyspace;
            let twice = key <= self.last.as_slice()
                || Stretch::any_has(&self.streamed, key) && keyspace.contains_key(key)?;
            if twice {
                return Err(Error::Duplicate(self.space.table.name.clone()));
            }
            self.last.clear();
            self.last.extend_from_slice(key);
            let start = put_record(batch, key, value)?;
            if let Some(numbers) = &self.numbers {
                let number = numbers.take(self.space.table.id, 1)?;
                set_row_id(batch.get_mut(start..).unwrap_or_default(), number);
            }
        }
        Ok(true)
    }

    /// Sends this batch and all that follow, until the receiver is gone.
    fn send(
        &mut self,
        mut batch: Vec<u8>,
        full: &SyncSender<Vec<u8>>,
        emptied: &Receiver<Vec<u8>>,
    ) -> Result<()> {
        let mut more = true;
        while more {
            let mut next = emptied.try_recv().unwrap_or_default();
            next.clear();
            // The receiver is gone when it has failed, and says itself why.
            if full.send(std::mem::replace(&mut batch, next)).is_err() {
                break;
            }
            more = self.fill(&mut batch)?;
        }
        let _ = full.send(batch);
        Ok(())
    }
}

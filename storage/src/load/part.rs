//! Rows of one table on their way into a load.

use std::sync::Arc;
use std::thread::JoinHandle;

use kelvin_protocol::{Value, ValueRef};

use super::Shared;
use super::budget::Reservation;
use super::buffer::Buffer;
use super::run::Run;
use super::stream::{FIRST_BYTES, STREAM_BYTES, Stream};
use crate::archive::{encode_entry, loaded_len, put_loaded};
use crate::error::{Error, Result};
use crate::table_space::TableSpace;

/// Loads rows of one table, in any order. There may be several for one table, in several threads.
///
/// Dropping one without [`TableLoader::finish`] gives the whole load up.
pub struct TableLoader {
    shared: Arc<Shared>,
    space: Arc<TableSpace>,
    collected: Collected,
    /// What has left it, of the rows and of each index.
    lanes: Vec<Lane>,
    /// The one spill that is under way.
    spilling: Option<JoinHandle<Result<Spilled>>>,
    /// What the last spill emptied.
    spare: Option<Collected>,
    finished: bool,
    /// Rows that were inserted.
    rows: u64,
    /// Bytes of the row at hand. They keep their memory from row to row.
    key: Vec<u8>,
    entry: Vec<u8>,
}

/// What was collected since the last spill.
struct Collected {
    /// Rows, and entries of each index.
    buffers: Vec<Buffer>,
    memory: Reservation,
}

/// The way of the rows, or of the entries of one index, out of a part.
#[derive(Default)]
pub(super) struct Lane {
    /// What came in no order.
    pub(super) runs: Vec<Run>,
    /// What came in order.
    pub(super) stream: Option<Stream>,
    /// Bytes of records with which it is next seen whether they came in order.
    look: usize,
}

/// Runs of the rows and of each index, if there was anything of it, and the memory they were in.
type Spilled = (Vec<Option<Run>>, Collected);

impl std::fmt::Debug for TableLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableLoader").finish_non_exhaustive()
    }
}

impl Collected {
    fn new(shared: &Shared, indexes: usize) -> Self {
        Self {
            buffers: (0..=indexes).map(|_| Buffer::default()).collect(),
            memory: Reservation::new(shared.budget.clone()),
        }
    }

    fn bytes(&self) -> u64 {
        let bytes: usize = self.buffers.iter().map(Buffer::bytes).sum();
        bytes as u64
    }

    /// Sorts everything and writes it to the disk.
    fn spill(mut self, shared: &Shared) -> Result<Spilled> {
        let buffers = self.buffers.iter_mut();
        let runs = buffers.map(|buffer| match buffer.is_empty() {
            true => Ok(None),
            false => shared.runs.spill(buffer).map(Some),
        });
        let runs = runs.collect::<Result<_>>()?;
        Ok((runs, self))
    }
}

impl TableLoader {
    pub(super) fn new(shared: Arc<Shared>, space: Arc<TableSpace>) -> Self {
        shared.budget.enter();
        Self {
            collected: Collected::new(&shared, space.indexes.len()),
            lanes: (0..=space.indexes.len()).map(|_| Lane::default()).collect(),
            spilling: None,
            spare: None,
            finished: false,
            rows: 0,
            key: Vec::new(),
            entry: Vec::new(),
            shared,
            space,
        }
    }

    /// Adds a row: one value for each column of the table. After an error the load can only be
    /// given up.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row of the wrong length or too large, [`Error::KeyTooLong`], or
    /// [`Error::Io`] from spilling, which may be of rows before.
    pub fn insert(&mut self, row: &[Value]) -> Result<()> {
        self.insert_with(row, Value::as_ref)
    }

    /// Adds a row whose values lie elsewhere, such as in the bytes they came in. Otherwise as
    /// [`TableLoader::insert`].
    ///
    /// # Errors
    /// As [`TableLoader::insert`].
    pub fn insert_refs(&mut self, row: &[ValueRef<'_>]) -> Result<()> {
        self.insert_with(row, |value| *value)
    }

    /// Adds a row whose values are found by `value` in what is given for each column. Otherwise as
    /// [`TableLoader::insert`].
    ///
    /// # Errors
    /// As [`TableLoader::insert`].
    pub fn insert_with<'v, V>(
        &mut self,
        row: &'v [V],
        value: impl Fn(&'v V) -> ValueRef<'v>,
    ) -> Result<()> {
        let result = self.collect(row, value);
        if result.is_err() {
            self.shared.give_up();
        }
        result
    }

    fn collect<'v, V>(
        &mut self,
        row: &'v [V],
        value: impl Fn(&'v V) -> ValueRef<'v>,
    ) -> Result<()> {
        self.space.check_width(row.len())?;
        let value_at = |at: usize| row.get(at).map_or(ValueRef::Null, &value);
        self.key.clear();
        self.space.put_row_key(value_at, &mut self.key)?;
        let values = row.iter().map(&value);
        let version = self.shared.version;
        let Some((rows, entries)) = self.collected.buffers.split_first_mut() else {
            return Ok(());
        };
        // Rows are numbered when they are merged.
        rows.push_with(&self.key, loaded_len(values.clone()), |out| {
            put_loaded(out, version, values)
        })?;
        for (index, entries) in self.space.indexes.iter().zip(entries) {
            self.entry.clear();
            let offset = index.put_entry_key(value_at, &self.key, &mut self.entry);
            entries.push(&self.entry, &encode_entry(version, offset))?;
        }
        self.rows += 1;
        let bytes = self.collected.bytes();
        self.collected.memory.cover(bytes);
        if self.shared.streams {
            self.stream(false)?;
        }
        if self.shared.budget.is_full(bytes) {
            self.stream(true)?;
            self.spill()?;
        }
        Ok(())
    }

    /// Gives what came in order to the engine; with `all`, also little of it where it follows what
    /// was given before.
    fn stream(&mut self, all: bool) -> Result<()> {
        let lanes = self.lanes.iter_mut().zip(&mut self.collected.buffers);
        for (at, (lane, buffer)) in lanes.enumerate() {
            let enough = match &lane.stream {
                Some(_) => STREAM_BYTES,
                None => FIRST_BYTES,
            };
            let due = all || buffer.bytes() >= lane.look.max(enough);
            if !due || buffer.is_empty() {
                continue;
            }
            // Where this does not come to anything, the buffer is left alone until it is spilled.
            lane.look = usize::MAX;
            let stretches = &self.shared.stretches;
            let goes_on = match &mut lane.stream {
                Some(stream) => stream.takes(stretches, buffer),
                None if all => false,
                None => {
                    lane.stream = Stream::start(&self.shared, &self.space, at, buffer)?;
                    true
                }
            };
            if let Some(stream) = lane.stream.as_mut().filter(|_| goes_on) {
                stream.write(buffer)?;
                lane.look = 0;
            }
        }
        Ok(())
    }

    /// Hands over what was inserted.
    ///
    /// # Errors
    /// [`Error::Io`] from spilling.
    pub fn finish(mut self) -> Result<()> {
        self.stream(true)?;
        self.settle()?;
        self.spare = None;
        let bytes = self.collected.bytes();
        let mut memory = None;
        if self.shared.budget.keep(bytes) {
            let collected = self.take_collected();
            for (lane, buffer) in self.lanes.iter_mut().zip(collected.buffers) {
                if !buffer.is_empty() {
                    lane.runs.push(Run::Memory(buffer));
                }
            }
            memory = Some(collected.memory);
        } else {
            self.spill()?;
            self.settle()?;
        }
        let lanes = std::mem::take(&mut self.lanes);
        for range in 0..lanes.len() {
            let place = (self.space.table.id, range);
            self.shared.tally.came(place, self.rows);
        }
        self.shared.hand_over(self.space.table.id, lanes, memory);
        self.finished = true;
        Ok(())
    }

    /// Takes back what was inserted. The load goes on without it.
    ///
    /// # Errors
    /// [`Error::Io`], also from what was done with rows before.
    pub fn abandon(mut self) -> Result<()> {
        self.settle()?;
        for lane in std::mem::take(&mut self.lanes) {
            let stream = lane.stream.map(|stream| stream.abandon(&self.shared));
            stream.transpose()?;
            lane.runs.into_iter().try_for_each(Run::remove)?;
        }
        self.finished = true;
        Ok(())
    }

    /// Sorts and writes what was collected, while more is being collected.
    fn spill(&mut self) -> Result<()> {
        // INVARIANT: one spill at a time, so that what is collected and what is on its way to the
        // disk are two shares at most.
        self.settle()?;
        self.lanes.iter_mut().for_each(|lane| lane.look = 0);
        if self.collected.buffers.iter().all(Buffer::is_empty) {
            return Ok(());
        }
        let collected = self.take_collected();
        let shared = self.shared.clone();
        let write = move || collected.spill(&shared);
        let thread = std::thread::Builder::new().name("load-spill".into());
        let failed = |error| Error::io(self.shared.runs.path(), error);
        self.spilling = Some(thread.spawn(write).map_err(failed)?);
        if self.shared.budget.is_exceeded() {
            self.settle()?;
        }
        Ok(())
    }

    /// Waits for the spill that is under way.
    fn settle(&mut self) -> Result<()> {
        let Some(spilling) = self.spilling.take() else {
            return Ok(());
        };
        let panicked = |_| Error::Invalid("a spill of the load ended with a panic".into());
        let (runs, emptied) = spilling.join().map_err(panicked).flatten()?;
        for (lane, run) in self.lanes.iter_mut().zip(runs) {
            lane.runs.extend(run);
        }
        // Its memory is filled again, unless others need it more.
        if !self.shared.budget.is_exceeded() {
            self.spare = Some(emptied);
        }
        Ok(())
    }

    fn take_collected(&mut self) -> Collected {
        let fresh = || Collected::new(&self.shared, self.space.indexes.len());
        let empty = self.spare.take().unwrap_or_else(fresh);
        std::mem::replace(&mut self.collected, empty)
    }
}

impl Drop for TableLoader {
    fn drop(&mut self) {
        // INVARIANT: nothing writes to the directory when the load is gone, or it would write into
        // the next one.
        let settled = self.settle();
        if !self.finished || settled.is_err() {
            self.shared.give_up();
        }
        self.shared.budget.leave();
    }
}

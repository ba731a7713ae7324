//! Rows of one table on their way into a load.

use std::sync::Arc;
use std::thread::JoinHandle;

use kelvin_protocol::{Value, ValueRef};

use super::Shared;
use super::budget::Reservation;
use super::buffer::Buffer;
use super::run::Run;
use crate::archive::{RowEncoder, RowHead, encode_entry};
use crate::error::{Error, Result};
use crate::table_space::TableSpace;

/// Loads rows of one table, in any order. There may be several for one table, in several threads.
///
/// Dropping one without [`TableLoader::finish`] gives the whole load up.
pub struct TableLoader {
    shared: Arc<Shared>,
    space: Arc<TableSpace>,
    collected: Collected,
    /// Runs on disk, of the rows and of each index.
    spilled: Vec<Vec<Run>>,
    /// The one spill that is under way.
    spilling: Option<JoinHandle<Result<Spilled>>>,
    /// What the last spill emptied.
    spare: Option<Collected>,
    finished: bool,
    /// Bytes of the row at hand. They keep their memory from row to row.
    key: Vec<u8>,
    entry: Vec<u8>,
    encoder: RowEncoder,
}

/// What was collected since the last spill.
struct Collected {
    rows: Buffer,
    /// Entries of each index.
    entries: Vec<Buffer>,
    memory: Reservation,
}

/// Runs of the rows and of each index, and the memory they were in.
type Spilled = (Vec<Run>, Collected);

impl std::fmt::Debug for TableLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableLoader").finish_non_exhaustive()
    }
}

impl Collected {
    fn new(shared: &Shared, indexes: usize) -> Self {
        Self {
            rows: Buffer::default(),
            entries: (0..indexes).map(|_| Buffer::default()).collect(),
            memory: Reservation::new(shared.budget.clone()),
        }
    }

    fn bytes(&self) -> u64 {
        let entries: usize = self.entries.iter().map(Buffer::bytes).sum();
        (self.rows.bytes() + entries) as u64
    }

    /// Sorts everything and writes it to the disk.
    fn spill(mut self, shared: &Shared) -> Result<Spilled> {
        let buffers = std::iter::once(&mut self.rows).chain(&mut self.entries);
        let runs = buffers.map(|buffer| shared.runs.spill(buffer));
        let runs = runs.collect::<Result<_>>()?;
        Ok((runs, self))
    }
}

impl TableLoader {
    pub(super) fn new(shared: Arc<Shared>, space: Arc<TableSpace>) -> Self {
        shared.budget.enter();
        Self {
            collected: Collected::new(&shared, space.indexes.len()),
            spilled: (0..=space.indexes.len()).map(|_| Vec::new()).collect(),
            spilling: None,
            spare: None,
            finished: false,
            key: Vec::new(),
            entry: Vec::new(),
            encoder: RowEncoder::default(),
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
        self.insert_values(row, Value::as_ref)
    }

    /// Adds a row whose values lie elsewhere, such as in the bytes they came in. Otherwise as
    /// [`TableLoader::insert`].
    ///
    /// # Errors
    /// As [`TableLoader::insert`].
    pub fn insert_refs(&mut self, row: &[ValueRef<'_>]) -> Result<()> {
        self.insert_values(row, |value| *value)
    }

    fn insert_values<'v, V>(
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
        // Rows are numbered when they are merged.
        let head = RowHead {
            version,
            id: 0,
            layout: 0,
            older: &[],
        };
        let row = self.encoder.encode(head, values)?;
        self.collected.rows.push(&self.key, row)?;
        for (index, entries) in self.space.indexes.iter().zip(&mut self.collected.entries) {
            self.entry.clear();
            let offset = index.put_entry_key(value_at, &self.key, &mut self.entry);
            entries.push(&self.entry, &encode_entry(version, offset))?;
        }
        let bytes = self.collected.bytes();
        self.collected.memory.cover(bytes);
        if self.shared.budget.is_full(bytes) {
            self.spill()?;
        }
        Ok(())
    }

    /// Hands over what was inserted.
    ///
    /// # Errors
    /// [`Error::Io`] from spilling.
    pub fn finish(mut self) -> Result<()> {
        self.settle()?;
        self.spare = None;
        let bytes = self.collected.bytes();
        let mut memory = None;
        if self.shared.budget.keep(bytes) {
            let collected = self.take_collected();
            let buffers = std::iter::once(collected.rows).chain(collected.entries);
            for (runs, buffer) in self.spilled.iter_mut().zip(buffers) {
                if !buffer.is_empty() {
                    runs.push(Run::Memory(buffer));
                }
            }
            memory = Some(collected.memory);
        } else {
            self.spill()?;
            self.settle()?;
        }
        let spilled = std::mem::take(&mut self.spilled);
        self.shared.hand_over(&self.space, spilled, memory);
        self.finished = true;
        Ok(())
    }

    /// Sorts and writes what was collected, while more is being collected.
    fn spill(&mut self) -> Result<()> {
        // INVARIANT: one spill at a time, so that what is collected and what is on its way to the
        // disk are two shares at most.
        self.settle()?;
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
        for (all, run) in self.spilled.iter_mut().zip(runs) {
            all.push(run);
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

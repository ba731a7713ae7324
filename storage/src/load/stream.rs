//! Records that come in order of their keys, on their way into the engine while more of them come.
//!
//! A table that is mostly added to lies in the order of its key. What comes in order needs neither
//! sorting nor runs on disk: it is ingested at once, beside what else is collected.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Shared;
use super::budget::{Budget, Reservation};
use super::buffer::Buffer;
use super::writeback::Written;
use crate::archive::set_row_id;
use crate::error::{Error, Result};
use crate::table_space::TableSpace;
use crate::{RowId, TableId};

/// Bytes of records in order with which a stream begins. What is less is not worth a file, and a
/// thread, of its own.
pub(super) const FIRST_BYTES: usize = 4 << 20;
/// Bytes that are given to the engine at once after that: few enough to be in the processor's cache
/// still when they are read again.
pub(super) const STREAM_BYTES: usize = 512 << 10;
/// Bytes the engine holds of a file that it writes, besides those for each record.
const FILE_MEMORY: u64 = 1 << 20;
/// The same for each record: its hash, in memory that doubles.
const RECORD_MEMORY: u64 = 16;
/// Bytes of records after which the engine begins another file.
const FILE_BYTES: u64 = 64 << 20;

/// Numbers of the rows of a table.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    next: AtomicU64,
    /// How many went to rows that were taken back.
    unused: AtomicU64,
}

/// A table, and which of its ranges: the rows come first.
pub(super) type Place = (TableId, usize);

/// Stretches by their numbers. One that was given back is `None`.
type Taken = HashMap<Place, Vec<Option<Stretch>>>;

/// Stretches of keys that streams have taken.
#[derive(Debug, Default)]
pub(super) struct Stretches(Mutex<Taken>);

/// The first and the last key of a stream.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    first: Vec<u8>,
    last: Vec<u8>,
}

/// One ingestion that is open. Dropping it leaves out what it brought.
#[derive(Debug)]
pub(super) struct Stream {
    place: Place,
    /// Which of the stretches of that range is its own.
    number: usize,
    first: Vec<u8>,
    budget: Arc<Budget>,
    /// What it has of the budget for as long as the load takes.
    kept: u64,
    records: u64,
    bytes: u64,
    full: Option<SyncSender<Message>>,
    emptied: Receiver<Buffer>,
    /// Ends with how many records the engine got.
    thread: Option<JoinHandle<Result<u64>>>,
}

enum Message {
    Write(Buffer, Reservation),
    Finish,
}

impl Numbers {
    /// Takes so many. Returns the first.
    pub(super) fn take(&self, table: TableId, count: usize) -> Result<RowId> {
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        let end = first.checked_add(count as u64);
        let end = end.and_then(|end| RowId::try_from(end).ok());
        let first = RowId::try_from(first).ok();
        end.and(first).ok_or(Error::Exhausted(table))
    }

    /// The rows that so many numbers were taken for are none.
    fn take_back(&self, count: u64) {
        self.unused.fetch_add(count, Ordering::Relaxed);
    }

    /// The next one.
    pub(super) fn next(&self) -> RowId {
        RowId::try_from(self.next.load(Ordering::Relaxed)).unwrap_or(RowId::MAX)
    }

    /// How many rows have one.
    pub(super) fn rows(&self) -> u64 {
        u64::from(self.next()).saturating_sub(self.unused.load(Ordering::Relaxed))
    }
}

impl Stretches {
    fn all(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stretch that nobody has any key of. Returns its number.
    fn take(&self, range: Place, first: &[u8], last: &[u8]) -> Option<usize> {
        let mut all = self.all();
        let taken = all.entry(range).or_default();
        let mut others = taken.iter().flatten();
        if others.any(|other| other.overlaps(first, last)) {
            return None;
        }
        taken.push(Some(Stretch {
            first: first.to_vec(),
            last: last.to_vec(),
        }));
        Some(taken.len() - 1)
    }

    /// Makes a stretch longer, by keys behind it up to `last`. Returns whether it could be.
    fn extend(&self, range: Place, number: usize, from: &[u8], last: &[u8]) -> bool {
        let mut all = self.all();
        let taken = all.entry(range).or_default();
        let others = taken.iter().enumerate().filter(|(at, _)| *at != number);
        let mut others = others.filter_map(|(_, other)| other.as_ref());
        let own = taken.get(number).and_then(Option::as_ref);
        let Some(own) = own.filter(|own| from > own.last.as_slice()) else {
            return false;
        };
        if others.any(|other| other.overlaps(&own.first, last)) {
            return false;
        }
        if let Some(Some(own)) = taken.get_mut(number) {
            own.last = last.to_vec();
        }
        true
    }

    /// Gives a stretch back.
    fn give_back(&self, range: Place, number: usize) {
        if let Some(own) = self.all().entry(range).or_default().get_mut(number) {
            *own = None;
        }
    }

    /// What is taken of a range, in order.
    pub(super) fn of(&self, range: Place) -> Vec<Stretch> {
        let all = self.all();
        let taken = all.get(&range).into_iter().flatten().flatten();
        let mut taken: Vec<_> = taken.cloned().collect();
        taken.sort_unstable_by(|a, b| a.first.cmp(&b.first));
        taken
    }
}

impl Stretch {
    fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        self.first.as_slice() <= last && first <= self.last.as_slice()
    }

    /// Whether one of these, which are in order, has the key.
    pub(super) fn any_has(stretches: &[Self], key: &[u8]) -> bool {
        let behind = stretches.partition_point(|stretch| stretch.first.as_slice() <= key);
        let before = behind.checked_sub(1).and_then(|at| stretches.get(at));
        before.is_some_and(|stretch| key <= stretch.last.as_slice())
    }
}

impl Stream {
    /// Starts a stream with the records of `buffer`, if they are in order and nobody else has keys
    /// among theirs.
    pub(super) fn start(
        shared: &Shared,
        space: &Arc<TableSpace>,
        range: usize,
        buffer: &Buffer,
    ) -> Result<Option<Self>> {
        let Some((first, last)) = buffer.stretch() else {
            return Ok(None);
        };
        let budget = &shared.budget;
        if !budget.keep(FILE_MEMORY) {
            return Ok(None);
        }
        let place = (space.table.id, range);
        let Some(number) = shared.stretches.take(place, first, last) else {
            budget.give_back(FILE_MEMORY);
            return Ok(None);
        };
        let numbers = (range == 0).then(|| shared.numbers(space.table.id));
        // INVARIANT: a buffer is taken when the one before is written, so that a part has no more
        // than what it collects and as much again on its way.
        let (full, filled) = sync_channel(0);
        let (empty, emptied) = sync_channel(1);
        let (owned, writeback) = (space.clone(), shared.writeback.clone());
        let thread = std::thread::Builder::new().name("load-stream".into());
        let work = move || {
            let written = writeback.of(&owned.keyspace);
            work(&owned, numbers.as_deref(), written, filled, &empty)
        };
        let failed = |error| Error::io(shared.runs.path(), error);
        let thread = thread.spawn(work).map_err(failed)?;
        Ok(Some(Self {
            place,
            number,
            first: first.to_vec(),
            budget: budget.clone(),
            kept: FILE_MEMORY,
            records: 0,
            bytes: 0,
            full: Some(full),
            emptied,
            thread: Some(thread),
        }))
    }

    /// Whether the records of `buffer` can follow. Their stretch is its own then.
    pub(super) fn takes(&mut self, stretches: &Stretches, buffer: &Buffer) -> bool {
        let Some((first, last)) = buffer.stretch() else {
            return false;
        };
        let held = self.memory(buffer.records(), buffer.bytes());
        if !self.budget.keep(held.saturating_sub(self.kept)) {
            return false;
        }
        self.kept = self.kept.max(held);
        stretches.extend(self.place, self.number, first, last)
    }

    /// Bytes the engine may hold of a file with so many more records in it.
    fn memory(&self, records: usize, bytes: usize) -> u64 {
        let (records, bytes) = (self.records + records as u64, self.bytes + bytes as u64);
        let of_a_file = records.saturating_mul(FILE_BYTES) / bytes.max(1);
        FILE_MEMORY + records.min(of_a_file) * RECORD_MEMORY
    }

    /// Gives the records of `buffer`, whose stretch is its own, to the engine. `buffer` is empty
    /// then. Waits while records before them are written.
    pub(super) fn write(&mut self, buffer: &mut Buffer) -> Result<()> {
        self.records += buffer.records() as u64;
        self.bytes += buffer.bytes() as u64;
        let empty = self.emptied.try_recv().unwrap_or_default();
        let buffer = std::mem::replace(buffer, empty);
        let mut memory = Reservation::new(self.budget.clone());
        memory.cover(buffer.bytes() as u64);
        self.send(Message::Write(buffer, memory))
    }

    /// Makes what it brought part of the table. Returns of which range the engine got how many
    /// records.
    pub(super) fn finish(mut self) -> Result<(Place, u64)> {
        self.send(Message::Finish)?;
        Ok((self.place, self.join()?))
    }

    /// Takes back what it brought.
    pub(super) fn abandon(mut self, shared: &Shared) -> Result<()> {
        // Nothing of it counts once its thread has ended without being told to finish.
        self.join()?;
        let (table, range) = self.place;
        if range == 0 {
            shared.numbers(table).take_back(self.records);
        }
        shared.stretches.give_back(self.place, self.number);
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<()> {
        let full = self.full.as_ref();
        if full.is_some_and(|full| full.send(message).is_ok()) {
            return Ok(());
        }
        // It has failed, and says itself why.
        let ended = || Error::Invalid("a stream of the load ended early".into());
        self.join().and_then(|_| Err(ended()))
    }

    fn join(&mut self) -> Result<u64> {
        self.full = None;
        let panicked = |_| Error::Corrupt("the engine refused the load".into());
        match self.thread.take() {
            Some(thread) => thread.join().map_err(panicked).flatten(),
            None => Ok(0),
        }
    }

    /// First key.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // INVARIANT: nothing writes to the directory when the load is gone.
        if let Err(error) = self.join() {
            tracing::debug!(%error, "a stream of the load failed");
        }
        self.budget.give_back(self.kept);
    }
}

fn work(
    space: &TableSpace,
    numbers: Option<&Numbers>,
    mut written: Written<'_>,
    filled: Receiver<Message>,
    empty: &SyncSender<Buffer>,
) -> Result<u64> {
    let mut records = 0;
    let mut ingestion = space.keyspace.start_ingestion()?;
    for message in filled {
        let (buffer, memory) = match message {
            Message::Write(buffer, memory) => (buffer, memory),
            Message::Finish => {
                ingestion.finish()?;
                return Ok(records);
            }
        };
        written.add(buffer.bytes());
        let table = space.table.id;
        let first = numbers.map(|numbers| numbers.take(table, buffer.records()));
        let mut id = first.transpose()?;
        let number = |value: &mut [u8]| {
            if let Some(id) = &mut id {
                set_row_id(value, *id);
                *id = id.saturating_add(1);
            }
        };
        let buffer = buffer.hand_on(number, |key, value| {
            records += 1;
            Ok(ingestion.write(key, value)?)
        })?;
        drop(memory);
        // The part takes back what it can use.
        let _ = empty.try_send(buffer);
    }
    // The load is given up.
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_have_no_key_in_common() {
        let stretches = Stretches::default();
        let place = (TableId(1), 0);
        let one = stretches.take(place, b"b", b"d").unwrap();
        assert_eq!(stretches.take(place, b"d", b"e"), None);
        assert_eq!(stretches.take(place, b"a", b"z"), None);
        let two = stretches.take(place, b"h", b"k").unwrap();
        assert!(stretches.extend(place, one, b"e", b"g"));
        assert!(!stretches.extend(place, one, b"g", b"h"), "it has g");
        assert!(!stretches.extend(place, one, b"gg", b"h"), "another has h");
        assert!(
            !stretches.extend(place, one, b"x", b"z"),
            "another lies between"
        );
        assert!(stretches.extend(place, two, b"x", b"z"));
        assert!(stretches.take((TableId(1), 1), b"a", b"z").is_some());
        let taken = stretches.of(place);
        stretches.give_back(place, one);
        assert!(stretches.take(place, b"a", b"c").is_some());
        for (key, has) in [
            ("a", false),
            ("b", true),
            ("g", true),
            ("gg", false),
            ("z", true),
        ] {
            assert_eq!(Stretch::any_has(&taken, key.as_bytes()), has, "{key}");
        }
    }

    #[test]
    fn numbers_end_where_a_row_can_have_none() {
        let numbers = Numbers::default();
        assert_eq!(numbers.take(TableId(1), 5).unwrap(), 0);
        assert_eq!(numbers.take(TableId(1), 1).unwrap(), 5);
        numbers.take_back(2);
        assert_eq!((numbers.next(), numbers.rows()), (6, 4));
        assert!(numbers.take(TableId(1), usize::MAX / 2).is_err());
    }
}

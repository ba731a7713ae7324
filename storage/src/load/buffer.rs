//! Records that are collected in memory, and their order.
//!
//! A record lies in one piece as it lies in a file of a [`Run`](super::run::Run): the length of its
//! key, the length of its value, the key, the value. Pieces fill chunks that never move, so that a
//! record costs no allocation of its own, and what is sorted is places, not records.

use std::cmp::Ordering;
use std::ops::Range;

use fjall::Slice;

use super::chunk::Chunk;
use crate::error::{Error, Result};

/// Bytes of both lengths before a record.
pub(super) const LENGTHS: usize = 8;
/// Longest key and longest value. What is read back longer is damage.
pub(super) const MAX_PART: usize = 1 << 31;

/// Chunks grow with the buffer between these bounds, by an eighth of it.
const MIN_CHUNK: usize = 4 * 1024;
const MAX_CHUNK: usize = 1024 * 1024;
/// Records looked up at once.
const LOOK_AHEAD: usize = 32;

/// Records in memory that are not sorted yet.
#[derive(Debug)]
pub(crate) struct Buffer {
    chunks: Vec<Chunk>,
    /// Chunks of records that are gone, to be filled again.
    spare: Vec<Chunk>,
    /// Bytes of all chunks that are filled.
    capacity: usize,
    records: usize,
    last: Place,
    /// Whether each record came after those with smaller keys.
    ordered: bool,
    /// Bytes that all keys start with.
    shared: usize,
}

/// Where a record is, and the bytes of its key behind those that all keys share.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    prefix: u64,
    chunk: u32,
    at: u32,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            spare: Vec::new(),
            capacity: 0,
            records: 0,
            last: Place::default(),
            ordered: true,
            shared: usize::MAX,
        }
    }
}

impl Buffer {
    /// Adds a record.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is too long.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.push_with(key, value.len(), |out| {
            out.copy_from_slice(value);
            Ok(())
        })
    }

    /// Adds a record whose value is `length` bytes that `write` puts where they stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is too long; else that of `write`, after which the record
    /// has any value.
    pub(super) fn push_with(
        &mut self,
        key: &[u8],
        length: usize,
        write: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if key.len() > MAX_PART || length > MAX_PART {
            return Err(Error::Invalid(format!(
                "a record of {} bytes is too long",
                key.len().max(length)
            )));
        }
        if self.records > 0 {
            let last = self.key(self.last);
            let same = common_prefix(last, key);
            self.ordered &= last.get(same) < key.get(same);
            self.shared = self.shared.min(same);
        }
        let record = LENGTHS + key.len() + length;
        let chunk = self.chunk_for(record)?;
        let Some(bytes) = self.chunks.last_mut() else {
            return Ok(());
        };
        self.last = Place {
            prefix: 0,
            chunk,
            at: to_u32(bytes.filled().len())?,
        };
        self.records += 1;
        let value = write_record(bytes.append(record), key, length);
        write(value.ok_or_else(misplaced)?)
    }

    /// Bytes it takes, with what sorting it will take.
    pub(crate) fn bytes(&self) -> usize {
        self.capacity + self.records * size_of::<Place>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// The first and the last key, where each record came after those with smaller keys.
    pub(super) fn stretch(&self) -> Option<(&[u8], &[u8])> {
        let any = self.ordered && self.records > 0;
        any.then(|| (self.key(Place::default()), self.key(self.last)))
    }

    /// Calls `change` with the value of each record, then `take` with its key and its value, which
    /// may be kept. Gives an empty buffer in the memory of which nobody keeps a part.
    pub(super) fn hand_on(
        self,
        mut change: impl FnMut(&mut [u8]),
        mut take: impl FnMut(&[u8], Slice) -> Result<()>,
    ) -> Result<Self> {
        let mut shared = Vec::with_capacity(self.chunks.len());
        for mut chunk in self.chunks {
            let mut left = chunk.filled_mut();
            while let Some((value, rest)) = take_value_mut(left) {
                change(value);
                left = rest;
            }
            let end = chunk.filled().len();
            let chunk = chunk.share();
            let mut at = 0;
            while let Some((key, value)) = chunk.get(at..end).and_then(record_in) {
                let (key, value) = (
                    at + key.start..at + key.end,
                    at + value.start..at + value.end,
                );
                at = value.end;
                take(
                    chunk.get(key).unwrap_or_default(),
                    chunk.slice(value).into(),
                )?;
            }
            if at != end {
                return Err(misplaced());
            }
            shared.push(chunk);
        }
        Ok(Self {
            spare: shared.into_iter().filter_map(Chunk::reclaim).collect(),
            ..Self::default()
        })
    }

    /// Makes the last chunk one that takes `length` more bytes. Returns its number.
    fn chunk_for(&mut self, length: usize) -> Result<u32> {
        to_u32(length)?;
        if (self.chunks.last()).is_none_or(|chunk| chunk.room() < length) {
            let bytes = (self.capacity / 8).clamp(MIN_CHUNK, MAX_CHUNK).max(length);
            // One that is small has been filled before, too: there is no growing twice.
            let spare = self.spare.pop().filter(|chunk| chunk.capacity() >= length);
            let chunk = spare.unwrap_or_else(|| Chunk::new(bytes));
            self.capacity += chunk.capacity();
            self.chunks.push(chunk);
        }
        to_u32(self.chunks.len() - 1)
    }

    fn key(&self, place: Place) -> &[u8] {
        key_at(&self.chunks, place)
    }

    /// The records in order of their keys; equal keys follow one another.
    pub(super) fn into_sorted(self) -> Sorted {
        let mut order = None;
        if !self.ordered {
            let mut places = self.places();
            places.sort_unstable_by(|a, b| {
                a.prefix
                    .cmp(&b.prefix)
                    .then_with(|| compare_keys(&self.chunks, *a, *b))
            });
            order = Some(places);
        }
        Sorted {
            left: self.records,
            chunks: self.chunks,
            order,
            next: 0,
            ahead: Vec::with_capacity(LOOK_AHEAD),
            here: Record::default(),
        }
    }

    fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.records);
        let mut next = Some(Place::default());
        while let Some(place) = next.and_then(|place| settle(&self.chunks, place)) {
            let Some(record) = record_at(&self.chunks, place) else {
                break;
            };
            let unlike = record.key.start + self.shared..record.key.end;
            places.push(Place {
                prefix: prefix(bytes_at(&self.chunks, place.chunk, unlike)),
                ..place
            });
            next = record.end();
        }
        places
    }
}

/// Sorted records in memory, and the place of one of them.
#[derive(Debug)]
pub(super) struct Sorted {
    chunks: Vec<Chunk>,
    /// Where the records are, or `None` where that is one after the other.
    order: Option<Vec<Place>>,
    /// How many records have not been gone to.
    left: usize,
    /// How many of `order` have been looked up.
    next: usize,
    /// The next records, last first.
    ahead: Vec<Record>,
    here: Record,
}

/// Where the key and the value of a record are in its chunk.
#[derive(Clone, Debug, Default)]
struct Record {
    chunk: u32,
    key: Range<usize>,
    value: Range<usize>,
}

impl Sorted {
    /// Goes to the next record. `false` at the end.
    ///
    /// # Errors
    /// [`Error::Invalid`] where one that was collected is not found again.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        if self.ahead.is_empty() {
            self.look_ahead();
        }
        self.here = self.ahead.pop().ok_or_else(misplaced)?;
        self.left -= 1;
        Ok(true)
    }

    /// Looks up records some at a time. They are anywhere in memory: the processor fetches several
    /// at once if none of them is needed to find the next.
    fn look_ahead(&mut self) {
        let chunks = &self.chunks;
        if let Some(order) = &self.order {
            let places = order.iter().skip(self.next).take(LOOK_AHEAD);
            self.ahead
                .extend(places.map_while(|place| record_at(chunks, *place)));
            self.next += self.ahead.len();
            self.ahead.reverse();
        } else {
            let place = if self.here.value.end == 0 {
                Some(Place::default())
            } else {
                self.here.end()
            };
            let place = place.and_then(|place| settle(chunks, place));
            self.ahead
                .extend(place.and_then(|place| record_at(chunks, place)));
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        bytes_at(&self.chunks, self.here.chunk, self.here.key.clone())
    }

    /// The record that was gone to.
    pub(super) fn record(&self) -> (&[u8], &[u8]) {
        let value = bytes_at(&self.chunks, self.here.chunk, self.here.value.clone());
        (self.key(), value)
    }

    /// An empty buffer in the same memory.
    pub(super) fn into_empty(mut self) -> Buffer {
        self.chunks.iter_mut().for_each(Chunk::clear);
        Buffer {
            spare: self.chunks,
            ..Buffer::default()
        }
    }

    /// All records as they go into a file.
    ///
    /// # Errors
    /// As [`Sorted::advance`], and what `failed` makes of an error of `out`.
    pub(super) fn write_to(
        &mut self,
        out: &mut impl std::io::Write,
        failed: impl Fn(std::io::Error) -> Error,
    ) -> Result<()> {
        if self.order.is_none() {
            let mut chunks = self.chunks.iter();
            return chunks.try_for_each(|chunk| out.write_all(chunk.filled()).map_err(&failed));
        }
        while self.advance()? {
            let Record { chunk, key, value } = self.here.clone();
            let record = bytes_at(&self.chunks, chunk, key.start - LENGTHS..value.end);
            out.write_all(record).map_err(&failed)?;
        }
        Ok(())
    }
}

impl Record {
    /// Where the record after this one is, or the end of the chunk.
    fn end(&self) -> Option<Place> {
        let at = u32::try_from(self.value.end).ok()?;
        Some(Place {
            prefix: 0,
            chunk: self.chunk,
            at,
        })
    }
}

/// Appends a record. Returns where its value starts.
pub(super) fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<usize> {
    out.extend_from_slice(&to_u32(key.len())?.to_le_bytes());
    out.extend_from_slice(&to_u32(value.len())?.to_le_bytes());
    out.extend_from_slice(key);
    let start = out.len();
    out.extend_from_slice(value);
    Ok(start)
}

/// The first of these records, and the others.
pub(super) fn take_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, value) = lengths(records)?;
    let (key, rest) = records.get(LENGTHS..)?.split_at_checked(key)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some((key, value, rest))
}

/// Writes a record but for its value, for which there are `length` bytes. Returns where they are.
fn write_record<'o>(out: &'o mut [u8], key: &[u8], length: usize) -> Option<&'o mut [u8]> {
    let lengths = [key.len(), length].map(|length| u32::try_from(length).unwrap_or(u32::MAX));
    let (head, rest) = out.split_at_mut_checked(LENGTHS)?;
    let (first, second) = head.split_first_chunk_mut()?;
    *first = lengths[0].to_le_bytes();
    *second.first_chunk_mut()? = lengths[1].to_le_bytes();
    let (place, value) = rest.split_at_mut_checked(key.len())?;
    place.copy_from_slice(key);
    (value.len() == length).then_some(value)
}

/// The value of the first of these records, to be changed, and the others.
fn take_value_mut(records: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let value = record_in(records)?.1;
    let (head, rest) = records.split_at_mut_checked(value.end)?;
    Some((head.get_mut(value.start..)?, rest))
}

/// Where the key and the value of the record at the start of these bytes are.
fn record_in(records: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let (key, value) = lengths(records)?;
    let middle = LENGTHS + key;
    let end = middle.checked_add(value)?;
    (end <= records.len()).then_some((LENGTHS..middle, middle..end))
}

/// The lengths of a key and a value at the start of a record.
pub(super) fn lengths(record: &[u8]) -> Option<(usize, usize)> {
    let (key, rest) = record.split_first_chunk()?;
    let (value, _) = rest.split_first_chunk()?;
    let length = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize;
    Some((length(key), length(value)))
}

fn record_at(chunks: &[Chunk], place: Place) -> Option<Record> {
    let bytes = chunks.get(place.chunk as usize)?.filled();
    let (key, value) = lengths(bytes.get(place.at as usize..)?)?;
    let start = place.at as usize + LENGTHS;
    let middle = start + key;
    Some(Record {
        chunk: place.chunk,
        key: start..middle,
        value: middle..middle + value,
    })
}

fn bytes_at(chunks: &[Chunk], chunk: u32, range: Range<usize>) -> &[u8] {
    let chunk = chunks.get(chunk as usize);
    let bytes = chunk.and_then(|chunk| chunk.filled().get(range));
    bytes.unwrap_or_default()
}

fn key_at(chunks: &[Chunk], place: Place) -> &[u8] {
    record_at(chunks, place)
        .map(|record| bytes_at(chunks, record.chunk, record.key))
        .unwrap_or_default()
}

fn compare_keys(chunks: &[Chunk], a: Place, b: Place) -> Ordering {
    key_at(chunks, a).cmp(key_at(chunks, b))
}

/// This place, or the start of the next chunk if it is the end of one.
fn settle(chunks: &[Chunk], place: Place) -> Option<Place> {
    if place.at as usize >= chunks.get(place.chunk as usize)?.filled().len() {
        let chunk = place.chunk + 1;
        return (chunks.len() > chunk as usize).then(|| Place {
            chunk,
            ..Place::default()
        });
    }
    Some(place)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let unlike = a.iter().zip(b).position(|(a, b)| a != b);
    unlike.unwrap_or_else(|| a.len().min(b.len()))
}

/// Bytes that sort as a number. A short key sorts before the longer ones it starts, or equals them
/// here and is told apart by all of it.
fn prefix(bytes: &[u8]) -> u64 {
    if let Some(bytes) = bytes.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_be_bytes(padded)
}

/// A record that is not where it was put, which would be lost without a word.
fn misplaced() -> Error {
    Error::Invalid("a record that was collected cannot be found: please report this".into())
}

fn to_u32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::Invalid(format!("{length} bytes are too many")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(buffer: Buffer) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut sorted = buffer.into_sorted();
        let mut records = Vec::new();
        while sorted.advance().unwrap() {
            let (key, value) = sorted.record();
            records.push((key.to_vec(), value.to_vec()));
        }
        records
    }

    proptest! {
        #[test]
        fn records_come_out_in_the_order_of_their_keys(
            start in prop::collection::vec(any::<u8>(), 0..12),
            keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 0..200),
            ordered in any::<bool>(),
        ) {
            let mut expected: Vec<_> = keys
                .iter()
                .enumerate()
                .map(|(at, key)| ([&start[..], key].concat(), vec![7; at * 97 % 5000]))
                .collect();
            if ordered {
                expected.sort();
            }
            let mut buffer = Buffer::default();
            for (key, value) in &expected {
                buffer.push(key, value).unwrap();
            }
            let held: usize = expected.iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert!(buffer.bytes() >= held);
            let mut found = records(buffer);
            prop_assert!(found.is_sorted_by_key(|(key, _)| key.clone()));
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn records_that_are_handed_on_are_changed_and_stay_what_they_are_while_memory_is_used_again() {
        let mut buffer = Buffer::default();
        for round in 0u8..3 {
            for n in 0..1000u32 {
                buffer.push(&n.to_be_bytes(), &[round; 40]).unwrap();
            }
            let mut kept = Vec::new();
            let change = |value: &mut [u8]| value[0] = 9;
            let take = |key: &[u8], value: Slice| {
                kept.push((key.to_vec(), value));
                Ok(())
            };
            buffer = buffer.hand_on(change, take).unwrap();
            assert!(
                buffer.is_empty() && buffer.spare.is_empty(),
                "all of it is kept"
            );
            for n in 0..1000u32 {
                buffer.push(&n.to_be_bytes(), &[7; 40]).unwrap();
            }
            for (n, (key, value)) in (0u32..).zip(&kept) {
                assert_eq!(key[..], n.to_be_bytes());
                assert_eq!((value[0], &value[1..]), (9, &[round; 39][..]));
            }
            assert_eq!(kept.len(), 1000);
            buffer = buffer.hand_on(|_| {}, |_, _| Ok(())).unwrap();
            assert!(!buffer.spare.is_empty(), "nobody keeps any of it");
        }
    }

    #[test]
    fn a_record_that_is_not_found_again_is_an_error_and_not_the_end() {
        for keys in [[1u8, 2, 3], [3, 1, 2]] {
            let mut buffer = Buffer::default();
            for key in keys {
                buffer.push(&[key], b"value").unwrap();
            }
            let mut sorted = buffer.into_sorted();
            assert!(sorted.advance().unwrap());
            sorted.left += 1;
            assert!(sorted.advance().unwrap() && sorted.advance().unwrap());
            assert!(matches!(sorted.advance(), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn records_larger_than_a_chunk_are_held() {
        let mut buffer = Buffer::default();
        for key in [3u8, 1, 2] {
            buffer.push(&[key], &vec![key; 3 * MAX_CHUNK]).unwrap();
        }
        let found = records(buffer);
        assert!(found.iter().all(|(key, value)| value[0] == key[0]));
        assert_eq!(found.len(), 3);
        assert!(found.is_sorted());
    }
}

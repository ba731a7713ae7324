//! Bytes of stored rows and index entries.
//!
//! Both start with a format byte and the version since which they stand, big-endian, so that the
//! history can tell what is visible without looking further. A row goes on with its number, its
//! layout, the age of its index entries, how many values it has, a cell of fixed length for each and
//! the texts of all; an index entry with the offset of the primary key in its key.
//!
//! An entry stands since the row version that put it there, which is the row's own unless the row
//! says otherwise. So that a writer which takes an entry away knows since when it stood, and need
//! not read it, a row lists those of its entries that are older than itself.
//!
//! A row is checked where it leaves the engine and becomes a [`Record`]; from then on its values are
//! read in place. The engine's checksums tell damage of the disk, not whether the bytes were ever a
//! row. A text is checked once more where it is read: to keep a reference to it beside the bytes
//! takes memory of its own for each row, which costs several times as much.

use std::ops::Range;

use fjall::Slice;
use kelvin_protocol::{ValueRef, Version};
use simdutf8::basic::from_utf8;

use crate::error::{Error, Result};
use crate::evolution::Reading;
use crate::{IndexId, Row, RowId};

/// Format of rows and index entries.
const FORMAT: u8 = 3;

const SINCE: Range<usize> = 1..9;
const ROW_ID: Range<usize> = 9..13;
/// How many entries are older than the row; their list follows.
const OLDER: Range<usize> = 15..17;
const ROW_HEADER: usize = 17;
/// An index and since when the row's entry in it stands.
const OLDER_BYTES: usize = 10;
/// How many values follow, as many cells, and the texts.
const COUNT_BYTES: usize = 2;
const KEY_OFFSET: Range<usize> = 9..11;
const ENTRY_BYTES: usize = 11;

/// `since` of a row that came with the initial copy, whose version is known only at its end.
pub(crate) const LOADED: Version = 0;

/// A value: its kind, then eight bytes, big-endian; those of a text say where it begins and ends in
/// the texts of the row.
type Cell = [u8; CELL_BYTES];
const CELL_BYTES: usize = 9;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const BIG_INT: u8 = 4;
const STRING: u8 = 5;
const JSON: u8 = 6;

/// The cell of a value, whose text is put behind `texts`.
fn cell(value: ValueRef<'_>, texts: &mut String) -> Result<Cell> {
    let (cell, text) = cell_at(value, texts.len())?;
    texts.push_str(text);
    Ok(cell)
}

/// The cell of a value, and its text, which begins at `start` of the texts of the row.
fn cell_at(value: ValueRef<'_>, start: usize) -> Result<(Cell, &str)> {
    let (kind, bits, text) = match value {
        ValueRef::Null => (NULL, 0, ""),
        ValueRef::Bool(false) => (FALSE, 0, ""),
        ValueRef::Bool(true) => (TRUE, 0, ""),
        ValueRef::Number(value) => (NUMBER, value.to_bits(), ""),
        ValueRef::BigInt(value) => (BIG_INT, value.cast_unsigned(), ""),
        ValueRef::String(text) => (STRING, text_bits(start, text)?, text),
        ValueRef::Json(text) => (JSON, text_bits(start, text)?, text),
    };
    let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
    Ok(([kind, a, b, c, d, e, f, g, h], text))
}

/// Where a text begins and ends.
fn text_bits(start: usize, text: &str) -> Result<u64> {
    match (u32::try_from(start), u32::try_from(start + text.len())) {
        (Ok(start), Ok(end)) => Ok((u64::from(start) << 32) | u64::from(end)),
        _ => Err(Error::Invalid("a row of more than 4 GiB".into())),
    }
}

/// Whether a cell is of a kind there is, and its text, if it has one, among the texts of the row.
#[inline]
fn is_whole(cell: &Cell, texts: &str) -> bool {
    let [kind, bits @ ..] = cell;
    match *kind {
        NULL | FALSE | TRUE | NUMBER | BIG_INT => true,
        STRING | JSON => text_range(*bits).is_some_and(|range| texts.get(range).is_some()),
        _ => false,
    }
}

/// The value of a cell that is whole.
///
/// INVARIANT: there always is a `text`. That was seen when the bytes were read, and they never
/// change.
#[inline]
fn value_of<'t>(cell: &Cell, text: impl Fn(Range<usize>) -> Option<&'t str>) -> ValueRef<'t> {
    let [kind, bits @ ..] = cell;
    let number = u64::from_be_bytes(*bits);
    let text = |bits| text(text_range(bits)?);
    match *kind {
        FALSE => ValueRef::Bool(false),
        TRUE => ValueRef::Bool(true),
        NUMBER => ValueRef::Number(f64::from_bits(number)),
        BIG_INT => ValueRef::BigInt(number.cast_signed()),
        STRING => text(*bits).map_or(ValueRef::Null, ValueRef::String),
        JSON => text(*bits).map_or(ValueRef::Null, ValueRef::Json),
        _ => ValueRef::Null,
    }
}

/// Where a text begins and ends.
#[inline]
fn text_range(bits: [u8; 8]) -> Option<Range<usize>> {
    let [a, b, c, d, e, f, g, h] = bits;
    let [start, end] = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The checked bytes of a row. They stay where the engine has them, in a block of its cache or in
/// memory not yet flushed, and keep that alive; cloning shares them.
#[derive(Clone)]
pub(crate) struct Record {
    bytes: Slice,
    /// Where the cells begin.
    cells: u32,
    /// Where the texts begin.
    texts: u32,
}

/// What the bytes of a row say besides its values.
#[derive(Clone, Copy)]
struct Outline {
    version: Version,
    id: RowId,
    layout: u16,
    /// How many values there are.
    width: u16,
    /// Where the cells begin.
    cells: u32,
    /// Where the texts begin.
    texts: u32,
}

impl Outline {
    /// `None` for bytes that are not a row.
    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<ROW_HEADER>()?;
        let [FORMAT, a, b, c, d, e, f, g, h, rest_of_head @ ..] = *head else {
            return None;
        };
        let [i, j, k, l, m, n, o, p] = rest_of_head;
        let older = usize::from(u16::from_be_bytes([o, p])) * OLDER_BYTES;
        let (width, rest) = rest.get(older..)?.split_first_chunk()?;
        let width = u16::from_be_bytes(*width);
        let (cells, texts) = rest.split_at_checked(usize::from(width) * CELL_BYTES)?;
        let text = from_utf8(texts).ok()?;
        if !cells.as_chunks().0.iter().all(|cell| is_whole(cell, text)) {
            return None;
        }
        Some(Self {
            version: Version::from_be_bytes([a, b, c, d, e, f, g, h]),
            id: RowId::from_be_bytes([i, j, k, l]),
            layout: u16::from_be_bytes([m, n]),
            width,
            cells: u32::try_from(bytes.len() - rest.len()).ok()?,
            texts: u32::try_from(bytes.len() - texts.len()).ok()?,
        })
    }

    /// Why bytes are not a row.
    #[cold]
    fn fault(bytes: &[u8]) -> Error {
        match check_format(bytes) {
            Ok(()) => Error::Corrupt("unreadable row".into()),
            Err(error) => error,
        }
    }
}

impl Record {
    /// # Errors
    /// [`Error::Corrupt`] for bytes that are not a row.
    pub(crate) fn read(bytes: Slice) -> Result<Self> {
        match Outline::read(&bytes) {
            Some(outline) => Ok(Self::new(bytes, outline)),
            None => Err(Outline::fault(&bytes)),
        }
    }

    #[inline]
    fn new(bytes: Slice, outline: Outline) -> Self {
        let Outline { cells, texts, .. } = outline;
        Self {
            bytes,
            cells,
            texts,
        }
    }

    /// The cells and the texts.
    #[inline]
    fn parts(&self) -> (&[Cell], &[u8]) {
        let split = self.bytes.split_at_checked(self.texts as usize);
        let (head, texts) = split.unwrap_or_default();
        let cells = head.get(self.cells as usize..).unwrap_or_default();
        (cells.as_chunks().0, texts)
    }

    /// The bytes, as they are stored.
    pub(crate) fn bytes(&self) -> &Slice {
        &self.bytes
    }

    /// Since when the row's entry in an index stands.
    pub(crate) fn entry_since(&self, index: IndexId) -> Result<Version> {
        let bytes = self.bytes();
        let older = bytes.get(ROW_HEADER..older_end(bytes));
        let mut older = older.unwrap_or_default().chunks_exact(OLDER_BYTES);
        match older.find(|entry| entry.starts_with(&index.0.to_be_bytes())) {
            Some(entry) => array(entry, 2..OLDER_BYTES).map(Version::from_be_bytes),
            None => since(bytes),
        }
    }

    /// The value at this position; `None` beyond the last one.
    pub(crate) fn value(&self, at: usize) -> Option<ValueRef<'_>> {
        let (cells, texts) = self.parts();
        let text = |range| from_utf8(texts.get(range)?).ok();
        cells.get(at).map(|cell| value_of(cell, text))
    }

    /// All values. The texts are checked as a whole, which is quicker than one by one.
    #[inline]
    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = ValueRef<'_>> {
        let (cells, texts) = self.parts();
        let texts = from_utf8(texts).unwrap_or_default();
        cells
            .iter()
            .map(|cell| value_of(cell, |range| texts.get(range)))
    }
}

/// What a row has besides its values.
#[derive(Clone, Copy)]
pub(crate) struct RowHead<'a> {
    pub(crate) version: Version,
    pub(crate) id: RowId,
    /// Whose columns the values are.
    pub(crate) layout: u16,
    /// Entries that are older than the row.
    pub(crate) older: &'a [(IndexId, Version)],
}

/// Bytes of a row that came with the initial copy and has these values.
pub(crate) fn loaded_len<'v>(values: impl Iterator<Item = ValueRef<'v>>) -> usize {
    let head = ROW_HEADER + COUNT_BYTES;
    values.fold(head, |length, value| match value {
        ValueRef::String(text) | ValueRef::Json(text) => length + CELL_BYTES + text.len(),
        _ => length + CELL_BYTES,
    })
}

/// Puts a row that came with the initial copy, or beside it, into `out`, which is as long as
/// [`loaded_len`] says. It has no number yet, and no entry that is older.
///
/// # Errors
/// [`Error::Invalid`] for a row that is too large.
pub(crate) fn put_loaded<'v>(
    out: &mut [u8],
    version: Version,
    values: impl ExactSizeIterator<Item = ValueRef<'v>>,
) -> Result<()> {
    let length = || Error::Invalid("a row is not as long as its values say".into());
    let count = u16::try_from(values.len())
        .map_err(|_| Error::Invalid("a row has more than 65,535 values".into()))?;
    let (head, rest) = out
        .split_first_chunk_mut::<{ ROW_HEADER + COUNT_BYTES }>()
        .ok_or_else(length)?;
    head.fill(0);
    head[0] = FORMAT;
    head[SINCE].copy_from_slice(&version.to_be_bytes());
    head[ROW_HEADER..].copy_from_slice(&count.to_be_bytes());
    let cells = usize::from(count) * CELL_BYTES;
    let (cells, texts) = rest.split_at_mut_checked(cells).ok_or_else(length)?;
    let mut end = 0;
    for (place, value) in cells.as_chunks_mut().0.iter_mut().zip(values) {
        let (cell, text) = cell_at(value, end)?;
        *place = cell;
        let start = end;
        end += text.len();
        let text_place = texts.get_mut(start..end).ok_or_else(length)?;
        text_place.copy_from_slice(text.as_bytes());
    }
    if end == texts.len() {
        Ok(())
    } else {
        Err(length())
    }
}

/// Encodes rows one after another, in memory it keeps.
#[derive(Default)]
pub(crate) struct RowEncoder {
    texts: String,
    out: Vec<u8>,
}

impl RowEncoder {
    /// Bytes of a row.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row that is too large.
    pub(crate) fn encode<'v>(
        &mut self,
        head: RowHead<'_>,
        values: impl Iterator<Item = ValueRef<'v>>,
    ) -> Result<&[u8]> {
        let older = u16::try_from(head.older.len())
            .map_err(|_| Error::Invalid("a table has more than 65,535 indexes".into()))?;
        self.texts.clear();
        self.out.clear();
        let out = &mut self.out;
        out.push(FORMAT);
        out.extend_from_slice(&head.version.to_be_bytes());
        out.extend_from_slice(&head.id.to_be_bytes());
        out.extend_from_slice(&head.layout.to_be_bytes());
        out.extend_from_slice(&older.to_be_bytes());
        for (index, since) in head.older {
            out.extend_from_slice(&index.0.to_be_bytes());
            out.extend_from_slice(&since.to_be_bytes());
        }
        let count = out.len();
        out.extend_from_slice(&[0; COUNT_BYTES]);
        let mut values_so_far: u16 = 0;
        for value in values {
            values_so_far = values_so_far
                .checked_add(1)
                .ok_or_else(|| Error::Invalid("a row has more than 65,535 values".into()))?;
            out.extend_from_slice(&cell(value, &mut self.texts)?);
        }
        if let Some(slot) = out.get_mut(count..count + COUNT_BYTES) {
            slot.copy_from_slice(&values_so_far.to_be_bytes());
        }
        out.extend_from_slice(self.texts.as_bytes());
        Ok(&self.out)
    }
}

/// Writes the number of a row into its bytes.
pub(crate) fn set_row_id(bytes: &mut [u8], id: RowId) {
    if let Some(slot) = bytes.get_mut(ROW_ID) {
        slot.copy_from_slice(&id.to_be_bytes());
    }
}

/// The row in these bytes. `readings` say how each layout is read, `loaded_at` is the version of
/// rows that came with the initial copy.
///
/// # Errors
/// [`Error::Corrupt`] for bytes that are not a row of one of these layouts.
#[inline]
pub(crate) fn decode_row(bytes: Slice, readings: &[Reading], loaded_at: Version) -> Result<Row> {
    let Some(outline) = Outline::read(&bytes) else {
        return Err(Outline::fault(&bytes));
    };
    let reading = readings.get(usize::from(outline.layout));
    let reading = reading.filter(|reading| reading.width == usize::from(outline.width));
    let Some(reading) = reading else {
        return Err(Error::Corrupt(format!(
            "a row of {} values has layout {}, which its table does not know",
            outline.width, outline.layout
        )));
    };
    let version = match outline.version {
        LOADED => loaded_at,
        version => version,
    };
    let record = Record::new(bytes, outline);
    Ok(Row::new(
        version,
        outline.id,
        record,
        reading.sources.clone(),
    ))
}

/// Where the list of older entries ends.
#[inline]
fn older_end(bytes: &[u8]) -> usize {
    let older = array(bytes, OLDER).map_or(0, u16::from_be_bytes);
    ROW_HEADER + usize::from(older) * OLDER_BYTES
}

/// Bytes of an index entry whose primary key starts at `key_offset` of its key.
pub(crate) fn encode_entry(since: Version, key_offset: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRY_BYTES);
    out.push(FORMAT);
    out.extend_from_slice(&since.to_be_bytes());
    // Keys are shorter than 65,536 bytes, see `key`.
    out.extend_from_slice(&u16::try_from(key_offset).unwrap_or(u16::MAX).to_be_bytes());
    out
}

/// The primary key an index entry leads to.
pub(crate) fn entry_primary<'k>(key: &'k [u8], value: &[u8]) -> Result<&'k [u8]> {
    check_format(value)?;
    let offset = u16::from_be_bytes(array(value, KEY_OFFSET)?);
    key.get(usize::from(offset)..)
        .ok_or_else(|| Error::Corrupt("an index entry without a primary key".into()))
}

/// The version since which a row or an index entry stands.
#[inline]
pub(crate) fn since(bytes: &[u8]) -> Result<Version> {
    array(bytes, SINCE).map(Version::from_be_bytes)
}

#[inline]
fn check_format(bytes: &[u8]) -> Result<()> {
    match bytes.first() {
        Some(&FORMAT) => Ok(()),
        Some(other) => Err(Error::Corrupt(format!("unknown record format {other}"))),
        None => Err(Error::Corrupt("an empty record".into())),
    }
}

#[inline]
fn array<const N: usize>(bytes: &[u8], range: Range<usize>) -> Result<[u8; N]> {
    bytes
        .get(range)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::Corrupt("a record is cut short".into()))
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Value;
    use proptest::prelude::*;

    use super::*;

    fn encode(version: Version, id: RowId, values: &[Value]) -> Vec<u8> {
        let head = RowHead {
            version,
            id,
            layout: 0,
            older: &[(IndexId(3), 77), (IndexId(9), LOADED)],
        };
        let values = values.iter().map(Value::as_ref);
        RowEncoder::default().encode(head, values).unwrap().to_vec()
    }

    fn encode_loaded(version: Version, values: &[Value]) -> Vec<u8> {
        let values = values.iter().map(Value::as_ref);
        let mut bytes = vec![0xff; loaded_len(values.clone())];
        put_loaded(&mut bytes, version, values).unwrap();
        bytes
    }

    fn decode(bytes: &[u8], width: usize, loaded_at: Version) -> Result<Row> {
        let sources = None;
        decode_row(bytes.into(), &[Reading { width, sources }], loaded_at)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<f64>().prop_map(Value::Number),
            any::<i64>().prop_map(Value::BigInt),
            any::<String>().prop_map(Value::from),
            any::<String>().prop_map(|text| Value::Json(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_row_survives_its_archive(
            version in 1u64..,
            id in any::<u32>(),
            values in prop::collection::vec(any_value(), 0..9),
        ) {
            let bytes = encode(version, id, &values);
            let row = decode(&bytes, values.len(), 7).unwrap();
            prop_assert_eq!((row.version, row.id), (version, id));
            prop_assert_eq!(row.to_values(), values);
            let since = |index| row.record().entry_since(IndexId(index)).unwrap();
            prop_assert_eq!((since(3), since(9), since(4)), (77, LOADED, version));
        }

        #[test]
        fn a_loaded_row_is_encoded_like_any_other(
            version: Version,
            values in prop::collection::vec(any_value(), 0..9),
        ) {
            let head = RowHead { version, id: 0, layout: 0, older: &[] };
            let mut encoder = RowEncoder::default();
            let other = encoder.encode(head, values.iter().map(Value::as_ref)).unwrap();
            prop_assert_eq!(encode_loaded(version, &values), other);
            let values = values.iter().map(Value::as_ref);
            for length in 0..other.len() {
                let mut short = vec![0; length];
                prop_assert!(put_loaded(&mut short, version, values.clone()).is_err());
            }
        }

        #[test]
        fn damaged_rows_are_an_error_or_a_row_but_never_a_panic(
            values in prop::collection::vec(any_value(), 0..5),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(3, 4, &values);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes[..cut.index(bytes.len())], values.len(), 7);
            let _ = decode(&bytes, values.len(), 7);
        }
    }

    #[test]
    fn a_row_with_a_text_that_is_none_is_corrupt() {
        let values = [Value::from("first"), Value::from(3.0), Value::from("last")];
        let bytes = encode(3, 4, &values);
        let mut no_text = bytes.clone();
        *no_text.last_mut().unwrap() = 0xff;
        assert!(matches!(decode(&no_text, 3, 7), Err(Error::Corrupt(_))));
        // A text that begins within a character.
        let mut within = bytes;
        let end = within.len();
        within[end - 5..end - 3].copy_from_slice("é".as_bytes());
        assert!(matches!(decode(&within, 3, 7), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_loaded_row_has_the_version_of_the_load() {
        let mut bytes = encode_loaded(LOADED, &[Value::Null]);
        set_row_id(&mut bytes, 9);
        let row = decode(&bytes, 1, 77).unwrap();
        assert_eq!((row.version, row.id), (77, 9));
    }
}

//! Values as few bytes: whole numbers as what they are more or less than the ones before, names
//! as [`names`] packs them.

use std::ops::Range;

use kelvin_protocol::ValueRef;
use smallvec::SmallVec;

use super::names::{self, Form};

/// Bits of the first number of a value that say which kind it is of.
const KIND_BITS: u32 = 3;
/// Whole numbers beyond this are written as doubles: 2^53.
const MOST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Kinds of values. The rest of the first number is nothing, but for whole numbers, of which it is
/// the difference, and for texts, of which it is the length and the form.
const NULL: u64 = 0;
const FALSE: u64 = 1;
const TRUE: u64 = 2;
const WHOLE: u64 = 3;
const DOUBLE: u64 = 4;
const BIG_INT: u64 = 5;
const STRING: u64 = 6;
const JSON: u64 = 7;

/// Bits that say which form a text has.
const FORM_BITS: u32 = 2;
const PLAIN: u64 = 0;
/// Needs no length.
const UUID: u64 = 1;
const SIXES: u64 = 2;

/// Columns whose whole numbers are written as differences; those of further ones are as they are.
const DIFFERING: usize = 4;

/// What an entry's bytes depend on beside itself: the number before, and the last whole number
/// before in each column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    number: i64,
    wholes: [i64; DIFFERING],
}

impl Before {
    fn last_whole<'l>(&'l mut self, column: usize, zero: &'l mut i64) -> &'l mut i64 {
        *zero = 0;
        self.wholes.get_mut(column).unwrap_or(zero)
    }
}

/// Writes entries of some values and a number each.
pub(super) struct Writer {
    bytes: Vec<u8>,
    before: Before,
}

impl Writer {
    /// Goes on behind what was written so far, with room for about so many bytes in all.
    pub(super) fn behind(head: &[u8], before: Before, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(room.max(head.len()));
        bytes.extend_from_slice(head);
        Self { bytes, before }
    }

    pub(super) fn push(&mut self, values: &[ValueRef<'_>], number: i64) {
        let last = std::mem::replace(&mut self.before.number, number);
        write_varint(&mut self.bytes, zigzag(number.wrapping_sub(last)));
        let zero = &mut 0;
        for (column, value) in values.iter().enumerate() {
            let last = self.before.last_whole(column, zero);
            write_value(&mut self.bytes, *value, last);
        }
    }

    /// Adds what is left to read: as it is, from where it depends on the same.
    pub(super) fn push_rest(&mut self, reader: &mut Reader<'_>) {
        while self.before != reader.before {
            let Some((values, number)) = reader.next() else {
                return;
            };
            self.push(&values, number);
        }
        self.bytes.extend_from_slice(reader.bytes);
    }

    pub(super) fn finish(self) -> Box<[u8]> {
        self.bytes.into()
    }
}

fn write_value(bytes: &mut Vec<u8>, value: ValueRef<'_>, last: &mut i64) {
    let (kind, rest, tail): (u64, u64, &[u8]) = match value {
        ValueRef::Null => (NULL, 0, &[]),
        ValueRef::Bool(false) => (FALSE, 0, &[]),
        ValueRef::Bool(true) => (TRUE, 0, &[]),
        ValueRef::Number(number) => match whole(number) {
            Some(whole) => {
                let difference = whole.wrapping_sub(std::mem::replace(last, whole));
                (WHOLE, zigzag(difference), &[])
            }
            None => (DOUBLE, 0, &number.to_le_bytes()),
        },
        ValueRef::BigInt(int) => (BIG_INT, 0, &int.to_le_bytes()),
        ValueRef::String(text) => return write_text(bytes, STRING, names::form(text), text),
        ValueRef::Json(text) => return write_text(bytes, JSON, Form::Plain, text),
    };
    write_varint(bytes, (rest << KIND_BITS) | kind);
    bytes.extend_from_slice(tail);
}

fn write_text(bytes: &mut Vec<u8>, kind: u64, form: Form, text: &str) {
    let len = text.len() as u64;
    let rest = match form {
        Form::Plain => (len << FORM_BITS) | PLAIN,
        Form::Uuid => UUID,
        Form::Sixes => (len << FORM_BITS) | SIXES,
    };
    write_varint(bytes, (rest << KIND_BITS) | kind);
    names::pack(form, text, bytes);
}

/// Reads what a [`Writer`] wrote.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Values of an entry.
    width: usize,
    before: Before,
    /// Texts of the entry that are not there as they are.
    texts: Vec<u8>,
}

/// Values of an entry.
pub(super) type Values<'a> = SmallVec<[ValueRef<'a>; 4]>;
/// Columns whose texts were unpacked, and where each lies among these.
type Unpacked = SmallVec<[(usize, Range<usize>); 2]>;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], width: usize) -> Self {
        Self {
            bytes,
            width,
            before: Before::default(),
            texts: Vec::new(),
        }
    }

    /// Begins to read other bytes.
    pub(super) fn turn_to(&mut self, bytes: &'a [u8]) {
        self.bytes = bytes;
        self.before = Before::default();
    }

    /// What is left of other bytes, with what they depend on.
    pub(super) fn at(bytes: &'a [u8], before: Before, width: usize) -> Self {
        let mut reader = Self::new(bytes, width);
        reader.before = before;
        reader
    }

    /// The number of the entry that was read last.
    pub(super) fn number(&self) -> i64 {
        self.before.number
    }

    /// How many bytes are still to be read, and what they depend on.
    pub(super) fn left(&self) -> (usize, Before) {
        (self.bytes.len(), self.before)
    }

    /// The next entry; none behind the last, nor behind bytes that no writer wrote.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(Values<'_>, i64)> {
        let difference = unzigzag(read_varint(&mut self.bytes)?);
        self.before.number = self.before.number.wrapping_add(difference);
        self.texts.clear();
        let (mut values, mut unpacked) = (Values::new(), Unpacked::new());
        let zero = &mut 0;
        for column in 0..self.width {
            let first = read_varint(&mut self.bytes)?;
            let last = self.before.last_whole(column, zero);
            let value = match read_value(first, &mut self.bytes, last)? {
                Read::Value(value) => value,
                Read::Packed(form, len) => {
                    let from = self.texts.len();
                    let packed = take(&mut self.bytes, names::packed_len(form, len))?;
                    names::unpack(form, len, packed, &mut self.texts);
                    unpacked.push((column, from..self.texts.len()));
                    ValueRef::Null
                }
            };
            values.push(value);
        }
        for (column, range) in unpacked {
            let text = std::str::from_utf8(self.texts.get(range)?).ok()?;
            *values.get_mut(column)? = ValueRef::String(text);
        }
        Some((values, self.before.number))
    }
}

impl Reader<'_> {
    /// Passes over entries without a look at their texts; none if there are not so many.
    pub(super) fn skip(&mut self, entries: usize) -> Option<()> {
        for _ in 0..entries {
            let difference = unzigzag(read_varint(&mut self.bytes)?);
            self.before.number = self.before.number.wrapping_add(difference);
            let zero = &mut 0;
            for column in 0..self.width {
                let first = read_varint(&mut self.bytes)?;
                skip_value(first, &mut self.bytes, self.before.last_whole(column, zero))?;
            }
        }
        Some(())
    }
}

/// Passes over the value that begins with this number.
#[inline]
fn skip_value(first: u64, bytes: &mut &[u8], last: &mut i64) -> Option<()> {
    let rest = first >> KIND_BITS;
    let len = match first & ((1 << KIND_BITS) - 1) {
        NULL | FALSE | TRUE => 0,
        WHOLE => {
            *last = last.wrapping_add(unzigzag(rest));
            0
        }
        DOUBLE | BIG_INT => 8,
        _ => {
            let len = usize::try_from(rest >> FORM_BITS).ok()?;
            match rest & ((1 << FORM_BITS) - 1) {
                PLAIN => len,
                UUID => names::packed_len(Form::Uuid, names::UUID_CHARS),
                _ => names::packed_len(Form::Sixes, len),
            }
        }
    };
    take(bytes, len).map(|_| ())
}

/// A value, or what to unpack it from.
enum Read<'a> {
    Value(ValueRef<'a>),
    /// A text of so many characters.
    Packed(Form, usize),
}

/// Reads the value that begins with this number, as far as it is there as it is.
#[inline]
fn read_value<'a>(first: u64, bytes: &mut &'a [u8], last: &mut i64) -> Option<Read<'a>> {
    let rest = first >> KIND_BITS;
    Some(Read::Value(match first & ((1 << KIND_BITS) - 1) {
        NULL => ValueRef::Null,
        FALSE => ValueRef::Bool(false),
        TRUE => ValueRef::Bool(true),
        WHOLE => {
            *last = last.wrapping_add(unzigzag(rest));
            #[expect(clippy::cast_precision_loss, reason = "a double held it")]
            ValueRef::Number(*last as f64)
        }
        DOUBLE => ValueRef::Number(f64::from_le_bytes(read_eight(bytes)?)),
        BIG_INT => ValueRef::BigInt(i64::from_le_bytes(read_eight(bytes)?)),
        kind => {
            let len = usize::try_from(rest >> FORM_BITS).ok()?;
            match rest & ((1 << FORM_BITS) - 1) {
                PLAIN => {
                    let text = std::str::from_utf8(take(bytes, len)?).ok()?;
                    match kind {
                        STRING => ValueRef::String(text),
                        _ => ValueRef::Json(text),
                    }
                }
                UUID => return Some(Read::Packed(Form::Uuid, names::UUID_CHARS)),
                _ => return Some(Read::Packed(Form::Sixes, len)),
            }
        }
    }))
}

/// The number as an integer, if that is the same to the last bit.
fn whole(number: f64) -> Option<i64> {
    if number.abs() > MOST_WHOLE {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "its range was just checked"
    )]
    let whole = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "which is what is asked")]
    let same = (whole as f64).to_bits() == number.to_bits();
    same.then_some(whole)
}

/// Small numbers of either sign as small ones without.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[inline]
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    if *first < 0x80 {
        return Some(u64::from(*first));
    }
    let mut number = u64::from(*first & 0x7f);
    for shift in (7..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    Some(number)
}

fn read_eight(bytes: &mut &[u8]) -> Option<[u8; 8]> {
    let (eight, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*eight)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Value;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::Number),
            (-9e15..9e15_f64).prop_map(|number| Value::Number(number.round())),
            prop::sample::select(vec![-0.0, f64::NAN, f64::INFINITY, MOST_WHOLE, -MOST_WHOLE])
                .prop_map(Value::Number),
            any::<i64>().prop_map(Value::BigInt),
            ".{0,40}".prop_map(Value::from),
            "[-_0-9A-Za-z]{8,30}".prop_map(Value::from),
            "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".prop_map(Value::from),
            ".{0,9}".prop_map(|text| Value::Json(text.into())),
        ]
    }

    fn bits(value: ValueRef<'_>) -> (ValueRef<'_>, Option<u64>) {
        (value, value.as_f64().map(f64::to_bits))
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_to_the_last_bit(
            entries in prop::collection::vec((prop::collection::vec(value(), DIFFERING + 1), any::<i64>()), 0..20),
        ) {
            let mut writer = Writer::behind(&[], Before::default(), 0);
            for (values, number) in &entries {
                let values: Vec<_> = values.iter().map(Value::as_ref).collect();
                writer.push(&values, *number);
            }
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes, DIFFERING + 1);
            for (values, number) in &entries {
                let (found, number_found) = reader.next().unwrap();
                prop_assert_eq!(number_found, *number);
                prop_assert_eq!(found.len(), values.len());
                for (found, value) in found.iter().zip(values) {
                    prop_assert_eq!(bits(*found), bits(value.as_ref()));
                }
            }
            prop_assert!(reader.next().is_none());
        }

        #[test]
        fn what_is_passed_over_leaves_the_rest_as_it_is(
            entries in prop::collection::vec((prop::collection::vec(value(), DIFFERING + 1), any::<i64>()), 1..20),
        ) {
            let mut writer = Writer::behind(&[], Before::default(), 0);
            for (values, number) in &entries {
                let values: Vec<_> = values.iter().map(Value::as_ref).collect();
                writer.push(&values, *number);
            }
            let bytes = writer.finish();
            let mut read = Reader::new(&bytes, DIFFERING + 1);
            for passed in 0..=entries.len() {
                let mut skipping = Reader::new(&bytes, DIFFERING + 1);
                prop_assert_eq!(skipping.skip(passed), Some(()));
                prop_assert_eq!(skipping.left(), read.left());
                read.next();
            }
            let mut reader = Reader::new(&bytes, DIFFERING + 1);
            prop_assert_eq!(reader.skip(entries.len() + 1), None);
        }

        #[test]
        fn bytes_that_nobody_wrote_end_somewhere(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut reader = Reader::new(&bytes, 1);
            let mut entries = 0;
            while reader.next().is_some() {
                entries += 1;
            }
            prop_assert!(entries <= bytes.len());
            let mut reader = Reader::new(&bytes, 1);
            prop_assert_eq!(reader.skip(bytes.len() + 1), None);
        }
    }

    #[test]
    fn whole_numbers_that_lie_close_take_two_bytes_with_a_number_of_one() {
        let mut writer = Writer::behind(&[], Before::default(), 0);
        writer.push(&[ValueRef::Number(1.7e12)], 1 << 30);
        let first = writer.bytes.len();
        writer.push(&[ValueRef::Number(1.7e12 - 1000.0)], (1 << 30) + 60);
        assert_eq!(writer.bytes.len() - first, 3);
    }
}

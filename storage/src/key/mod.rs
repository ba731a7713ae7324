//! Memcomparable keys: byte strings that sort as ZQL sorts values.
//!
//! Every value starts with a tag that ranks its type; what follows sorts bytewise within the type.
//! No encoding is a prefix of another one, so encodings concatenate to compound keys, and inverting
//! all bytes of one reverses its order.

mod number;

use kelvin_protocol::{Direction, ValueRef};

/// First bytes of values, in the order of their types.
mod tag {
    pub(super) const NULL: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const LARGE_NEGATIVE: u8 = 0x04;
    /// A number whose whole part is zero. Around it are those of seven bytes at most.
    pub(super) const ZERO: u8 = 0x0c;
    pub(super) const LARGE_NUMBER: u8 = 0x14;
    pub(super) const STRING: u8 = 0x15;
    pub(super) const JSON: u8 = 0x16;
}

/// Ends a text. It and [`ESCAPE`] are written as `ESCAPE` and one more than the byte itself where
/// they are in a text.
const END: u8 = 0x00;
const ESCAPE: u8 = 0x01;

/// Largest encoded primary key in bytes. With the index part, the table number and a version it
/// stays below the 65,535 bytes the engine allows.
pub(crate) const MAX_PRIMARY_BYTES: usize = 24 * 1024;

/// Bytes all the columns of one index entry may take. Longer texts are cut, see [`IndexLimit`].
const MAX_INDEX_BYTES: usize = 32 * 1024;

/// Appends the encoding of `value`.
pub(crate) fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) {
    encode_cut(value, usize::MAX, out);
}

/// Appends the encodings of `values`, all ascending.
pub(crate) fn encode_all<'a>(
    values: impl IntoIterator<Item = impl Into<ValueRef<'a>>>,
    out: &mut Vec<u8>,
) {
    for value in values {
        encode(value.into(), out);
    }
}

/// How much of a text goes into an index entry.
///
/// PostgreSQL bounds its own index entries (after compression), but we also index columns it does
/// not. Beyond the limit, texts that agree this far sort by primary key only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexLimit(usize);

impl IndexLimit {
    /// The limit for each text in an index of this many columns.
    pub(crate) fn of(columns: usize) -> Self {
        Self(MAX_INDEX_BYTES / columns.max(1) - 16)
    }

    /// Appends `value` as an index column.
    pub(crate) fn encode(self, value: ValueRef<'_>, direction: Direction, out: &mut Vec<u8>) {
        let start = out.len();
        encode_cut(value, self.0, out);
        if direction == Direction::Desc {
            for byte in out.iter_mut().skip(start) {
                *byte = !*byte;
            }
        }
    }

    /// Whether the encoding of this value holds all of it.
    pub(crate) fn is_exact(self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::String(text) | ValueRef::Json(text) => text.len() <= self.0 / 2,
            _ => true,
        }
    }
}

fn encode_cut(value: ValueRef<'_>, limit: usize, out: &mut Vec<u8>) {
    match value {
        ValueRef::Null => out.push(tag::NULL),
        ValueRef::Bool(false) => out.push(tag::FALSE),
        ValueRef::Bool(true) => out.push(tag::TRUE),
        ValueRef::Number(number) => number::encode_double(number, out),
        ValueRef::BigInt(int) => number::encode_integer(int, out),
        ValueRef::String(text) => encode_text(tag::STRING, text, limit, out),
        ValueRef::Json(text) => encode_text(tag::JSON, text, limit, out),
    }
}

fn encode_text(tag: u8, text: &str, limit: usize, out: &mut Vec<u8>) {
    out.push(tag);
    let bytes = text.as_bytes();
    // An escape doubles a byte, so half the limit never exceeds it.
    let mut rest = bytes.get(..limit / 2).unwrap_or(bytes);
    while let Some(at) = rest.iter().position(|byte| *byte <= ESCAPE) {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (byte, behind) = escaped.split_first().unwrap_or((&END, &[]));
        out.extend_from_slice(&[ESCAPE, byte + 1]);
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(END);
}

/// The smallest byte string greater than every string that starts with `prefix`; `None` if there is
/// none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after: Vec<u8> = prefix.iter().take(last + 1).copied().collect();
    if let Some(byte) = after.last_mut() {
        *byte += 1;
    }
    Some(after)
}

#[cfg(test)]
mod tests;

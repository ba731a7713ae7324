//! Memcomparable keys: byte strings that sort as ZQL sorts values.
//!
//! Every value starts with a tag that ranks its type; what follows sorts bytewise within the type.
//! No encoding is a prefix of another one, so encodings concatenate to compound keys, and inverting
//! all bytes of one reverses its order.

use kelvin_protocol::{Direction, ValueRef};

const NULL: u8 = 0x01;
const FALSE: u8 = 0x02;
const TRUE: u8 = 0x03;
const NUMBER: u8 = 0x04;
const STRING: u8 = 0x05;
const JSON: u8 = 0x06;

/// What follows the double of a number: nothing more, or an exact integer.
const EXACT: u8 = 0x00;
const BIG: u8 = 0x01;

/// Ends a text. A zero byte within it is written as `ZERO, ESCAPED`.
const ZERO: u8 = 0x00;
const END: u8 = 0x01;
const ESCAPED: u8 = 0xff;

const SIGN: u64 = 1 << 63;

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
        ValueRef::Null => out.push(NULL),
        ValueRef::Bool(false) => out.push(FALSE),
        ValueRef::Bool(true) => out.push(TRUE),
        ValueRef::Number(number) => {
            out.push(NUMBER);
            out.extend_from_slice(&order_bits(number).to_be_bytes());
            out.push(EXACT);
        }
        ValueRef::BigInt(int) => {
            out.push(NUMBER);
            #[expect(
                clippy::cast_precision_loss,
                reason = "ordered by its double first, as ZQL does"
            )]
            let double = int as f64;
            out.extend_from_slice(&order_bits(double).to_be_bytes());
            out.push(BIG);
            out.extend_from_slice(&(int.cast_unsigned() ^ SIGN).to_be_bytes());
        }
        ValueRef::String(text) => encode_text(STRING, text, limit, out),
        ValueRef::Json(text) => encode_text(JSON, text, limit, out),
    }
}

fn encode_text(tag: u8, text: &str, limit: usize, out: &mut Vec<u8>) {
    out.push(tag);
    let bytes = text.as_bytes();
    // An escape doubles a byte, so half the limit never exceeds it.
    let bytes = bytes.get(..limit / 2).unwrap_or(bytes);
    let mut parts = bytes.split(|byte| *byte == ZERO);
    if let Some(first) = parts.next() {
        out.extend_from_slice(first);
    }
    for part in parts {
        out.extend_from_slice(&[ZERO, ESCAPED]);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[ZERO, END]);
}

/// Bits of a double that sort as doubles do, NaN last, and the two zeros as one.
fn order_bits(number: f64) -> u64 {
    let number = if number.is_nan() {
        f64::NAN
    } else {
        number + 0.0
    };
    let bits = number.to_bits();
    if number.is_nan() {
        u64::MAX
    } else if bits & SIGN == 0 {
        bits | SIGN
    } else {
        !bits
    }
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
#[path = "key_tests.rs"]
mod tests;

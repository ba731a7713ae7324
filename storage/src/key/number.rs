//! Numbers in keys. Most are small and whole, and take a few bytes: keys of up to twenty bytes need
//! no memory of their own in the engine.
//!
//! The tag tells the sign and how many bytes the whole part takes; those bytes follow, inverted
//! below zero. Then comes a mark: nothing more, an exact integer whose double this is, or a
//! fraction. What no double counts one by one (from 2^53 on), the infinities and NaN follow a tag
//! of their own as the bits of the double.

use super::tag;

/// What follows the whole part, or the bits of a large double. Below zero, a fraction makes a
/// number smaller.
const FRACTION_BELOW: u8 = 0x00;
const EXACT: u8 = 0x01;
const BIG: u8 = 0x02;
const FRACTION_ABOVE: u8 = 0x03;

const SIGN: u64 = 1 << 63;

/// From here on doubles are at least one apart.
const LARGE: f64 = 9_007_199_254_740_992.0;

/// Bytes of the largest whole part below [`LARGE`], and what the fraction then takes. With one byte
/// less of the whole part the fraction takes one more.
const WHOLE_BYTES: usize = 7;
const LEAST_FRACTION: usize = 1;

/// Appends a double: NaN last, and the two zeros as one.
pub(super) fn encode_double(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() || number.abs() >= LARGE {
        put_large(number, out);
        out.push(EXACT);
        return;
    }
    let (below, size) = (number < 0.0, number.abs());
    let whole = size.trunc();
    let length = put_whole(below, whole, out);
    let fraction = size - whole;
    if fraction == 0.0 {
        out.push(EXACT);
        return;
    }
    out.push(if below {
        FRACTION_BELOW
    } else {
        FRACTION_ABOVE
    });
    // A number below one can have bits at any distance; else they end where its precision does.
    let (bits, bytes) = if length == 0 {
        (size.to_bits(), size_of::<f64>())
    } else {
        let bytes = WHOLE_BYTES + LEAST_FRACTION - length;
        (shifted(fraction, bytes), bytes)
    };
    put_last(below, bits, bytes, out);
}

/// Appends an integer that no double holds, behind its double.
pub(super) fn encode_integer(int: i64, out: &mut Vec<u8>) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "ordered by its double first, as ZQL does"
    )]
    let double = int as f64;
    if double.abs() >= LARGE {
        put_large(double, out);
    } else {
        put_whole(double < 0.0, double.abs(), out);
    }
    out.push(BIG);
    out.extend_from_slice(&(int.cast_unsigned() ^ SIGN).to_be_bytes());
}

fn put_large(number: f64, out: &mut Vec<u8>) {
    let is_last = number.is_nan() || number > 0.0;
    out.push(if is_last {
        tag::LARGE_NUMBER
    } else {
        tag::LARGE_NEGATIVE
    });
    out.extend_from_slice(&order_bits(number).to_be_bytes());
}

/// Appends the tag and the whole part of a number. Returns the bytes of that part.
fn put_whole(below: bool, whole: f64, out: &mut Vec<u8>) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 0 to 2^53"
    )]
    let whole = whole as u64;
    let bits = u64::BITS - whole.leading_zeros();
    let length = bits.div_ceil(u8::BITS);
    // INVARIANT: at most seven, for which there are tags.
    let [.., length_byte] = length.to_be_bytes();
    out.push(if below {
        tag::ZERO - length_byte
    } else {
        tag::ZERO + length_byte
    });
    let length = usize::from(length_byte);
    put_last(below, whole, length, out);
    length
}

/// Appends the last bytes of a number, inverted if it is below zero.
fn put_last(below: bool, bits: u64, bytes: usize, out: &mut Vec<u8>) {
    let bits = if below { !bits } else { bits };
    let all = bits.to_be_bytes();
    out.extend(all.iter().skip(all.len().saturating_sub(bytes)));
}

/// A fraction as a whole number of so many bytes, seven at most.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "both the factor and the product are below 2^56, and the product has at most 53 bits"
)]
fn shifted(fraction: f64, bytes: usize) -> u64 {
    let factor = 1_u64 << (8 * bytes);
    (fraction * factor as f64) as u64
}

/// Bits of a double that sort as doubles do, NaN last.
fn order_bits(number: f64) -> u64 {
    let bits = number.to_bits();
    if number.is_nan() {
        u64::MAX
    } else if bits & SIGN == 0 {
        bits | SIGN
    } else {
        !bits
    }
}

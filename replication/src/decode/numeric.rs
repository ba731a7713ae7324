//! `numeric` → double, correctly rounded.

use super::DecodeError;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const POSITIVE_INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;

/// Reads the binary form: base-10,000 digits around a decimal point.
pub(super) fn from_binary(bytes: &[u8]) -> Result<f64, DecodeError> {
    let (header, digits) = bytes
        .split_first_chunk::<8>()
        .ok_or(DecodeError("a numeric is too short"))?;
    let [c0, c1, w0, w1, s0, s1, _scale0, _scale1] = *header;
    let count = usize::from(u16::from_be_bytes([c0, c1]));
    let weight = i32::from(i16::from_be_bytes([w0, w1]));
    let negative = match u16::from_be_bytes([s0, s1]) {
        NAN => return Ok(f64::NAN),
        POSITIVE_INFINITY => return Ok(f64::INFINITY),
        NEGATIVE_INFINITY => return Ok(f64::NEG_INFINITY),
        POSITIVE => false,
        NEGATIVE => true,
        _ => return Err(DecodeError("a numeric has an unknown sign")),
    };
    if digits.len() != count * 2 {
        return Err(DecodeError("a numeric has the wrong length"));
    }
    let digits = digits
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let magnitude = magnitude(
        digits,
        weight - i32::try_from(count).unwrap_or(i32::MAX) + 1,
    )?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// The number of these digits, of which the last counts 10,000^`exponent`.
fn magnitude(
    digits: impl ExactSizeIterator<Item = u16>,
    exponent: i32,
) -> Result<f64, DecodeError> {
    // Up to 15 decimal digits and a power of ten below 10^23 are exact as doubles, so that one
    // division or multiplication rounds correctly. Everything else goes through the text.
    if digits.len() <= 3 && (-5..=5).contains(&exponent) {
        let mut whole = 0.0;
        for digit in digits {
            whole = whole * 1e4 + f64::from(digit);
        }
        let power = 1e4_f64.powi(exponent.abs());
        return Ok(if exponent < 0 {
            whole / power
        } else {
            whole * power
        });
    }
    let mut text = String::with_capacity(digits.len() * 4 + 8);
    for digit in digits {
        let digit = digit.min(9999);
        for power in [1000, 100, 10, 1] {
            text.push(char::from(
                b'0' + u8::try_from(digit / power % 10).unwrap_or(0),
            ));
        }
    }
    text.push('e');
    text.push_str(&(exponent * 4).to_string());
    text.parse().map_err(|_| DecodeError("not a numeric"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(sign: u16, weight: i16, digits: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(digits.len()).unwrap().to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        bytes
    }

    #[test]
    fn digits_stand_around_the_decimal_point() {
        assert_eq!(from_binary(&encode(POSITIVE, 0, &[])), Ok(0.0));
        assert_eq!(from_binary(&encode(NEGATIVE, 0, &[12, 3400])), Ok(-12.34));
        assert_eq!(from_binary(&encode(POSITIVE, 5, &[1])), Ok(1e20));
        assert_eq!(
            from_binary(&encode(NEGATIVE_INFINITY, 0, &[])),
            Ok(f64::NEG_INFINITY)
        );
    }

    proptest! {
        #[test]
        fn the_short_way_rounds_as_the_text_does(
            digits in prop::collection::vec(0_u16..10_000, 1..=3),
            weight in -4_i16..5,
        ) {
            let exponent = i32::from(weight) - i32::try_from(digits.len()).unwrap() + 1;
            let text: String = digits.iter().map(|digit| format!("{digit:04}")).collect();
            let expected: f64 = format!("{text}e{}", exponent * 4).parse().unwrap();
            prop_assert_eq!(from_binary(&encode(POSITIVE, weight, &digits)), Ok(expected));
        }
    }
}

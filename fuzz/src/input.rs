//! Values from bytes.
//!
//! Everything is read from the front, lengths before contents, so that corpus files can be written
//! by hand and a mutation changes one thing.

use arbitrary::{Result, Unstructured};
use kelvin_protocol::{Direction, Value};

/// Numbers where mistakes are likely.
const NUMBERS: [f64; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::MIN_POSITIVE,
    9_007_199_254_740_992.0,
    -9_007_199_254_740_992.0,
    9_223_372_036_854_775_808.0,
    -9_223_372_036_854_775_808.0,
];

/// A list of up to `most` of something: its length, then its members.
pub(crate) fn list<'a, T>(
    input: &mut Unstructured<'a>,
    most: u8,
    member: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let length = input.arbitrary::<u8>()? % (most + 1);
    (0..length).map(|_| member(input)).collect()
}

/// A text: its length in bytes, then its bytes; what is not UTF-8 in them is replaced.
pub(crate) fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let length = usize::from(input.arbitrary::<u8>()?);
    let bytes = input.bytes(length.min(input.len()))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Any value.
pub(crate) fn value(input: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match input.arbitrary::<u8>()? % 8 {
        0 => Value::Null,
        1 => Value::Bool(input.arbitrary()?),
        2 => Value::Number(f64::from_bits(input.arbitrary()?)),
        3 => Value::from_i64(input.arbitrary()?),
        4 => Value::from(text(input)?),
        5 => Value::Json(text(input)?.into()),
        6 => Value::Number(f64::from(input.arbitrary::<i8>()?)),
        _ => {
            let at = usize::from(input.arbitrary::<u8>()?) % NUMBERS.len();
            Value::Number(NUMBERS[at])
        }
    })
}

/// A direction.
pub(crate) fn direction(input: &mut Unstructured<'_>) -> Result<Direction> {
    let descending = input.arbitrary::<u8>()? & 1 == 1;
    Ok(if descending {
        Direction::Desc
    } else {
        Direction::Asc
    })
}

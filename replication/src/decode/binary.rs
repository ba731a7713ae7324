//! The binary form of scalars, as send functions write it.

use std::fmt::Write;

use kelvin_protocol::{Value, ValueRef, Version};

use super::scalar::Scalar;
use super::{DecodeError, Decoded, datetime, network, numeric, utf8};
use crate::Lsn;

pub(super) fn decode(scalar: Scalar, bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    Ok(Decoded::Owned(match scalar {
        Scalar::Text | Scalar::Output => {
            return Ok(Decoded::Borrowed(ValueRef::String(utf8(bytes)?)));
        }
        Scalar::Json => return Ok(Decoded::Borrowed(ValueRef::Json(utf8(bytes)?))),
        Scalar::Jsonb => match bytes.split_first() {
            Some((1, text)) => return Ok(Decoded::Borrowed(ValueRef::Json(utf8(text)?))),
            _ => return Err(DecodeError("jsonb of an unknown version")),
        },
        Scalar::Bool => Value::Bool(u8::from_be_bytes(exact(bytes)?) != 0),
        Scalar::Int2 => Value::from_i64(i16::from_be_bytes(exact(bytes)?).into()),
        Scalar::Int4 => Value::from_i64(i32::from_be_bytes(exact(bytes)?).into()),
        Scalar::Int8 => Value::from_i64(i64::from_be_bytes(exact(bytes)?)),
        Scalar::Float4 => Value::from(shortest(f32::from_be_bytes(exact(bytes)?))),
        Scalar::Float8 => Value::from(f64::from_be_bytes(exact(bytes)?)),
        Scalar::Numeric => Value::from(numeric::from_binary(bytes)?),
        Scalar::Uuid => Value::from(uuid(exact(bytes)?)),
        Scalar::Date => Value::from(datetime::date_from_days(i32::from_be_bytes(exact(bytes)?))),
        Scalar::Timestamp | Scalar::Timestamptz => Value::from(datetime::timestamp_from_micros(
            i64::from_be_bytes(exact(bytes)?),
        )),
        Scalar::Time => {
            let micros = i64::from_be_bytes(exact(bytes)?);
            Value::from(datetime::time_from_micros(micros))
        }
        Scalar::Timetz => {
            let (micros, zone) = bytes
                .split_first_chunk()
                .ok_or(DecodeError("a timetz is too short"))?;
            let zone = i32::from_be_bytes(exact(zone)?);
            Value::from(datetime::timetz_from_micros(
                i64::from_be_bytes(*micros),
                zone,
            ))
        }
        Scalar::Inet => Value::from(network::inet(bytes)?),
        Scalar::Macaddr => Value::from(network::macaddr(bytes)),
        Scalar::PgLsn => {
            let lsn = Lsn(Version::from_be_bytes(exact(bytes)?));
            Value::from(lsn.to_string())
        }
    }))
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes
        .try_into()
        .map_err(|_| DecodeError("a value has the wrong length"))
}

/// The double that the shortest text of a float4 stands for, which is what the stream sends.
fn shortest(float: f32) -> f64 {
    float.to_string().parse().unwrap_or(f64::from(float))
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_float4_is_the_double_of_its_shortest_text() {
        let bytes = 0.1_f32.to_be_bytes();
        let value = decode(Scalar::Float4, &bytes).unwrap();
        assert_eq!(value.as_ref().as_f64(), Some(0.1));
    }

    #[test]
    fn a_value_of_the_wrong_length_is_an_error() {
        assert!(decode(Scalar::Int4, &[0, 0, 1]).is_err());
    }

    proptest! {
        #[test]
        fn floats_are_the_same_both_ways(bits: u32) {
            let float = f32::from_bits(bits);
            let bytes = float.to_be_bytes();
            let binary = decode(Scalar::Float4, &bytes).unwrap();
            let text = super::super::text::decode(Scalar::Float4, &float.to_string()).unwrap();
            prop_assert_eq!(binary.into_value(), text);
        }
    }
}

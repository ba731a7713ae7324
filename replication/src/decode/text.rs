//! The text form of scalars, as output functions print it under our session settings.

use kelvin_protocol::Value;

use super::scalar::Scalar;
use super::{DecodeError, datetime};

pub(super) fn decode(scalar: Scalar, text: &str) -> Result<Value, DecodeError> {
    Ok(match scalar {
        Scalar::Bool => match text {
            "t" => Value::Bool(true),
            "f" => Value::Bool(false),
            _ => return Err(DecodeError("a bool is neither t nor f")),
        },
        Scalar::Int2 | Scalar::Int4 | Scalar::Int8 => {
            let int = text.parse().map_err(|_| DecodeError("not an integer"))?;
            Value::from_i64(int)
        }
        // The shortest text of a float4, read as a double: 0.1 stays 0.1.
        Scalar::Float4 | Scalar::Float8 | Scalar::Numeric => {
            let number: f64 = text.parse().map_err(|_| DecodeError("not a number"))?;
            Value::from(number)
        }
        Scalar::Text
        | Scalar::Output
        | Scalar::Uuid
        | Scalar::Inet
        | Scalar::Macaddr
        | Scalar::PgLsn => Value::from(text),
        Scalar::Json | Scalar::Jsonb => Value::Json(text.into()),
        Scalar::Date => Value::from(datetime::date_from_text(text)?),
        Scalar::Timestamp | Scalar::Timestamptz => {
            Value::from(datetime::timestamp_from_text(text)?)
        }
        Scalar::Time => Value::from(datetime::time_from_text(text)?),
        Scalar::Timetz => Value::from(datetime::timetz_from_text(text)?),
    })
}

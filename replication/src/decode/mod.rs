//! PostgreSQL values → ZQL values, the same by copy and by stream.

mod array;
mod binary;
mod datetime;
mod json;
mod network;
mod numeric;
mod scalar;
mod text;

use kelvin_protocol::{Value, ValueRef};
use kelvin_storage::Column;

use self::scalar::Scalar;

pub(crate) use self::scalar::ElementKind;

/// A value that is not what its type promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DecodeError(pub(crate) &'static str);

/// A decoded value, which borrows its text where the bytes it came in are that text.
#[derive(Clone, Debug)]
pub(crate) enum Decoded<'a> {
    Borrowed(ValueRef<'a>),
    Owned(Value),
}

impl Decoded<'_> {
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Borrowed(value) => *value,
            Self::Owned(value) => value.as_ref(),
        }
    }

    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Borrowed(value) => value.to_value(),
            Self::Owned(value) => value,
        }
    }
}

/// Decodes the values of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    Scalar(Scalar),
    Array { element: Scalar, delimiter: u8 },
}

impl Decoder {
    /// The decoder for a column of the catalog.
    pub(crate) fn of(column: &Column) -> Self {
        let name = column.upstream_type.as_str();
        match name.strip_suffix("[]") {
            Some(element) => {
                let element = element.trim_end_matches("[]");
                Self::Array {
                    element: Scalar::of(element, column.type_oid),
                    delimiter: if element == "box" { b';' } else { b',' },
                }
            }
            None => Self::Scalar(Scalar::of(name, column.type_oid)),
        }
    }

    /// Whether [`Decoder::binary`] knows the type; else a binary copy asks for text.
    pub(crate) fn knows_binary(self) -> bool {
        match self {
            Self::Scalar(scalar)
            | Self::Array {
                element: scalar, ..
            } => scalar.knows_binary(),
        }
    }

    /// Whether [`Decoder::binary`] reads what the send function of the column's type writes.
    /// Without one, as for types of the extension isn, PostgreSQL sends text whatever it is asked
    /// for, but fails to send an array of them.
    pub(crate) fn reads_sent(column: &Column) -> bool {
        // The send function of an enum writes its label.
        Self::of(column).knows_binary() || scalar::is_enum(column)
    }

    /// Whether values of a column that is held can be asked for in binary form. A scalar without a
    /// decoder is an enum, or its type has no send function: both come as text.
    pub(crate) fn takes_binary(column: &Column) -> bool {
        match Self::of(column) {
            decoder @ Self::Array { .. } => decoder.knows_binary(),
            Self::Scalar(_) => true,
        }
    }

    /// Decodes PostgreSQL's text form of a value that is not null.
    pub(crate) fn text(self, bytes: &[u8]) -> Result<Value, DecodeError> {
        match self {
            Self::Scalar(scalar) => text::decode(scalar, utf8(bytes)?),
            Self::Array { element, delimiter } => {
                array::from_text(element, delimiter, utf8(bytes)?)
            }
        }
    }

    /// Decodes PostgreSQL's binary form of a value that is not null.
    pub(crate) fn binary(self, bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
        match self {
            Self::Scalar(scalar) => binary::decode(scalar, bytes),
            Self::Array { element, .. } => array::from_binary(element, bytes).map(Decoded::Owned),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| DecodeError("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, pick in 0..Scalar::ALL.len()) {
            let scalar = Scalar::ALL[pick];
            for decoder in [Decoder::Scalar(scalar), Decoder::Array { element: scalar, delimiter: b',' }] {
                let _ = decoder.text(&bytes);
                let _ = decoder.binary(&bytes);
            }
        }

        #[test]
        fn no_text_makes_a_decoder_panic(text in "[-0-9{}:,. +a-zN\"\\\\]{0,40}", pick in 0..Scalar::ALL.len()) {
            let scalar = Scalar::ALL[pick];
            for decoder in [Decoder::Scalar(scalar), Decoder::Array { element: scalar, delimiter: b',' }] {
                let _ = decoder.text(text.as_bytes());
            }
        }
    }
}

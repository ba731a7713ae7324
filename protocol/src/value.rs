//! ZQL values and their total order.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ValueRef;

/// The type a column has for ZQL and for the client schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// UTF-8 text.
    String,
    /// IEEE double; also every date and time type, in milliseconds.
    Number,
    /// `true` or `false`.
    Boolean,
    /// The type of a column that is always null.
    Null,
    /// Any JSON, including every PostgreSQL array.
    Json,
}

/// One ZQL value.
///
/// Cloning is cheap: text is shared.
#[derive(Clone, Debug)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number. Never `-0.0` where it came from [`Value::from`]; may be NaN or infinite, which
    /// JSON shows as `null`.
    Number(f64),
    /// An `int8` outside ±(2^53−1). It keeps its exact identity in keys, but a client cannot be sent
    /// it: a query that yields such a row fails alone.
    BigInt(i64),
    /// Text.
    String(Arc<str>),
    /// The text of a JSON value, as it stands in a poke.
    Json(Arc<str>),
}

/// Largest integer a JSON number can carry to a JavaScript client unharmed: 2^53 − 1.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

impl Value {
    /// A value from an `int8`: a [`Value::Number`] where that is exact, else a [`Value::BigInt`].
    #[must_use]
    pub fn from_i64(int: i64) -> Self {
        if (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&int) {
            #[expect(clippy::cast_precision_loss, reason = "the range was just checked")]
            Self::Number(int as f64)
        } else {
            Self::BigInt(int)
        }
    }

    /// Whether this is SQL NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is one that a double holds exactly.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The total order of ZQL: null first, false before true, numbers as IEEE doubles, strings by
    /// UTF-8 bytes. Values of unlike types, which only a faulty query can bring together, come in
    /// the order bool, number, string, json. NaN sorts after every other number and equals itself.
    #[must_use]
    pub fn zql_cmp(&self, other: &Self) -> Ordering {
        self.as_ref().zql_cmp(other.as_ref())
    }

    /// The value with its text borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Number(value) => ValueRef::Number(*value),
            Self::BigInt(value) => ValueRef::BigInt(*value),
            Self::String(text) => ValueRef::String(text),
            Self::Json(text) => ValueRef::Json(text),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.zql_cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        self.zql_cmp(other)
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl From<f64> for Value {
    /// Normalises `-0.0` to `0.0`, which ZQL does not tell apart.
    fn from(number: f64) -> Self {
        Self::Number(number + 0.0)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<&serde_json::Value> for Value {
    /// A scalar as it stands in a query literal; arrays and objects become [`Value::Json`].
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(int) => Self::from_i64(int),
                None => number.as_f64().map_or(Self::Null, Self::from),
            },
            serde_json::Value::String(text) => Self::String(text.as_str().into()),
            other => Self::Json(other.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_sorts_before_everything_and_equals_only_null() {
        for value in [Value::from(false), Value::from(-1e300), Value::from("")] {
            assert!(Value::Null < value);
        }
        assert_eq!(Value::Null, Value::Null);
    }

    #[test]
    fn strings_sort_by_utf8_bytes_not_utf16() {
        assert!(Value::from("\u{FF5E}") < Value::from("\u{1F600}"));
    }

    #[test]
    fn big_integers_keep_their_identity() {
        let (a, b) = (Value::from_i64(i64::MAX), Value::from_i64(i64::MAX - 1));
        assert!(b < a);
        assert!(Value::from_i64(MAX_SAFE_INTEGER) < a);
        assert!(matches!(
            Value::from_i64(MAX_SAFE_INTEGER),
            Value::Number(_)
        ));
    }
}

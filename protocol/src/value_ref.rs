//! Borrowed ZQL values, read where they lie.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use equivalent::Equivalent;

use crate::Value;

/// A ZQL value that borrows its text, such as a column of a stored row. Compares, hashes and equals
/// as the [`Value`] it stands for.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// See [`Value::Null`].
    Null,
    /// See [`Value::Bool`].
    Bool(bool),
    /// See [`Value::Number`].
    Number(f64),
    /// See [`Value::BigInt`].
    BigInt(i64),
    /// See [`Value::String`].
    String(&'a str),
    /// See [`Value::Json`].
    Json(&'a str),
}

impl<'a> ValueRef<'a> {
    /// Whether this is SQL NULL.
    #[must_use]
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is one that a double holds exactly.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The value by itself; copies its text.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(value) => Value::Number(value),
            Self::BigInt(value) => Value::BigInt(value),
            Self::String(text) => Value::String(text.into()),
            Self::Json(text) => Value::Json(text.into()),
        }
    }

    /// The total order of ZQL, see [`Value::zql_cmp`].
    #[must_use]
    pub fn zql_cmp(self, other: ValueRef<'_>) -> Ordering {
        match (self, other) {
            (Self::Null, ValueRef::Null) => Ordering::Equal,
            (Self::Bool(a), ValueRef::Bool(b)) => a.cmp(&b),
            (Self::Number(a), ValueRef::Number(b)) => cmp_f64(a, b),
            (Self::BigInt(a), ValueRef::BigInt(b)) => a.cmp(&b),
            #[expect(
                clippy::cast_precision_loss,
                reason = "an f64 never equals a BigInt's column"
            )]
            (Self::BigInt(a), ValueRef::Number(b)) => cmp_f64(a as f64, b).then(Ordering::Greater),
            #[expect(
                clippy::cast_precision_loss,
                reason = "an f64 never equals a BigInt's column"
            )]
            (Self::Number(a), ValueRef::BigInt(b)) => cmp_f64(a, b as f64).then(Ordering::Less),
            (Self::String(a), ValueRef::String(b)) | (Self::Json(a), ValueRef::Json(b)) => {
                a.as_bytes().cmp(b.as_bytes())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) | Self::BigInt(_) => 2,
            Self::String(_) => 3,
            Self::Json(_) => 4,
        }
    }
}

fn cmp_f64(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.zql_cmp(*other) == Ordering::Equal
    }
}

impl Eq for ValueRef<'_> {}

impl PartialEq<Value> for ValueRef<'_> {
    fn eq(&self, other: &Value) -> bool {
        *self == other.as_ref()
    }
}

impl Hash for ValueRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Number(value) if value.is_nan() => f64::NAN.to_bits().hash(state),
            Self::Number(value) => (value + 0.0).to_bits().hash(state),
            Self::BigInt(value) => value.hash(state),
            Self::String(value) | Self::Json(value) => value.hash(state),
        }
    }
}

impl Equivalent<Value> for ValueRef<'_> {
    /// Lets a map keyed by values be asked without copying text.
    fn equivalent(&self, key: &Value) -> bool {
        self == key
    }
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        value.as_ref()
    }
}

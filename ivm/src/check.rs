//! What a simple condition asks of one value.
//!
//! ZQL conditions are true or false, never unknown: a null on either side makes every operator but
//! IS and IS NOT false, negated ones included.

use std::cmp::Ordering;
use std::hash::RandomState;

use hashbrown::HashSet;
use kelvin_protocol::{Value, ValueRef};

use crate::like::Pattern;

/// An operator with its right side.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// `=` or IS with a non-null value.
    Equal(Value),
    /// `!=` with a non-null value.
    NotEqual(Value),
    /// IS NULL.
    IsNull,
    /// IS NOT NULL; also NOT IN of nothing.
    NotNull,
    /// IS NOT with a non-null value: true of null.
    Differs(Value),
    /// `<`.
    Less(Value),
    /// `<=`.
    AtMost(Value),
    /// `>`.
    Greater(Value),
    /// `>=`.
    AtLeast(Value),
    /// IN or NOT IN, of more than no value.
    Among {
        values: Box<HashSet<Value, RandomState>>,
        negated: bool,
    },
    /// LIKE, ILIKE and their negations.
    Like(Box<Like>),
}

/// A pattern, and whether it is to be met.
#[derive(Clone, Debug)]
pub(crate) struct Like {
    pub(crate) pattern: Pattern,
    pub(crate) source: String,
    pub(crate) ignore_case: bool,
    pub(crate) negated: bool,
}

impl Check {
    /// Whether `value` meets the condition.
    pub(crate) fn holds(&self, value: ValueRef<'_>) -> bool {
        match self {
            Self::Equal(right) => value == *right,
            Self::NotEqual(right) => !value.is_null() && value != *right,
            Self::IsNull => value.is_null(),
            Self::NotNull => !value.is_null(),
            Self::Differs(right) => value != *right,
            Self::Less(right) => compare(value, right.as_ref()).is_some_and(Ordering::is_lt),
            Self::AtMost(right) => compare(value, right.as_ref()).is_some_and(Ordering::is_le),
            Self::Greater(right) => compare(value, right.as_ref()).is_some_and(Ordering::is_gt),
            Self::AtLeast(right) => compare(value, right.as_ref()).is_some_and(Ordering::is_ge),
            Self::Among { values, negated } => {
                !value.is_null() && values.contains(&value) != *negated
            }
            Self::Like(like) => value
                .as_str()
                .is_some_and(|text| like.pattern.matches(text) != like.negated),
        }
    }
}

/// The order of two values of one type. Null and unlike types have none: ZQL never coerces.
fn compare(left: ValueRef<'_>, right: ValueRef<'_>) -> Option<Ordering> {
    use ValueRef::{BigInt, Bool, Json, Number, String};
    match (left, right) {
        (Bool(_), Bool(_))
        | (Number(_) | BigInt(_), Number(_) | BigInt(_))
        | (String(_), String(_))
        | (Json(_), Json(_)) => Some(left.zql_cmp(right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(values: &[Value], negated: bool) -> Check {
        Check::Among {
            values: Box::new(values.iter().cloned().collect()),
            negated,
        }
    }

    fn like(negated: bool) -> Check {
        Check::Like(Box::new(Like {
            pattern: Pattern::compile("a%", false).unwrap(),
            source: "a%".to_owned(),
            ignore_case: false,
            negated,
        }))
    }

    #[test]
    fn null_meets_only_is_null_and_is_not_a_value() {
        let one = Value::from(1.0);
        let no = [
            Check::Equal(one.clone()),
            Check::NotEqual(one.clone()),
            Check::NotNull,
            Check::Less(one.clone()),
            Check::AtMost(one.clone()),
            Check::Greater(one.clone()),
            Check::AtLeast(one.clone()),
            among(std::slice::from_ref(&one), false),
            among(std::slice::from_ref(&one), true),
            like(false),
            like(true),
        ];
        for check in no {
            assert!(!check.holds(ValueRef::Null), "{check:?}");
        }
        assert!(Check::IsNull.holds(ValueRef::Null));
        assert!(Check::Differs(one).holds(ValueRef::Null));
    }

    #[test]
    fn types_are_never_coerced() {
        let text = Value::from("1");
        assert!(!Check::Equal(Value::from(1.0)).holds(text.as_ref()));
        assert!(Check::NotEqual(Value::from(1.0)).holds(text.as_ref()));
        assert!(!Check::Equal(Value::from(1.0)).holds(Value::from(true).as_ref()));
        for check in [
            Check::Less(Value::from(2.0)),
            Check::AtLeast(Value::from(2.0)),
            Check::Greater(Value::from(0.0)),
        ] {
            assert!(!check.holds(text.as_ref()), "{check:?}");
        }
    }

    #[test]
    fn ranges_follow_the_order_of_values() {
        let five = Value::from(5.0);
        assert!(Check::Less(Value::from(6.0)).holds(five.as_ref()));
        assert!(!Check::Less(five.clone()).holds(five.as_ref()));
        assert!(Check::AtMost(five.clone()).holds(five.as_ref()));
        assert!(Check::AtLeast(five.clone()).holds(five.as_ref()));
        assert!(!Check::Greater(five.clone()).holds(five.as_ref()));
        assert!(Check::Less(Value::from("\u{1F600}")).holds(Value::from("\u{FF5E}").as_ref()));
        assert!(Check::Less(Value::from(true)).holds(Value::from(false).as_ref()));
    }

    #[test]
    fn membership_is_by_identity() {
        let values = [Value::from(1.0), Value::from("a")];
        assert!(among(&values, false).holds(Value::from("a").as_ref()));
        assert!(!among(&values, false).holds(Value::from("1").as_ref()));
        assert!(among(&values, true).holds(Value::from("1").as_ref()));
        assert!(!among(&values, true).holds(Value::from(1.0).as_ref()));
    }
}

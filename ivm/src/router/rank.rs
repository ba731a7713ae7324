//! Values as numbers in the same order, as far as a number goes.

use kelvin_protocol::ValueRef;

use super::interval::Edge;

/// Bits of a rank that tell values of one type apart; those above are for the type.
const VALUE_BITS: u32 = 61;

/// A number that is not greater than that of any value which comes after this one.
pub(super) fn rank(value: ValueRef<'_>) -> u64 {
    let (kind, within) = match value {
        ValueRef::Null => (0, 0),
        ValueRef::Bool(truth) => (1, u64::from(truth)),
        ValueRef::Number(number) => (2, of_double(number)),
        #[expect(clippy::cast_precision_loss, reason = "which keeps the order")]
        ValueRef::BigInt(int) => (2, of_double(int as f64)),
        ValueRef::String(text) => (3, of_text(text)),
        ValueRef::Json(text) => (4, of_text(text)),
    };
    (kind << VALUE_BITS) | within
}

/// The rank of the value at a low edge; the least of all where there is none.
pub(super) fn rank_of_low(edge: Option<&Edge>) -> u64 {
    edge.map_or(0, |edge| rank(edge.value.as_ref()))
}

/// The rank of the value at a high edge; greater than all where there is none.
pub(super) fn rank_of_high(edge: Option<&Edge>) -> u64 {
    edge.map_or(u64::MAX, |edge| rank(edge.value.as_ref()))
}

/// The bits of a double, turned so that they sort as it does.
fn of_double(number: f64) -> u64 {
    if number.is_nan() {
        return u64::MAX >> (u64::BITS - VALUE_BITS);
    }
    // Negative zero is zero.
    let bits = (number + 0.0).to_bits();
    let sign = 1 << (u64::BITS - 1);
    let sorted = if bits & sign == 0 { bits | sign } else { !bits };
    sorted >> (u64::BITS - VALUE_BITS)
}

fn of_text(text: &str) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    u64::from_be_bytes(first) >> (u64::BITS - VALUE_BITS)
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Value;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-3..3_i8).prop_map(|n| Value::from(f64::from(n))),
            any::<i64>().prop_map(Value::from_i64),
            Just(Value::from(f64::NAN)),
            ".{0,9}".prop_map(Value::from),
            "(same start ){0,2}[a-c]{0,2}".prop_map(Value::from),
            "[a-c]{0,2}".prop_map(|text| Value::Json(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn ranks_never_contradict_the_order_of_values(a in value(), b in value()) {
            let (ranked_a, ranked_b) = (rank(a.as_ref()), rank(b.as_ref()));
            if a.zql_cmp(&b).is_lt() {
                prop_assert!(ranked_a <= ranked_b);
            } else if a.zql_cmp(&b).is_eq() {
                prop_assert_eq!(ranked_a, ranked_b);
            }
            prop_assert!(ranked_a < u64::MAX);
        }
    }
}

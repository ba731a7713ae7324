use std::cmp::Ordering;

use proptest::prelude::*;

use kelvin_protocol::Value;

use super::*;

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(Value::Number),
        (-4i32..4).prop_map(|n| Value::Number(f64::from(n))),
        (-70_000i32..70_000).prop_map(|n| Value::Number(f64::from(n) / 16.0)),
        around_a_power(),
        prop_oneof![
            Just(f64::NAN),
            Just(-f64::NAN),
            Just(-0.0),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(9_007_199_254_740_992.0),
            Just(9_223_372_036_854_775_807.0),
            Just(-9_223_372_036_854_775_808.0)
        ]
        .prop_map(Value::Number),
        any::<i64>().prop_map(Value::from_i64),
        prop_oneof![
            (0i64..2000).prop_map(|n| i64::MAX - n),
            (0i64..2000).prop_map(|n| i64::MIN + n),
            (0i64..9).prop_map(|n| (1 << 53) + n),
        ]
        .prop_map(Value::from_i64),
        "[\\x00-\\x02ab\u{FF5E}\u{1F600}]{0,4}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x02ab]{0,3}".prop_map(|text| Value::Json(text.into())),
    ]
}

/// Numbers next to where the whole part takes another byte, of either sign, and the closest doubles
/// to them.
fn around_a_power() -> impl Strategy<Value = Value> {
    (0i32..60, -1i8..2, any::<bool>()).prop_map(|(power, step, below)| {
        let number = 2f64.powi(power);
        let number = match step {
            -1 => number.next_down(),
            0 => number,
            _ => number.next_up(),
        };
        Value::Number(if below { -number } else { number })
    })
}

fn encoded(values: &[Value], directions: &[Direction]) -> Vec<u8> {
    let mut out = Vec::new();
    for (value, direction) in values.iter().zip(directions) {
        IndexLimit::of(values.len()).encode(value.as_ref(), *direction, &mut out);
    }
    out
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Asc), Just(Direction::Desc)]
}

fn compare(a: &[Value], b: &[Value], directions: &[Direction]) -> Ordering {
    a.iter()
        .zip(b)
        .zip(directions)
        .map(|((a, b), direction)| match direction {
            Direction::Asc => a.zql_cmp(b),
            Direction::Desc => b.zql_cmp(a),
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn compound_keys_sort_as_zql_sorts_the_values(
        a in prop::collection::vec(any_value(), 3),
        b in prop::collection::vec(any_value(), 3),
        shared in 0usize..3,
        directions in prop::collection::vec(direction(), 3),
    ) {
        let mut b = b;
        b[..shared].clone_from_slice(&a[..shared]);
        let (ka, kb) = (encoded(&a, &directions), encoded(&b, &directions));
        prop_assert_eq!(ka.cmp(&kb), compare(&a, &b, &directions));
    }

    #[test]
    fn no_key_is_a_prefix_of_another(a in any_value(), b in any_value(), direction in direction()) {
        let (ka, kb) = (encoded(&[a], &[direction]), encoded(&[b], &[direction]));
        prop_assert!(ka == kb || !kb.starts_with(&ka));
    }

    #[test]
    fn after_prefix_is_the_least_upper_bound(
        prefix in prop::collection::vec(any::<u8>(), 1..5),
        tail in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut key = prefix.clone();
        key.extend(&tail);
        match after_prefix(&prefix) {
            None => prop_assert!(prefix.iter().all(|byte| *byte == 0xff)),
            Some(after) => prop_assert!(key < after),
        }
    }
}

#[test]
fn small_whole_numbers_take_few_bytes_and_no_double_more_than_ten() {
    let length = |number: f64| {
        let mut out = Vec::new();
        encode(ValueRef::Number(number), &mut out);
        out.len()
    };
    let lengths = [0.0, 1.0, -255.0, 256.0, 1_764_000_000_000.0].map(length);
    assert_eq!(lengths, [2, 3, 3, 4, 8]);
    let most = [0.1, -0.1, 1.1, 1_764_000_000_000.125, 1e300, f64::NAN].map(length);
    assert_eq!(most, [10; 6]);
}

#[test]
fn texts_beyond_the_limit_are_cut_and_say_so() {
    let limit = IndexLimit::of(1);
    let long = Value::from("x".repeat(100_000));
    let mut out = Vec::new();
    limit.encode(long.as_ref(), Direction::Asc, &mut out);
    assert!(out.len() < MAX_INDEX_BYTES);
    assert!(!limit.is_exact(long.as_ref()));
    assert!(limit.is_exact(ValueRef::String("x")));
}

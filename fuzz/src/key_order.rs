//! Keys of the storage engine.

use std::cmp::Ordering;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use arbitrary::{Result, Unstructured};
use kelvin_protocol::{Direction, Value};
use kelvin_storage::fuzzing::index_key;

use crate::input::{direction, value};

/// Two compound keys of up to four columns: directions, then the columns of both in turn. Their
/// bytes sort as ZQL sorts the values, a descending column the other way round; no key is a prefix
/// of another; equal values hash alike.
pub fn key_order(data: &[u8]) {
    let _ = check(&mut Unstructured::new(data));
}

fn check(input: &mut Unstructured<'_>) -> Result<()> {
    let width = 1 + input.arbitrary::<u8>()? % 4;
    let directions = (0..width)
        .map(|_| direction(input))
        .collect::<Result<Vec<_>>>()?;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..width {
        a.push(value(input)?);
        let same = input.arbitrary::<u8>()? & 1 == 1;
        let other = a.last().filter(|_| same).cloned();
        b.push(other.map_or_else(|| value(input), Ok)?);
    }
    let (key_a, key_b) = (index_key(&a, &directions), index_key(&b, &directions));
    let expected = compare(&a, &b, &directions);
    assert_eq!(key_a.cmp(&key_b), expected, "{a:?} {b:?} {directions:?}");
    if expected.is_ne() {
        assert!(!key_a.starts_with(&key_b) && !key_b.starts_with(&key_a));
    } else {
        assert_eq!(hash(&a), hash(&b), "{a:?} {b:?}");
    }
    Ok(())
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

fn hash(values: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

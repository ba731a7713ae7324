//! Values of PostgreSQL.

use kelvin_protocol::{Value, ValueType};
use kelvin_replication::fuzzing;

use crate::tables::every_type;

/// One value: the number of its type, whether it is binary, its bytes. It is decoded or refused,
/// numbers have no negative zero, and an array comes to JSON.
pub fn decode(data: &[u8]) {
    let [kind, binary, bytes @ ..] = data else {
        return;
    };
    let table = every_type();
    let column = &table.columns[usize::from(*kind) % table.columns.len()];
    let Ok(value) = fuzzing::decode(column, binary & 1 == 1, bytes) else {
        return;
    };
    match (&value, column.value_type) {
        (Value::Number(number), ValueType::Number) => {
            assert!(*number != 0.0 || number.is_sign_positive(), "{column:?}");
        }
        (Value::Json(json), ValueType::Json) if column.upstream_type.ends_with(']') => {
            let parsed = serde_json::from_str::<serde_json::Value>(json);
            assert!(parsed.is_ok_and(|value| value.is_array()), "{json:?}");
        }
        (Value::BigInt(_), ValueType::Number)
        | (Value::Bool(_), ValueType::Boolean)
        | (Value::String(_), ValueType::String)
        | (Value::Json(_), ValueType::Json) => {}
        other => panic!("{other:?} of {column:?}"),
    }
}

//! Values inside JSON arrays.

use kelvin_protocol::Value;

/// Appends a value as JSON. What JSON has no word for (NaN, the infinities) is null.
pub(super) fn push(json: &mut String, value: &Value) {
    match value {
        Value::Null => json.push_str("null"),
        Value::Bool(true) => json.push_str("true"),
        Value::Bool(false) => json.push_str("false"),
        Value::Number(number) => push_number(json, *number),
        Value::BigInt(int) => json.push_str(&int.to_string()),
        Value::String(text) => match serde_json::to_string(text) {
            Ok(quoted) => json.push_str(&quoted),
            Err(_) => json.push_str("null"),
        },
        Value::Json(text) => json.push_str(text),
    }
}

fn push_number(json: &mut String, number: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was just checked"
    )]
    if number.fract() == 0.0 && number.abs() < 9e15 {
        json.push_str(&(number as i64).to_string());
    } else if let Some(number) = serde_json::Number::from_f64(number) {
        json.push_str(&number.to_string());
    } else {
        json.push_str("null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_javascript_writes_them() {
        let show = |number: f64| {
            let mut json = String::new();
            push(&mut json, &Value::from(number));
            json
        };
        assert_eq!(show(1.0), "1");
        assert_eq!(show(-0.5), "-0.5");
        assert_eq!(show(f64::NAN), "null");
        assert_eq!(show(1e300).parse(), Ok(1e300));
    }
}

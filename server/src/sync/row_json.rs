//! Values as JSON, the way clients expect them.

use std::fmt::Write as _;

use kelvin_protocol::ValueRef;

/// A value that a JSON number cannot carry to a client unharmed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{place}{value} is outside of supported bounds: a client can hold integers up to 2^53-1")]
pub struct EncodeError {
    value: i64,
    place: String,
}

impl EncodeError {
    /// The same error, saying where the value stands.
    #[must_use]
    pub fn in_column(self, table: &str, column: &str) -> Self {
        Self {
            place: format!("{table}.{column}: "),
            ..self
        }
    }
}

/// Appends a value: NaN and the infinities, which JSON does not know, as `null`.
///
/// # Errors
/// For an integer beyond 2^53−1.
pub fn push_value(text: &mut String, value: ValueRef<'_>) -> Result<(), EncodeError> {
    match value {
        ValueRef::Null => text.push_str("null"),
        ValueRef::Bool(true) => text.push_str("true"),
        ValueRef::Bool(false) => text.push_str("false"),
        ValueRef::Number(number) => push_number(text, number),
        ValueRef::BigInt(value) => {
            return Err(EncodeError {
                value,
                place: String::new(),
            });
        }
        ValueRef::String(string) => push_string(text, string),
        ValueRef::Json(json) => text.push_str(json),
    }
    Ok(())
}

fn push_number(text: &mut String, number: f64) {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
        let integer = number as i64;
        text.push_str(itoa::Buffer::new().format(integer));
    } else if number.is_finite() {
        // serde_json prints the shortest text that reads back as the same double.
        text.push_str(
            &serde_json::Number::from_f64(number)
                .map_or_else(|| String::from("null"), |number| number.to_string()),
        );
    } else {
        text.push_str("null");
    }
}

/// Bytes of a string that are looked at together.
const LOOK: usize = 32;

/// Appends a JSON string.
pub fn push_string(text: &mut String, string: &str) {
    text.push('"');
    let mut left = string;
    while let Some(at) = first_special(left.as_bytes()) {
        let (plain, rest) = left.split_at(at);
        text.push_str(plain);
        let mut rest = rest.chars();
        if let Some(special) = rest.next() {
            push_escape(text, special);
        }
        left = rest.as_str();
    }
    text.push_str(left);
    text.push('"');
}

/// Where the first byte is that JSON has to escape. Most strings have none: a stretch is looked at
/// as a whole, which takes a few instructions, and byte by byte only where there is one in it.
fn first_special(bytes: &[u8]) -> Option<usize> {
    let special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let any = |stretch: &[u8; LOOK]| stretch.iter().fold(false, |any, byte| any | special(byte));
    let (stretches, _) = bytes.as_chunks();
    let plain = stretches.iter().take_while(|stretch| !any(stretch)).count() * LOOK;
    let at = bytes[plain..].iter().position(special)?;
    Some(plain + at)
}

fn push_escape(text: &mut String, special: char) {
    match special {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        other => {
            let _ = write!(text, "\\u{:04x}", u32::from(other));
        }
    }
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::Value;

    use super::*;

    fn json(value: ValueRef<'_>) -> String {
        let mut text = String::new();
        push_value(&mut text, value).unwrap();
        text
    }

    #[test]
    fn numbers_look_as_javascript_prints_them() {
        let numbers = [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e21, "1e+21"),
            (1_700_000_000_123.456, "1700000000123.456"),
        ];
        for (number, text) in numbers {
            assert_eq!(json(Value::from(number).as_ref()), text);
        }
        assert_eq!(json(ValueRef::Number(f64::NAN)), "null");
        assert_eq!(json(ValueRef::Number(f64::NEG_INFINITY)), "null");
    }

    #[test]
    fn strings_survive_a_json_parser() {
        for string in ["", "a\"b\\c", "\u{0}\u{1f}\n\r\t", "é😀\u{2028}"] {
            let text = json(Value::from(string).as_ref());
            assert_eq!(serde_json::from_str::<String>(&text).unwrap(), string);
        }
    }

    #[test]
    fn what_has_to_be_escaped_is_found_anywhere_in_a_string() {
        for length in 0..3 * LOOK {
            for (at, special) in (0..=length).zip("\"\\\n\u{1}".chars().cycle()) {
                let mut string = "é".repeat(length / 2);
                string.insert(at / 4 * 2, special);
                string.push('x');
                let text = json(Value::from(string.as_str()).as_ref());
                assert_eq!(serde_json::from_str::<String>(&text).unwrap(), string);
            }
        }
    }

    #[test]
    fn integers_beyond_doubles_are_refused() {
        assert!(push_value(&mut String::new(), ValueRef::BigInt(i64::MAX)).is_err());
    }
}

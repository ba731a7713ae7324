//! Values of options, read as zero-cache reads them.

use super::options::Kind;

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// Text, or a word out of a choice.
    Text(String),
    /// A number.
    Number(f64),
    /// A boolean.
    Flag(bool),
    /// A list.
    List(Vec<String>),
}

impl OptionValue {
    /// Reads `text`, as it stands in an environment variable.
    ///
    /// # Errors
    /// What it should have been.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        match kind {
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Number => match js_number(text) {
                Some(number) => Ok(Self::Number(number)),
                None => Err(format!("must be a number, not {text:?}")),
            },
            Kind::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Self::Flag(true)),
                "false" | "0" => Ok(Self::Flag(false)),
                _ => Err(format!("must be true, 1, false or 0, not {text:?}")),
            },
            Kind::List => Ok(Self::List(text.split(',').map(str::to_owned).collect())),
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(words) => Err(format!("must be one of {words:?}, not {text:?}")),
        }
    }
}

/// JavaScript's `Number(text)`; `None` for NaN.
fn js_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let radix = match text.get(..2) {
        Some("0x" | "0X") => Some(16),
        Some("0o" | "0O") => Some(8),
        Some("0b" | "0B") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        let digits = text.get(2..).unwrap_or_default();
        let mut number = 0.0;
        for digit in digits.chars() {
            number = number * f64::from(radix) + f64::from(digit.to_digit(radix)?);
        }
        return (!digits.is_empty()).then_some(number);
    }
    match text {
        "" => Some(0.0),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust also reads "inf" and "nan"; JavaScript does not.
        _ if text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => None,
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_javascript_reads_them() {
        let cases = [
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            (" 5 ", Some(5.0)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("-7", Some(-7.0)),
            ("  ", Some(0.0)),
            ("0b101", Some(5.0)),
            ("Infinity", Some(f64::INFINITY)),
            ("inf", None),
            ("nan", None),
            ("12px", None),
            ("0x", None),
            ("1,000", None),
        ];
        for (text, number) in cases {
            assert_eq!(js_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn booleans_and_lists_have_one_spelling_each() {
        assert_eq!(
            OptionValue::parse(Kind::Flag, "TRUE"),
            Ok(OptionValue::Flag(true))
        );
        assert!(OptionValue::parse(Kind::Flag, "yes").is_err());
        let list = OptionValue::parse(Kind::List, "a, b,").unwrap();
        let expected = ["a", " b", ""].map(str::to_owned).to_vec();
        assert_eq!(list, OptionValue::List(expected));
    }
}

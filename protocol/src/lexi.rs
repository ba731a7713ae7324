//! Numbers as strings whose byte order is the numbers' order.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Base-36 digits of `number`, prefixed with one base-36 digit for their count less one.
///
/// The form zero-cache gives its watermarks: `0` is `00`, `35` is `0z`, `36` is `110`.
#[must_use]
pub fn to_lexi(mut number: u64) -> String {
    let mut digits = [0_u8; 13];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = DIGITS[(number % 36) as usize];
        number /= 36;
        if number == 0 {
            break;
        }
    }
    let mut text = String::with_capacity(14);
    text.push(DIGITS[digits.len() - start - 1] as char);
    text.extend(digits[start..].iter().map(|digit| *digit as char));
    text
}

/// The number that [`to_lexi`] wrote as `text`; `None` for anything else.
#[must_use]
pub fn from_lexi(text: &str) -> Option<u64> {
    let (length, digits) = text.split_at_checked(1)?;
    let length = length.chars().next()?.to_digit(36)? as usize + 1;
    let canonical = digits.len() == length
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        && (length == 1 || !digits.starts_with('0'));
    if !canonical {
        return None;
    }
    u64::from_str_radix(digits, 36).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_the_published_examples() {
        let examples = [
            (0, "00"),
            (35, "0z"),
            (36, "110"),
            (22_900_504, "4dmu54"),
            (u64::MAX, "c3w5e11264sgsf"),
        ];
        for (number, text) in examples {
            assert_eq!(to_lexi(number), text);
            assert_eq!(from_lexi(text), Some(number));
        }
    }

    #[test]
    fn rejects_what_it_would_not_write() {
        for text in ["", "0", "000", "10z", "0Z", "0é", "zzzz", "0-1"] {
            assert_eq!(from_lexi(text), None, "{text}");
        }
    }

    #[test]
    fn a_capital_letter_as_the_length_is_rejected_too() {
        assert!(from_lexi("ahzzzzzzzzzz").is_some());
        assert_eq!(from_lexi("Ahzzzzzzzzzz"), None);
    }

    proptest! {
        #[test]
        fn byte_order_is_numeric_order(a: u64, b: u64) {
            prop_assert_eq!(to_lexi(a).cmp(&to_lexi(b)), a.cmp(&b));
            prop_assert_eq!(from_lexi(&to_lexi(a)), Some(a));
        }
    }
}

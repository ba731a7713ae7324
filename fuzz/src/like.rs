//! LIKE and ILIKE.

use kelvin_ivm::fuzzing;

/// A pattern and a text, behind a byte that says whether case matters and parted by a zero byte:
/// the matcher agrees with a naive one.
pub fn like(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let Ok(rest) = std::str::from_utf8(rest) else {
        return;
    };
    let (pattern, text) = rest.split_once('\0').unwrap_or((rest, ""));
    let ignore_case = flags & 1 == 1;
    let expected = parse(pattern).map(|parts| {
        if ignore_case && !pattern.contains(['%', '_', '\\']) {
            pattern.to_lowercase() == text.to_lowercase()
        } else {
            naive(&parts, text, ignore_case)
        }
    });
    let found = fuzzing::like(pattern, ignore_case, text);
    assert_eq!(found, expected, "{pattern:?} {text:?} {ignore_case}");
    if ignore_case && pattern.is_ascii() && text.is_ascii() {
        let lowered = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
        assert_eq!(found, fuzzing::like(&lowered.0, false, &lowered.1));
    }
}

enum Part {
    One(char),
    AnyOne,
    Any,
}

/// `None` where a lone escape ends the pattern.
fn parse(pattern: &str) -> Option<Vec<Part>> {
    let mut chars = pattern.chars();
    let mut parts = Vec::new();
    while let Some(next) = chars.next() {
        parts.push(match next {
            '%' => Part::Any,
            '_' => Part::AnyOne,
            '\\' => Part::One(chars.next()?),
            other => Part::One(other),
        });
    }
    Some(parts)
}

/// By the table of all pairs of a beginning of the pattern and a beginning of the text.
fn naive(parts: &[Part], text: &str, ignore_case: bool) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for part in parts {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match part {
                Part::Any => row[at] || (at > 0 && next[at - 1]),
                Part::AnyOne => at > 0 && row[at - 1],
                Part::One(wanted) => {
                    at > 0 && row[at - 1] && same(*wanted, text[at - 1], ignore_case)
                }
            };
        }
        row = next;
    }
    row[text.len()]
}

/// A sigma at the end of a word is a sigma; else characters are lowered one by one.
fn same(a: char, b: char, ignore_case: bool) -> bool {
    let lower = |c: char| -> String { c.to_lowercase().collect::<String>().replace('ς', "σ") };
    a == b || (ignore_case && lower(a) == lower(b))
}

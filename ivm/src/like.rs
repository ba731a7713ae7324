//! LIKE and ILIKE.
//!
//! `%` is any sequence and `_` exactly one code point, newlines included; `\` makes the next
//! character literal. ILIKE lowers by Unicode, character by character (`ß` is not `ss`), where the
//! pattern has a wildcard or an escape; without any it compares the lowered texts as wholes, as
//! JavaScript's `toLowerCase` does, so that a Greek final sigma is where clients expect it.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The text itself.
    Equal(String),
    /// The lowered text.
    EqualLowered(String),
    /// With wildcards or escapes.
    Wild { parts: Vec<Part>, ignore_case: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Char(char),
    AnyChar,
    AnySequence,
}

/// The pattern ends in a lone escape character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrailingEscape;

impl Pattern {
    pub(crate) fn compile(pattern: &str, ignore_case: bool) -> Result<Self, TrailingEscape> {
        if !pattern.contains(['%', '_', '\\']) {
            return Ok(if ignore_case {
                Self::EqualLowered(pattern.to_lowercase())
            } else {
                Self::Equal(pattern.to_owned())
            });
        }
        let mut parts = Vec::with_capacity(pattern.len());
        let mut chars = pattern.chars();
        while let Some(next) = chars.next() {
            parts.push(match next {
                '%' if parts.last() == Some(&Part::AnySequence) => continue,
                '%' => Part::AnySequence,
                '_' => Part::AnyChar,
                '\\' => Part::Char(chars.next().ok_or(TrailingEscape)?),
                other => Part::Char(other),
            });
        }
        Ok(Self::Wild { parts, ignore_case })
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Equal(pattern) => pattern == text,
            Self::EqualLowered(pattern) if pattern.is_ascii() && text.is_ascii() => {
                pattern.eq_ignore_ascii_case(text)
            }
            Self::EqualLowered(pattern) => *pattern == text.to_lowercase(),
            Self::Wild { parts, ignore_case } => matches_parts(parts, text, *ignore_case),
        }
    }
}

/// Greedy matching that goes back to the last `%` only: at most |pattern| × |text| steps.
fn matches_parts(parts: &[Part], text: &str, ignore_case: bool) -> bool {
    let mut rest = text.chars();
    let mut at = 0;
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let matched = match parts.get(at) {
            Some(Part::AnySequence) => {
                at += 1;
                if at == parts.len() {
                    return true;
                }
                retry = Some((at, rest.clone()));
                continue;
            }
            Some(Part::AnyChar) => match rest.next() {
                Some(_) => true,
                None => return false,
            },
            Some(Part::Char(wanted)) => match rest.next() {
                Some(found) => same_char(*wanted, found, ignore_case),
                None => return false,
            },
            None if rest.as_str().is_empty() => return true,
            None => false,
        };
        if matched {
            at += 1;
            continue;
        }
        let Some((from, later)) = &mut retry else {
            return false;
        };
        if later.next().is_none() {
            return false;
        }
        at = *from;
        rest = later.clone();
    }
}

fn same_char(a: char, b: char, ignore_case: bool) -> bool {
    if a == b {
        return true;
    }
    if !ignore_case {
        return false;
    }
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(&b);
    }
    let unfinal = |c: char| if c == 'ς' { 'σ' } else { c };
    unfinal(a).to_lowercase().eq(unfinal(b).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(text: &str, pattern: &str) -> bool {
        Pattern::compile(pattern, false).unwrap().matches(text)
    }

    fn ilike(text: &str, pattern: &str) -> bool {
        Pattern::compile(pattern, true).unwrap().matches(text)
    }

    #[test]
    fn the_whole_text_must_match() {
        assert!(like("abc", "abc"));
        assert!(!like("abc", "ab"));
        assert!(!like("abc", "bc"));
        assert!(!like("abc", "a_"));
        assert!(like("", ""));
        assert!(!like("", "_"));
        assert!(!like("ABC", "abc"));
    }

    #[test]
    fn percent_is_any_sequence_even_none_and_over_newlines() {
        for pattern in ["%", "%%", "a%", "%c", "a%c", "%b%", "%a%b%c%", "abc%"] {
            assert!(like("abc", pattern), "{pattern}");
        }
        assert!(like("", "%"));
        assert!(like("a\nb\nc", "a%c"));
        assert!(like("aXbXc", "a%X%c"));
        assert!(!like("abc", "%d%"));
        assert!(like("mississippi", "m%iss%ip%i"));
        assert!(!like("mississippi", "m%iss%ip%s"));
    }

    #[test]
    fn underscore_is_one_code_point_even_a_newline_or_an_emoji() {
        assert!(like("a\nc", "a_c"));
        assert!(like("😀", "_"));
        assert!(!like("😀", "__"));
        assert!(like("x😀y", "x_y"));
        assert!(like("abc", "%_"));
        assert!(!like("ab", "%___"));
    }

    #[test]
    fn a_backslash_makes_the_next_character_literal() {
        assert!(like("100%", r"100\%"));
        assert!(!like("1000", r"100\%"));
        assert!(like("a_b", r"a\_b"));
        assert!(!like("axb", r"a\_b"));
        assert!(like(r"a\b", r"a\\b"));
        assert!(like("ab", r"\a\b"));
        assert_eq!(Pattern::compile(r"ab\", false), Err(TrailingEscape));
        assert!(Pattern::compile(r"ab\\", false).is_ok());
    }

    #[test]
    fn regular_expression_characters_are_ordinary() {
        assert!(like("a.c", "a.c"));
        assert!(!like("abc", "a.c"));
        assert!(like("(a)*[b]$^", "(a)*[b]$^%"));
    }

    #[test]
    fn ilike_lowers_by_unicode_without_folding() {
        assert!(ilike("ABC", "abc"));
        assert!(ilike("ÄÖÜ", "äö_"));
        assert!(ilike("ÄÖÜ", "äöü"));
        assert!(ilike("ПРИВЕТ", "%рив%"));
        assert!(!ilike("straße", "STRASSE"));
        assert!(!ilike("straße", "STRASSE%"));
        assert!(ilike("ΟΔΟΣ ΑΒ", "οδοσ%"));
        assert!(ilike("ΟΔΟΣ", "οδος"));
        assert!(!like("Ä", "ä"));
        // The sign for kelvin, which is no ASCII letter, has one for its lower case.
        assert!(ilike("\u{212A}elvin", "k%"));
        assert!(ilike("kelvin", "\u{212A}%"));
    }
}

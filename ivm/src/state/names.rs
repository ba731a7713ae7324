//! Texts that are names of rows, as fewer bytes: UUIDs, and what consists of letters, digits, `-`
//! and `_`, as most keys that programs make up.

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// Thirty-two hexadecimal digits, in lower case and with the four dashes, as sixteen bytes.
    Uuid,
    /// Six bits for each character.
    Sixes,
}

/// Characters of a UUID.
pub(super) const UUID_CHARS: usize = 36;
/// Its bytes.
const UUID_BYTES: usize = 16;
/// Digits before each dash and behind the last, in pairs.
const UUID_GROUPS: [usize; 5] = [4, 2, 2, 2, 6];
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Characters of six bits.
const SIXES: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
/// What of the others there is none.
const NONE: u8 = 0xff;
const SIX_OF: [u8; 256] = places(SIXES);
const DIGIT_OF: [u8; 256] = places(DIGITS);
/// Characters that three bytes hold.
const TOGETHER: usize = 4;
/// Texts that are shorter are left as they are: they gain too little.
const FEW: usize = 8;

/// The place of each character among these.
const fn places<const N: usize>(chars: &[u8; N]) -> [u8; 256] {
    let mut places = [NONE; 256];
    let mut at = 0;
    while at < N {
        places[chars[at] as usize] = at as u8;
        at += 1;
    }
    places
}

/// How the text is written in the fewest bytes.
pub(super) fn form(text: &str) -> Form {
    let text = text.as_bytes();
    if is_uuid(text) {
        Form::Uuid
    } else if text.len() >= FEW && text.iter().all(|char| SIX_OF[usize::from(*char)] != NONE) {
        Form::Sixes
    } else {
        Form::Plain
    }
}

fn is_uuid(text: &[u8]) -> bool {
    let is_right = |(at, char): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *char == b'-',
        _ => DIGIT_OF[usize::from(*char)] != NONE,
    };
    text.len() == UUID_CHARS && text.iter().enumerate().all(is_right)
}

/// Bytes of a text of so many.
pub(super) fn packed_len(form: Form, len: usize) -> usize {
    match form {
        Form::Plain => len,
        Form::Uuid => UUID_BYTES,
        Form::Sixes => len - len / TOGETHER,
    }
}

/// Writes a text of this form.
pub(super) fn pack(form: Form, text: &str, bytes: &mut Vec<u8>) {
    let text = text.as_bytes();
    match form {
        Form::Plain => bytes.extend_from_slice(text),
        Form::Uuid => {
            let digits = text.iter().filter(|char| **char != b'-');
            let mut digits = digits.map(|char| DIGIT_OF[usize::from(*char)]);
            while let (Some(high), Some(low)) = (digits.next(), digits.next()) {
                bytes.push((high << 4) | low);
            }
        }
        Form::Sixes => {
            for chars in text.chunks(TOGETHER) {
                let six = |at: usize| chars.get(at).map_or(0, |char| SIX_OF[usize::from(*char)]);
                let [a, b, c, d] = [six(0), six(1), six(2), six(3)].map(u32::from);
                let [_, packed @ ..] = ((a << 18) | (b << 12) | (c << 6) | d).to_be_bytes();
                bytes.extend(packed.iter().take(chars.len().min(packed.len())));
            }
        }
    }
}

/// Reads what [`pack`] wrote of a text of so many characters, and puts it behind `text`.
pub(super) fn unpack(form: Form, len: usize, packed: &[u8], text: &mut Vec<u8>) {
    match form {
        Form::Plain => text.extend_from_slice(packed),
        Form::Uuid => {
            let mut digits = packed.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
            for (at, pairs) in UUID_GROUPS.into_iter().enumerate() {
                if at > 0 {
                    text.push(b'-');
                }
                let group = digits.by_ref().take(2 * pairs);
                text.extend(group.map(|digit| DIGITS[usize::from(digit)]));
            }
        }
        Form::Sixes => {
            let end = text.len() + len;
            for bytes in packed.chunks(TOGETHER - 1) {
                let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
                let all = u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
                let char = |shift: u32| SIXES[(all >> shift & 0x3f) as usize];
                text.extend([char(18), char(12), char(6), char(0)]);
            }
            text.truncate(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(text: &str) -> (Form, usize) {
        let (form, mut packed, mut back) = (form(text), Vec::new(), b"before".to_vec());
        pack(form, text, &mut packed);
        assert_eq!(packed.len(), packed_len(form, text.len()), "{text}");
        unpack(form, text.len(), &packed, &mut back);
        assert_eq!(back, [b"before", text.as_bytes()].concat(), "{text}");
        (form, packed.len())
    }

    #[test]
    fn a_uuid_takes_sixteen_bytes_and_a_random_name_six_bits_for_each_character() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(there_and_back(uuid), (Form::Uuid, 16));
        assert_eq!(there_and_back("V1StGXR8_Z5jdHi6B-myT"), (Form::Sixes, 16));
        assert_eq!(there_and_back(&uuid.to_uppercase()), (Form::Sixes, 27));
        assert_eq!(there_and_back(&uuid.replacen('-', "0", 1)).0, Form::Sixes);
        assert_eq!(there_and_back("short"), (Form::Plain, 5));
        assert_eq!(there_and_back("two words of it").0, Form::Plain);
        assert_eq!(there_and_back("übergrößen").0, Form::Plain);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(
            text in prop_oneof![
                "[-_0-9A-Za-z]{0,50}",
                "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                ".{0,40}",
            ],
        ) {
            let (_, len) = there_and_back(&text);
            prop_assert!(len <= text.len());
        }
    }
}

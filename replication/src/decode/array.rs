//! Arrays → JSON, nested by dimension, with real nulls.

use kelvin_protocol::Value;

use super::scalar::Scalar;
use super::{DecodeError, binary, json, text};

/// Most dimensions PostgreSQL allows.
const MAX_DIMENSIONS: usize = 6;
const MALFORMED: DecodeError = DecodeError("an array is malformed");

/// Reads `{1,"a b",NULL}`, with or without bounds before it.
pub(super) fn from_text(
    element: Scalar,
    delimiter: u8,
    source: &str,
) -> Result<Value, DecodeError> {
    let source = match source.strip_prefix('[') {
        Some(bounded) => bounded.split_once('=').ok_or(MALFORMED)?.1,
        None => source,
    };
    let mut reader = Reader {
        element,
        delimiter,
        source,
        json: String::with_capacity(source.len() + 2),
    };
    reader.array(0)?;
    if !reader.source.is_empty() {
        return Err(MALFORMED);
    }
    Ok(Value::Json(reader.json.into()))
}

struct Reader<'a> {
    element: Scalar,
    delimiter: u8,
    source: &'a str,
    json: String,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().first().copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        if here && byte.is_ascii() {
            self.source = self.source.get(1..).unwrap_or_default();
        }
        here
    }

    fn array(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > MAX_DIMENSIONS || !self.skip(b'{') {
            return Err(MALFORMED);
        }
        self.json.push('[');
        if !self.skip(b'}') {
            loop {
                match self.peek() {
                    Some(b'{') => self.array(depth + 1)?,
                    Some(b'"') => self.quoted()?,
                    _ => self.bare()?,
                }
                if self.skip(b'}') {
                    break;
                }
                if !self.skip(self.delimiter) {
                    return Err(MALFORMED);
                }
                self.json.push(',');
            }
        }
        self.json.push(']');
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), DecodeError> {
        let mut unescaped = String::new();
        let mut chars = self.source.char_indices().skip(1);
        loop {
            match chars.next().ok_or(MALFORMED)? {
                (at, '"') => {
                    self.source = self.source.get(at + 1..).ok_or(MALFORMED)?;
                    break;
                }
                (_, '\\') => unescaped.push(chars.next().ok_or(MALFORMED)?.1),
                (_, other) => unescaped.push(other),
            }
        }
        let value = text::decode(self.element, &unescaped)?;
        json::push(&mut self.json, &value);
        Ok(())
    }

    fn bare(&mut self) -> Result<(), DecodeError> {
        let end = self
            .source
            .bytes()
            .position(|byte| byte == self.delimiter || byte == b'}')
            .ok_or(MALFORMED)?;
        let (word, rest) = self.source.split_at_checked(end).ok_or(MALFORMED)?;
        self.source = rest;
        // A text "NULL" is always quoted, so this is the real one.
        if word.eq_ignore_ascii_case("NULL") {
            self.json.push_str("null");
        } else if word.is_empty() {
            return Err(MALFORMED);
        } else {
            let value = text::decode(self.element, word)?;
            json::push(&mut self.json, &value);
        }
        Ok(())
    }
}

/// Reads the binary form: dimensions, then the elements in row-major order.
pub(super) fn from_binary(element: Scalar, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut bytes = Bytes(bytes);
    let dimensions = usize::try_from(bytes.i32()?).map_err(|_| MALFORMED)?;
    let (_has_nulls, _element_oid) = (bytes.i32()?, bytes.i32()?);
    if dimensions > MAX_DIMENSIONS {
        return Err(MALFORMED);
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(usize::try_from(bytes.i32()?).map_err(|_| MALFORMED)?);
        let _lower_bound = bytes.i32()?;
    }
    let mut out = String::with_capacity(bytes.0.len() + 2);
    // Where one dimension has no elements there are none at all, however long the others are.
    if lengths.is_empty() || lengths.contains(&0) {
        out.push_str("[]");
    } else {
        nest(element, &lengths, &mut bytes, &mut out)?;
    }
    if !bytes.0.is_empty() {
        return Err(MALFORMED);
    }
    Ok(Value::Json(out.into()))
}

fn nest(
    element: Scalar,
    lengths: &[usize],
    bytes: &mut Bytes<'_>,
    out: &mut String,
) -> Result<(), DecodeError> {
    let Some((length, inner)) = lengths.split_first() else {
        return leaf(element, bytes, out);
    };
    out.push('[');
    for at in 0..*length {
        if at > 0 {
            out.push(',');
        }
        // An element takes at least its length word, so a lie about lengths ends here at once.
        if bytes.0.is_empty() {
            return Err(MALFORMED);
        }
        nest(element, inner, bytes, out)?;
    }
    out.push(']');
    Ok(())
}

fn leaf(element: Scalar, bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), DecodeError> {
    match bytes.i32()? {
        -1 => out.push_str("null"),
        length => {
            let length = usize::try_from(length).map_err(|_| MALFORMED)?;
            let (value, rest) = bytes.0.split_at_checked(length).ok_or(MALFORMED)?;
            bytes.0 = rest;
            json::push(out, &binary::decode(element, value)?.into_value());
        }
    }
    Ok(())
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn i32(&mut self) -> Result<i32, DecodeError> {
        let (word, rest) = self.0.split_first_chunk().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(element: Scalar, source: &str) -> String {
        match from_text(element, b',', source).unwrap() {
            Value::Json(json) => json.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nulls_in_text_arrays_are_real_and_the_word_null_is_text() {
        assert_eq!(
            text(Scalar::Text, r#"{a,NULL,"NULL","q\"\\,}"}"#),
            r#"["a",null,"NULL","q\"\\,}"]"#
        );
        assert_eq!(text(Scalar::Int8, "{1,NULL}"), "[1,null]");
        assert_eq!(text(Scalar::Bool, "{t,NULL,f}"), "[true,null,false]");
    }

    #[test]
    fn dimensions_nest_and_lower_bounds_are_dropped() {
        assert_eq!(text(Scalar::Int4, "{{1,2},{3,4}}"), "[[1,2],[3,4]]");
        assert_eq!(text(Scalar::Int4, "[0:1]={5,6}"), "[5,6]");
        assert_eq!(text(Scalar::Int4, "{}"), "[]");
    }

    #[test]
    fn json_elements_become_part_of_the_array() {
        assert_eq!(
            text(Scalar::Jsonb, r#"{"{\"a\": 1}",2}"#),
            r#"[{"a": 1},2]"#
        );
    }

    #[test]
    fn big_integers_keep_every_digit() {
        assert_eq!(
            text(Scalar::Int8, "{9223372036854775807}"),
            "[9223372036854775807]"
        );
    }

    #[test]
    fn a_dimension_without_elements_makes_an_empty_array_however_long_the_others_are() {
        let word = |int: i32| int.to_be_bytes();
        let bytes = [2, 0, 23, i32::MAX, 1, 0, 1].map(word).concat();
        let array = from_binary(Scalar::Int4, &bytes).unwrap();
        assert_eq!(array, Value::Json("[]".into()));
    }

    #[test]
    fn malformed_arrays_are_errors() {
        for source in ["", "{", "{1", "{1,", "{1}}", "{,}", "[0:1]"] {
            assert!(from_text(Scalar::Int4, b',', source).is_err(), "{source}");
        }
    }
}

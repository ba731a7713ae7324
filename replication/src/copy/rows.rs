//! The rows of a COPY, from the bytes PostgreSQL sends.

use bytes::Buf;
use kelvin_protocol::ValueRef;
use kelvin_storage::Table;

use super::chunk::Format;
use crate::decode::{DecodeError, Decoded, Decoder};
use crate::{Error, Result};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the header's extension.
const HEADER: usize = 11 + 4 + 4;
const MALFORMED: DecodeError = DecodeError("a COPY row is malformed");

/// Splits and decodes the rows of one COPY, whatever pieces its bytes come in.
pub(crate) struct Rows<'a> {
    table: &'a Table,
    columns: Vec<(Decoder, bool)>,
    format: Format,
    /// Bytes that are no whole row yet.
    held: Vec<u8>,
    /// Values of no row: memory for those of the next.
    values: Vec<Decoded<'static>>,
    header_read: bool,
    ended: bool,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(table: &'a Table, format: Format) -> Self {
        let columns = table.columns.iter().map(|column| {
            let decoder = Decoder::of(column);
            (decoder, format == Format::Binary && decoder.knows_binary())
        });
        Self {
            table,
            columns: columns.collect(),
            format,
            held: Vec::new(),
            values: Vec::new(),
            header_read: format == Format::Text,
            ended: false,
        }
    }

    /// Takes in bytes, and gives each row that is there in full. Returns how many these are.
    pub(crate) fn read<'b>(
        &mut self,
        pieces: impl IntoIterator<Item = &'b [u8]>,
        mut each: impl FnMut(&[Decoded<'_>]) -> Result<()>,
    ) -> Result<u64> {
        let mut values = emptied(std::mem::take(&mut self.values));
        let mut count = 0;
        for piece in pieces {
            // PostgreSQL sends one row at a time. It is read where it is.
            if self.held.is_empty() {
                let left = self.rows(piece, &mut values, &mut each, &mut count)?;
                self.held.extend_from_slice(left);
            } else {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(piece);
                let left = self
                    .rows(&held, &mut Vec::new(), &mut each, &mut count)?
                    .len();
                held.drain(..held.len() - left);
                self.held = held;
            }
        }
        self.values = emptied(values);
        Ok(count)
    }

    /// Gives and counts each row that is there in full. Returns what is left.
    fn rows<'b>(
        &mut self,
        bytes: &'b [u8],
        values: &mut Vec<Decoded<'b>>,
        each: &mut impl FnMut(&[Decoded<'_>]) -> Result<()>,
        count: &mut u64,
    ) -> Result<&'b [u8]> {
        let mut left = bytes;
        while self.row(&mut left, values)? {
            each(values)?;
            values.clear();
            *count += 1;
        }
        Ok(left)
    }

    /// Takes the first row off the bytes; `false` where it is not there in full.
    fn row<'b>(&mut self, left: &mut &'b [u8], values: &mut Vec<Decoded<'b>>) -> Result<bool> {
        if !self.header_read && !self.read_header(left)? {
            return Ok(false);
        }
        if self.ended {
            return Ok(false);
        }
        match self.format {
            Format::Binary => self.binary_row(left, values),
            Format::Text => self.text_row(left, values),
        }
    }

    /// Whether the COPY ended where it should.
    pub(crate) fn finish(&self) -> Result<()> {
        let complete = self.held.is_empty() && (self.ended || self.format == Format::Text);
        if complete {
            Ok(())
        } else {
            Err(self.fault(None, &MALFORMED))
        }
    }

    fn fault(&self, column: Option<usize>, error: &DecodeError) -> Error {
        let column = column.and_then(|at| self.table.columns.get(at));
        let column = column.map_or("", |column| column.name.as_str());
        Error::Protocol(format!(
            "copy of {:?}, column {column:?}: {error}",
            self.table.name
        ))
    }

    fn read_header(&mut self, left: &mut &[u8]) -> Result<bool> {
        let Some((mut header, rest)) = left.split_at_checked(HEADER) else {
            return Ok(false);
        };
        if !header.starts_with(SIGNATURE) {
            return Err(self.fault(None, &MALFORMED));
        }
        header.advance(SIGNATURE.len());
        let (_flags, extension) = (header.get_u32(), header.get_u32());
        if extension != 0 {
            return Err(self.fault(None, &DecodeError("COPY has an unknown header")));
        }
        self.header_read = true;
        *left = rest;
        Ok(true)
    }

    fn binary_row<'b>(
        &mut self,
        left: &mut &'b [u8],
        values: &mut Vec<Decoded<'b>>,
    ) -> Result<bool> {
        let mut row = *left;
        match row.try_get_i16() {
            Err(_) => return Ok(false),
            Ok(-1) => {
                self.ended = true;
                *left = row;
                return Ok(false);
            }
            Ok(count) if usize::try_from(count) == Ok(self.columns.len()) => {}
            Ok(_) => return Err(self.fault(None, &MALFORMED)),
        }
        for (at, (decoder, binary)) in self.columns.iter().enumerate() {
            let value = match binary_field(&mut row) {
                Ok(Field::Cut) => {
                    values.clear();
                    return Ok(false);
                }
                Ok(Field::Null) => Ok(Decoded::Borrowed(ValueRef::Null)),
                Ok(Field::Bytes(bytes)) if *binary => decoder.binary(bytes),
                Ok(Field::Bytes(bytes)) => decoder.text(bytes).map(Decoded::Owned),
                Err(error) => Err(error),
            };
            values.push(value.map_err(|error| self.fault(Some(at), &error))?);
        }
        *left = row;
        Ok(true)
    }

    fn text_row<'b>(&mut self, left: &mut &'b [u8], values: &mut Vec<Decoded<'b>>) -> Result<bool> {
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return Ok(false);
        };
        let (line, rest) = left.split_at(end);
        *left = rest.get(1..).unwrap_or_default();
        let mut unescaped = Vec::new();
        let fields = line.split(|byte| *byte == b'\t');
        for (at, field) in fields.enumerate() {
            let Some((decoder, _)) = self.columns.get(at) else {
                return Err(self.fault(None, &MALFORMED));
            };
            if field == b"\\N" {
                values.push(Decoded::Borrowed(ValueRef::Null));
                continue;
            }
            let value = unescape(field, &mut unescaped).and_then(|()| decoder.text(&unescaped));
            let value = value.map_err(|error| self.fault(Some(at), &error))?;
            values.push(Decoded::Owned(value));
        }
        if values.len() != self.columns.len() {
            return Err(self.fault(None, &MALFORMED));
        }
        Ok(true)
    }
}

/// No values, in the memory of these: collecting what maps to something of the same size keeps it.
fn emptied<'b>(mut values: Vec<Decoded<'_>>) -> Vec<Decoded<'b>> {
    values.clear();
    let none = |_: Decoded<'_>| Decoded::Borrowed(ValueRef::Null);
    values.into_iter().map(none).collect()
}

/// A field of a binary row.
enum Field<'b> {
    Null,
    Bytes(&'b [u8]),
    /// It is not here in full.
    Cut,
}

/// The first field of what is left of a binary row.
fn binary_field<'b>(row: &mut &'b [u8]) -> Result<Field<'b>, DecodeError> {
    let Some((length, rest)) = row.split_first_chunk() else {
        return Ok(Field::Cut);
    };
    let length = i32::from_be_bytes(*length);
    if length == -1 {
        *row = rest;
        return Ok(Field::Null);
    }
    let length = usize::try_from(length).map_err(|_| MALFORMED)?;
    let Some((field, rest)) = rest.split_at_checked(length) else {
        return Ok(Field::Cut);
    };
    *row = rest;
    Ok(Field::Bytes(field))
}

fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.clear();
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'\\') => b'\\',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            _ => return Err(DecodeError("a COPY row has an unknown escape")),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::{Value, ValueType};
    use kelvin_storage::{Column, TableId};
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        let column = |name: &str, upstream_type: &str, value_type| Column {
            name: name.into(),
            attnum: 1,
            upstream_type: upstream_type.into(),
            type_oid: 25,
            value_type,
            not_null: false,
        };
        Table {
            id: TableId(1),
            name: "t".into(),
            schema: "public".into(),
            upstream_name: "t".into(),
            oid: 1,
            columns: vec![
                column("a", "text", ValueType::String),
                column("b", "int4", ValueType::Number),
            ],
            unsynced_columns: Vec::new(),
            key: vec![0],
            unique_keys: vec![vec![0]],
            indexes: Vec::new(),
        }
    }

    /// All rows of a COPY whose bytes come in pieces.
    fn read(format: Format, pieces: &[&[u8]]) -> Result<Vec<Vec<Value>>> {
        let table = table();
        let (mut rows, mut all) = (Rows::new(&table, format), Vec::new());
        for piece in pieces {
            rows.read([*piece], |row| {
                let values = row.iter().map(|value| value.as_ref().to_value());
                all.push(values.collect());
                Ok(())
            })?;
        }
        rows.finish()?;
        Ok(all)
    }

    fn binary() -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        bytes.extend(b"\0\x02\0\0\0\x01x\0\0\0\x04\0\0\0\x07");
        bytes.extend(b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff");
        bytes.extend(b"\xff\xff");
        bytes
    }

    fn expected() -> Vec<Vec<Value>> {
        vec![
            vec![Value::from("x"), Value::from(7.0)],
            vec![Value::Null, Value::Null],
        ]
    }

    #[test]
    fn what_follows_the_end_of_a_copy_is_an_error() {
        let mut bytes = binary();
        bytes.push(0);
        assert!(read(Format::Binary, &[&bytes]).is_err());
    }

    #[test]
    fn a_copy_that_is_cut_short_is_an_error() {
        let bytes = binary();
        assert!(read(Format::Binary, &[&bytes[..bytes.len() - 1]]).is_err());
        assert!(read(Format::Text, &[b"x\t7"]).is_err());
        assert!(read(Format::Text, &[b"x\n"]).is_err());
        assert!(read(Format::Text, &[b"x\\q\t7\n"]).is_err());
    }

    proptest! {
        #[test]
        fn rows_come_out_the_same_however_their_bytes_are_cut(at in 0_usize..40) {
            let bytes = binary();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(read(Format::Binary, &[head, tail]).unwrap(), expected());
            let text = b"x\t7\n\\N\t\\N\n";
            let (head, tail) = text.split_at(at.min(text.len()));
            prop_assert_eq!(read(Format::Text, &[head, tail]).unwrap(), expected());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, keep in 0_usize..60) {
            let mut binary = binary();
            binary.truncate(keep);
            binary.extend(&bytes);
            let _ = read(Format::Binary, &[&binary]);
            let _ = read(Format::Text, &[&bytes]);
        }
    }
}

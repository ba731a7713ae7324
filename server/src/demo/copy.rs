//! Rows in PostgreSQL's binary COPY format.

use bytes::{BufMut, Bytes, BytesMut};

/// What every binary COPY begins with: signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// PostgreSQL counts time from 2000; this is 2000 in milliseconds since 1970.
const EPOCH_MS: i64 = 946_684_800_000;

/// Collects rows. A row is announced with [`CopyRows::row`] and then given field by field.
#[derive(Debug)]
pub struct CopyRows {
    buffer: BytesMut,
}

impl CopyRows {
    /// Begins a COPY in an empty buffer.
    #[must_use]
    pub fn new(mut buffer: BytesMut) -> Self {
        buffer.put_slice(HEADER);
        Self { buffer }
    }

    /// Bytes collected and not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Takes what was collected.
    pub fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// Begins a row of so many fields.
    pub fn row(&mut self, fields: i16) {
        self.buffer.put_i16(fields);
    }

    /// A null of any type.
    pub fn null(&mut self) {
        self.buffer.put_i32(-1);
    }

    /// A `text`.
    pub fn text(&mut self, value: &str) {
        self.buffer.put_i32(i32::try_from(value.len()).unwrap_or(0));
        self.buffer.put_slice(value.as_bytes());
    }

    /// A `smallint`.
    pub fn int2(&mut self, value: i16) {
        self.buffer.put_i32(2);
        self.buffer.put_i16(value);
    }

    /// An `integer`.
    pub fn int4(&mut self, value: i32) {
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
    }

    /// A `timestamptz`, from milliseconds since 1970.
    pub fn timestamp(&mut self, ms: i64) {
        self.buffer.put_i32(8);
        self.buffer.put_i64((ms - EPOCH_MS) * 1000);
    }

    /// Ends the COPY.
    pub fn end(&mut self) {
        self.buffer.put_i16(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_the_manual() {
        let mut rows = CopyRows::new(BytesMut::new());
        rows.row(3);
        rows.text("ä");
        rows.null();
        rows.timestamp(EPOCH_MS + 1);
        rows.end();
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        expected.extend(b"\0\x03\0\0\0\x02\xc3\xa4\xff\xff\xff\xff");
        expected.extend(b"\0\0\0\x08\0\0\0\0\0\0\x03\xe8\xff\xff");
        assert_eq!(&rows.take()[..], &expected[..]);
    }
}

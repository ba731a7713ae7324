//! What fuzz targets need to see of the inside. No part of the interface.

use kelvin_protocol::{Direction, Value, Version};

use crate::archive::{RowEncoder, RowHead};
use crate::evolution::Reading;
use crate::key::IndexLimit;
use crate::{Result, Row, RowId, archive, changelog};

/// The key of an index entry with these values, or with ascending directions a primary key.
#[must_use]
pub fn index_key(values: &[Value], directions: &[Direction]) -> Vec<u8> {
    let mut key = Vec::new();
    for (value, direction) in values.iter().zip(directions) {
        IndexLimit::of(values.len()).encode(value.as_ref(), *direction, &mut key);
    }
    key
}

/// The bytes of a row.
///
/// # Errors
/// Where it cannot be encoded.
pub fn encode_row(version: Version, id: RowId, values: &[Value]) -> Result<Vec<u8>> {
    let head = RowHead {
        version,
        id,
        layout: 0,
        older: &[],
    };
    let values = values.iter().map(Value::as_ref);
    RowEncoder::default()
        .encode(head, values)
        .map(<[u8]>::to_vec)
}

/// The row in these bytes.
///
/// # Errors
/// [`Corrupt`](crate::Error::Corrupt) where they are none.
pub fn decode_row(bytes: &[u8], columns: usize) -> Result<Row> {
    let reading = Reading {
        width: columns,
        sources: None,
    };
    archive::decode_row(bytes.into(), &[reading], 1)
}

/// How many rows a record of the changelog names.
///
/// # Errors
/// [`Corrupt`](crate::Error::Corrupt) where the bytes are no such record.
pub fn decode_changelog(bytes: &[u8]) -> Result<usize> {
    changelog::decode(&bytes.into()).map(|rows| rows.len())
}

/// The primary key that an index entry leads to.
///
/// # Errors
/// [`Corrupt`](crate::Error::Corrupt) where the entry leads to none.
pub fn entry_primary<'k>(key: &'k [u8], value: &[u8]) -> Result<&'k [u8]> {
    archive::entry_primary(key, value)
}

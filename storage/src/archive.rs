//! Bytes of stored rows and index entries.
//!
//! Both start with a format byte and the version since which they stand, big-endian, so that the
//! history can tell what is visible without opening the archive. A row goes on with its number
//! and an rkyv archive of its values; an index entry with the offset of the primary key in its key.

use std::sync::Arc;

use kelvin_protocol::{Value, Version};
use rkyv::rancor;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use crate::error::{Error, Result};
use crate::{Row, RowId};

/// Format of rows and index entries.
const FORMAT: u8 = 1;

const SINCE: std::ops::Range<usize> = 1..9;
const ROW_ID: std::ops::Range<usize> = 9..13;
const ROW_HEADER: usize = 13;
const KEY_OFFSET: std::ops::Range<usize> = 9..11;
const ENTRY_BYTES: usize = 11;

/// `since` of a row that came with the initial copy, whose version is known only at its end.
pub(crate) const LOADED: Version = 0;

#[derive(Archive, Serialize)]
enum ValueArchive<'a> {
    Null,
    Bool(bool),
    Number(f64),
    BigInt(i64),
    String(#[rkyv(with = InlineAsBox)] &'a str),
    Json(#[rkyv(with = InlineAsBox)] &'a str),
}

#[derive(Archive, Serialize)]
struct RowArchive<'a> {
    values: Vec<ValueArchive<'a>>,
}

impl<'a> From<&'a Value> for ValueArchive<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Number(*value),
            Value::BigInt(value) => Self::BigInt(*value),
            Value::String(text) => Self::String(text),
            Value::Json(text) => Self::Json(text),
        }
    }
}

impl From<&ArchivedValueArchive<'_>> for Value {
    fn from(value: &ArchivedValueArchive<'_>) -> Self {
        match value {
            ArchivedValueArchive::Null => Self::Null,
            ArchivedValueArchive::Bool(value) => Self::Bool(*value),
            ArchivedValueArchive::Number(value) => Self::Number(value.to_native()),
            ArchivedValueArchive::BigInt(value) => Self::BigInt(value.to_native()),
            ArchivedValueArchive::String(text) => Self::String(Arc::from(&**text)),
            ArchivedValueArchive::Json(text) => Self::Json(Arc::from(&**text)),
        }
    }
}

/// Bytes of a row.
pub(crate) fn encode_row(version: Version, id: RowId, values: &[Value]) -> Result<Vec<u8>> {
    let out = Vec::with_capacity(ROW_HEADER + 16 * values.len() + 64);
    encode_row_in(version, id, values, out)
}

/// Bytes of a row, in the memory of `out`.
pub(crate) fn encode_row_in(
    version: Version,
    id: RowId,
    values: &[Value],
    mut out: Vec<u8>,
) -> Result<Vec<u8>> {
    out.clear();
    out.push(FORMAT);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
    let row = RowArchive {
        values: values.iter().map(ValueArchive::from).collect(),
    };
    rkyv::api::high::to_bytes_in::<_, rancor::Error>(&row, out)
        .map_err(|error| Error::Invalid(format!("a row cannot be encoded: {error}")))
}

/// Writes the number of a row into its bytes.
pub(crate) fn set_row_id(bytes: &mut [u8], id: RowId) {
    if let Some(slot) = bytes.get_mut(ROW_ID) {
        slot.copy_from_slice(&id.to_be_bytes());
    }
}

/// The row in these bytes.
///
/// # Errors
/// [`Error::Corrupt`] for bytes that are not a row of `columns` values.
pub(crate) fn decode_row(bytes: &[u8], columns: usize, base: Version) -> Result<Row> {
    check_format(bytes)?;
    let id = array(bytes, ROW_ID).map(RowId::from_be_bytes)?;
    let version = since(bytes)?;
    let archive = bytes.get(ROW_HEADER..).unwrap_or_default();
    let archive = rkyv::access::<ArchivedRowArchive<'_>, rancor::Error>(archive)
        .map_err(|error| Error::Corrupt(format!("unreadable row: {error}")))?;
    if archive.values.len() != columns {
        return Err(Error::Corrupt(format!(
            "a row has {} values where its table has {columns} columns",
            archive.values.len()
        )));
    }
    Ok(Row {
        version: if version == LOADED { base } else { version },
        id,
        values: archive.values.iter().map(Value::from).collect(),
    })
}

/// Bytes of an index entry whose primary key starts at `key_offset` of its key.
pub(crate) fn encode_entry(since: Version, key_offset: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENTRY_BYTES);
    out.push(FORMAT);
    out.extend_from_slice(&since.to_be_bytes());
    // Keys are shorter than 65,536 bytes, see `key`.
    out.extend_from_slice(&u16::try_from(key_offset).unwrap_or(u16::MAX).to_be_bytes());
    out
}

/// The primary key an index entry leads to.
pub(crate) fn entry_primary<'k>(key: &'k [u8], value: &[u8]) -> Result<&'k [u8]> {
    check_format(value)?;
    let offset = u16::from_be_bytes(array(value, KEY_OFFSET)?);
    key.get(usize::from(offset)..)
        .ok_or_else(|| Error::Corrupt("an index entry without a primary key".into()))
}

/// The version since which a row or an index entry stands.
pub(crate) fn since(bytes: &[u8]) -> Result<Version> {
    array(bytes, SINCE).map(Version::from_be_bytes)
}

fn check_format(bytes: &[u8]) -> Result<()> {
    match bytes.first() {
        Some(&FORMAT) => Ok(()),
        Some(other) => Err(Error::Corrupt(format!("unknown record format {other}"))),
        None => Err(Error::Corrupt("an empty record".into())),
    }
}

fn array<const N: usize>(bytes: &[u8], range: std::ops::Range<usize>) -> Result<[u8; N]> {
    bytes
        .get(range)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Error::Corrupt("a record is cut short".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<f64>().prop_map(Value::Number),
            any::<i64>().prop_map(Value::BigInt),
            any::<String>().prop_map(Value::from),
            any::<String>().prop_map(|text| Value::Json(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_row_survives_its_archive(
            version in 1u64..,
            id in any::<u32>(),
            values in prop::collection::vec(any_value(), 0..9),
        ) {
            let bytes = encode_row(version, id, &values).unwrap();
            let row = decode_row(&bytes, values.len(), 7).unwrap();
            prop_assert_eq!((row.version, row.id), (version, id));
            prop_assert_eq!(&row.values[..], &values[..]);
        }

        #[test]
        fn damaged_rows_are_an_error_or_a_row_but_never_a_panic(
            values in prop::collection::vec(any_value(), 0..5),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode_row(3, 4, &values).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_row(&bytes, values.len(), 7);
            let _ = decode_row(&bytes[..cut.index(bytes.len())], values.len(), 7);
        }
    }

    #[test]
    fn a_loaded_row_has_the_version_of_the_load() {
        let mut bytes = encode_row(LOADED, 0, &[Value::Null]).unwrap();
        set_row_id(&mut bytes, 9);
        let row = decode_row(&bytes, 1, 77).unwrap();
        assert_eq!((row.version, row.id), (77, 9));
    }
}

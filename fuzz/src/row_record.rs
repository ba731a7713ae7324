//! Records of the storage engine.

use arbitrary::{Result, Unstructured};
use kelvin_storage::fuzzing::{decode_changelog, decode_row, encode_row, entry_primary};
use kelvin_storage::{Error, ErrorKind};

use crate::input::{list, value};

/// Format, version, number and layout of a row, and that no entry is older.
const ROW_HEADER: [u8; 17] = [3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0];
/// Format of a changelog record.
const CHANGELOG_HEADER: [u8; 1] = [1];

/// Records on disk, by the first byte: 0 a row of values, which survives its archive; 1 the bytes
/// of a row, 2 the same behind a sound header, 3 a changelog record, 4 an index entry (key and
/// value), all of which are read or refused as corrupt.
pub fn row_record(data: &[u8]) {
    let _ = check(&mut Unstructured::new(data));
}

fn check(input: &mut Unstructured<'_>) -> Result<()> {
    let kind = input.arbitrary::<u8>()? % 5;
    if kind == 0 {
        return survives(input);
    }
    let columns = usize::from(input.arbitrary::<u8>()? % 16);
    let rest = input.bytes(input.len())?;
    match kind {
        1 => refused_or_read(decode_row(rest, columns)),
        2 => refused_or_read(decode_row(&[&ROW_HEADER, rest].concat(), columns)),
        3 => refused_or_read(decode_changelog(&[&CHANGELOG_HEADER, rest].concat())),
        _ => {
            let (key, entry) = rest.split_at(columns.min(rest.len()));
            refused_or_read(entry_primary(key, entry));
        }
    }
    Ok(())
}

fn survives(input: &mut Unstructured<'_>) -> Result<()> {
    let (version, id) = (input.arbitrary::<u64>()?.max(1), input.arbitrary()?);
    let values = list(input, 9, value)?;
    let bytes = encode_row(version, id, &values).expect("every row can be written");
    let row = decode_row(&bytes, values.len()).expect("and read again");
    assert_eq!((row.version, row.id), (version, id));
    assert_eq!(row.to_values(), values);
    assert!(decode_row(&bytes, values.len() + 1).is_err());
    Ok(())
}

fn refused_or_read<T>(outcome: Result<T, Error>) {
    if let Err(error) = outcome {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
